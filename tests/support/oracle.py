"""The paper's equations with explicit loops, for comparison; shares no code with the package.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 1-8, and supplement section 1, Eq. 1-4. Features
are masked as the equations have it, scoring kernels have all their N_out rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-5
MOMENTUM = 0.1

Values = Mapping[str, Tensor]
"""Parameters and buffers by name."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Which form of the module."""

    impulse: str = "standardized"
    dispatch: str = "dense"
    groups: int = 1
    fuse_groups: int = 1
    channel_shuffle: bool = True
    skip: bool = True
    temperature: float = 1.0


class Noise(NamedTuple):
    """Random draws of one layer and pass."""

    gumbel: Tensor
    gates: Tensor
    takes_binary: list[bool]


class Held(NamedTuple):
    """The piecewise constant parts of a pass: who is active, and the straight-through offsets."""

    chosen: list[int]
    selection_offset: Tensor
    gate_offset: Tensor


class LayerResult(NamedTuple):
    """Output of a layer, its selection, moved running statistics and piecewise constant parts."""

    features: Tensor
    chosen: list[int]
    impulses: Tensor
    running: dict[str, Tensor]
    held: Held | None


def impulse_of(kernel: Tensor, sample: Tensor) -> Tensor:
    """Eq. 1-2: response of an (N_out, N_in) scoring kernel to (N_in, T, H, W), summed."""
    total = sample.new_zeros(())
    for row in kernel:
        response = torch.zeros_like(sample[0])
        for weight, channel in zip(row, sample, strict=True):
            response = response + weight * channel
        total = total + response.sum()
    return total


def literal_kernel(collapsed: Tensor) -> Tensor:
    """An N_out x N_in kernel whose rows add up to a vector of N_in."""
    num_outputs = len(collapsed)
    return torch.stack([collapsed / num_outputs for _ in range(num_outputs)])


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all values."""
    mean = values.sum() / values.numel()
    return mean, ((values - mean) ** 2).sum() / values.numel()


def moved(running: Tensor, value: Tensor) -> Tensor:
    """Running statistic after one more batch."""
    return (1 - MOMENTUM) * running + MOMENTUM * value.detach()


def unbiased(variance: Tensor, count: int) -> Tensor:
    """Unbiased variance; that of a single value stays 0."""
    return variance * count / max(count - 1, 1)


def impulses_of(
    values: Values, features: Tensor, variant: Variant, *, training: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 3 with the named normalization; also the moved running statistics."""
    scoring = values["synapse.scoring"]
    raw = torch.stack(
        [
            torch.stack([impulse_of(literal_kernel(vector), sample) for vector in scoring])
            for sample in features
        ]
    )
    if variant.impulse == "sum":
        return raw, {}
    if variant.impulse == "mean":
        return raw / features[0, 0].numel(), {}
    running_mean = values["synapse.statistics.running_mean"][0]
    running_var = values["synapse.statistics.running_var"][0]
    columns, means, variances = [], [], []
    for neuron in range(len(scoring)):
        mean, variance = running_mean[neuron], running_var[neuron]
        if training:
            mean, variance = moments(raw[:, neuron])
        columns.append((raw[:, neuron] - mean) / torch.sqrt(variance + EPS))
        means.append(moved(running_mean[neuron], mean))
        variances.append(moved(running_var[neuron], unbiased(variance, len(raw))))
    running = {
        "synapse.statistics.running_mean": torch.stack(means)[None],
        "synapse.statistics.running_var": torch.stack(variances)[None],
    }
    return torch.stack(columns, dim=1), running if training else {}


def saturating_sigmoid(x: Tensor) -> Tensor:
    """Supplement Eq. 4."""
    scaled = 1.2 / (1.0 + torch.exp(-x)) - 0.1
    return torch.minimum(torch.ones_like(x), torch.maximum(torch.zeros_like(x), scaled))


def convolution(sample: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Size-keeping grouped convolution of (channels, T, H, W), one pair of channels at a time."""
    num_outputs, per_group = kernel.shape[:2]
    padding = [size // 2 for size in kernel.shape[2:]]
    outputs = []
    for output in range(num_outputs):
        first = output // (num_outputs // groups) * per_group
        total = torch.zeros_like(sample[0])
        for index in range(per_group):
            channel = sample[first + index][None, None]
            total = (
                total + F.conv3d(channel, kernel[output, index][None, None], padding=padding)[0, 0]
            )
        outputs.append(total)
    return torch.stack(outputs)


def normalized(
    values: Values, name: str, neuron: int, outputs: dict[int, Tensor], routed: list[int]
) -> tuple[dict[int, Tensor], Tensor, Tensor]:
    """Batch normalization of a neuron's outputs by sample over those routed to it, with ReLU.

    Without routed samples (``routed`` empty) the running statistics serve and stay.
    """
    running_mean = values[f"{name}.statistics.running_mean"][neuron]
    running_var = values[f"{name}.statistics.running_var"][neuron]
    weight, bias = values[f"{name}.weight"][neuron], values[f"{name}.bias"][neuron]
    channels: dict[int, list[Tensor]] = {sample: [] for sample in outputs}
    means, variances = [], []
    for channel in range(len(weight)):
        mean, variance = running_mean[channel], running_var[channel]
        new_mean, new_var = mean, variance
        if routed:
            own = torch.stack([outputs[sample][channel] for sample in routed])
            mean, variance = moments(own)
            new_mean = moved(running_mean[channel], mean)
            new_var = moved(running_var[channel], unbiased(variance, own.numel()))
        for sample, output in outputs.items():
            unit = (output[channel] - mean) / torch.sqrt(variance + EPS)
            channels[sample].append(torch.relu(weight[channel] * unit + bias[channel]))
        means.append(new_mean)
        variances.append(new_var)
    results = {sample: torch.stack(parts) for sample, parts in channels.items()}
    return results, torch.stack(means), torch.stack(variances)


def selection_of(
    impulses: Tensor, noise: Noise | None, variant: Variant, held: Held | None
) -> tuple[list[int], Tensor, Tensor]:
    """Active neuron of every sample, its straight-through weights, one-hot minus softmax."""
    scores = impulses if noise is None else (impulses + noise.gumbel) / variant.temperature
    if held is not None:
        soft = torch.softmax(scores, dim=1)
        return held.chosen, soft + held.selection_offset, held.selection_offset
    chosen = [max(range(len(row)), key=row.__getitem__) for row in scores.tolist()]
    hard = torch.zeros_like(scores)
    for sample, neuron in enumerate(chosen):
        hard[sample, neuron] = 1.0
    if noise is None:
        return chosen, hard, hard
    soft = torch.softmax(scores, dim=1)
    offset = (hard - soft).detach()
    return chosen, soft + offset, offset


def gates_of(
    gates: Tensor, noise: Noise | None, held: Held | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Supplement Eq. 1-4: b with the gradient of r, r, and b minus r."""
    noisy = gates if noise is None else gates + noise.gates
    hard = torch.zeros_like(gates)
    for neuron in range(gates.shape[0]):
        for channel in range(gates.shape[1]):
            hard[neuron, channel] = 1.0 if noisy[neuron, channel] > 0 else 0.0
    if noise is None:
        return hard, hard, hard
    real = saturating_sigmoid(noisy)
    offset = (hard - real).detach() if held is None else held.gate_offset
    return real + offset, real, offset


def run_layer(
    values: Values, features: Tensor, noise: Noise | None, variant: Variant, held: Held | None
) -> LayerResult:
    """One DSTS layer; without noise as at test time."""
    training = noise is not None
    impulses, running = impulses_of(values, features, variant, training=training)
    chosen, weights, selection_offset = selection_of(impulses, noise, variant, held)
    binary, real, gate_offset = gates_of(values["gates.gates"], noise, held)
    num_neurons, num_samples = len(binary), len(features)
    dense = training and variant.dispatch == "dense"
    combined: list[Tensor] = [torch.zeros_like(sample) for sample in features]
    names = ("neurons.spatial_norm", "neurons.temporal_norm")
    moved_means: dict[str, list[Tensor]] = {name: [] for name in names}
    moved_variances: dict[str, list[Tensor]] = {name: [] for name in names}
    for neuron in range(num_neurons):
        routed = [sample for sample in range(num_samples) if chosen[sample] == neuron]
        spatial, temporal = {}, {}
        for sample in range(num_samples) if dense else routed:
            takes_binary = noise is None or noise.takes_binary[sample]
            gate = (binary if takes_binary else real)[neuron][:, None, None, None]
            spatial[sample] = convolution(
                (1.0 - gate) * features[sample], values["neurons.spatial"][neuron], variant.groups
            )  # Eq. 4, 6
            temporal[sample] = convolution(
                gate * features[sample], values["neurons.temporal"][neuron], variant.groups
            )  # Eq. 5, 7
        activated = []
        for name, outputs in zip(names, (spatial, temporal), strict=True):
            result, mean, variance = normalized(
                values, name, neuron, outputs, routed if training else []
            )
            activated.append(result)
            moved_means[name].append(mean)
            moved_variances[name].append(variance)
        for sample in spatial:
            both = activated[0][sample] + activated[1][sample]  # Eq. 8
            combined[sample] = combined[sample] + weights[sample, neuron] * both
    if training:
        for name in names:
            running[f"{name}.statistics.running_mean"] = torch.stack(moved_means[name])
            running[f"{name}.statistics.running_var"] = torch.stack(moved_variances[name])
    groups = variant.groups if variant.channel_shuffle else 1
    fused = [
        convolution(shuffled(sample, groups), values["fuse.weight"], variant.fuse_groups)
        for sample in combined
    ]
    return LayerResult(
        torch.stack(fused), chosen, impulses, running, Held(chosen, selection_offset, gate_offset)
    )


def shuffled(sample: Tensor, groups: int) -> Tensor:
    """Deal the channels of the groups in turn."""
    size = len(sample) // groups
    return torch.stack([sample[group * size + i] for i in range(size) for group in range(groups)])


def run_module(
    values: Values,
    features: Tensor,
    noises: Sequence[Noise] | None,
    variant: Variant,
    *,
    num_layers: int,
    held: Sequence[Held | None] | None = None,
) -> tuple[Tensor, list[LayerResult]]:
    """All layers, with one skip connection over all of them."""
    current, results = features, []
    for index in range(num_layers):
        prefix = f"layers.{index}."
        own = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        result = run_layer(
            own,
            current,
            None if noises is None else noises[index],
            variant,
            None if held is None else held[index],
        )
        results.append(result)
        current = result.features
    return (features + current if variant.skip else current), results


def classify(
    values: Values,
    features: Tensor,
    noises: Sequence[Noise] | None,
    variant: Variant,
    *,
    num_layers: int,
    held: Sequence[Held | None] | None = None,
) -> tuple[Tensor, list[LayerResult]]:
    """Logits: DSTS, mean over time and space, linear layer."""
    own = {k.removeprefix("dsts."): v for k, v in values.items() if k.startswith("dsts.")}
    output, results = run_module(own, features, noises, variant, num_layers=num_layers, held=held)
    rows = []
    for sample in output:
        pooled = torch.stack([channel.sum() / channel.numel() for channel in sample])
        rows.append((values["fc.weight"] * pooled).sum(1) + values["fc.bias"])
    return torch.stack(rows), results


def cross_entropy(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Mean cross-entropy."""
    losses = [
        torch.log(torch.exp(row).sum()) - row[label]
        for row, label in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses).sum() / len(losses)
