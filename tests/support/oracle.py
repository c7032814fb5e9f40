"""The paper's equations with explicit loops, for comparison; shares no code with the package.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 1-8, and supplement section 1, Eq. 1-4; Tables 3
and 4; supplement Tables 1-3. Features are masked as the equations have it, scoring kernels have all
their N_out rows and are convolved, and each neuron's output is fused by itself.
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

    specialization: str = "gates"
    synapse: str = "gumbel"
    scoring_kernel: str = "1x1x1"
    scoring_rows: str = "collapsed"
    impulse: str = "standardized"
    impulse_deviation: float = 1.0
    temperature: float = 1.0
    dispatch: str = "dense"
    width: int = 0
    groups: int = 1
    fuse: str = "shared"
    fuse_groups: int = 1
    fuse_kernel: str = "1x1x1"
    channel_shuffle: bool = True
    skip: bool = True


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
    impulses: Tensor | None
    running: dict[str, Tensor]
    held: Held


def impulse_of(kernel: Tensor, sample: Tensor) -> Tensor:
    """Eq. 1-2: response of an (outputs, N_in, height, width) kernel to (N_in, T, H, W), summed."""
    total = sample.new_zeros(())
    for row in kernel:
        response = torch.zeros_like(sample[0])
        for weights, channel in zip(row, sample, strict=True):
            response = response + convolved(channel, weights[None])
        total = total + response.sum()
    return total


def literal_kernel(collapsed: Tensor, num_outputs: int) -> Tensor:
    """A kernel of several outputs that add up to ``collapsed``; they differ."""
    shares = torch.arange(1, num_outputs + 1, dtype=collapsed.dtype)
    return torch.stack([collapsed * share for share in shares / shares.sum()])


def convolved(channel: Tensor, weights: Tensor) -> Tensor:
    """One channel (T, H, W) under one zero-padded kernel (time, height, width)."""
    padding = [size // 2 for size in weights.shape]
    return F.conv3d(channel[None, None], weights[None, None], padding=padding)[0, 0]


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
    num_outputs = features.shape[1] * (2 if variant.scoring_kernel == "double" else 1)
    kernels = list(values["synapse.scoring.kernels"])
    if variant.scoring_rows == "collapsed":
        kernels = [literal_kernel(kernel, num_outputs) for kernel in kernels]
    assert all(len(kernel) == num_outputs for kernel in kernels)
    raw = torch.stack(
        [torch.stack([impulse_of(kernel, sample) for kernel in kernels]) for sample in features]
    )
    if variant.impulse == "sum":
        return raw, {}
    if variant.impulse == "mean":
        return raw / features[0, 0].numel(), {}
    running_mean = values["synapse.statistics.running_mean"][0]
    running_var = values["synapse.statistics.running_var"][0]
    rate = MOMENTUM
    if variant.impulse == "running":
        rate = max(MOMENTUM, 1 / (1 + int(values["synapse.statistics.num_batches"])))
    columns, means, variances = [], [], []
    for neuron in range(len(kernels)):
        mean, variance = running_mean[neuron], running_var[neuron]
        if training:
            batch_mean, batch_variance = moments(raw[:, neuron])
            moved_mean = (1 - rate) * mean + rate * batch_mean
            moved_variance = (1 - rate) * variance + rate * unbiased(batch_variance, len(raw))
            means.append(moved_mean.detach())
            variances.append(moved_variance.detach())
            mean, variance = batch_mean, batch_variance
            if variant.impulse == "running":
                mean, variance = moved_mean, moved_variance
        unit = (raw[:, neuron] - mean) / torch.sqrt(variance + EPS)
        columns.append(variant.impulse_deviation * unit)
    impulses = torch.stack(columns, dim=1)
    if not training:
        return impulses, {}
    running = {
        "synapse.statistics.running_mean": torch.stack(means)[None],
        "synapse.statistics.running_var": torch.stack(variances)[None],
    }
    return impulses, running


def saturating_sigmoid(x: Tensor) -> Tensor:
    """Supplement Eq. 4."""
    scaled = 1.2 / (1.0 + torch.exp(-x)) - 0.1
    return torch.minimum(torch.ones_like(x), torch.maximum(torch.zeros_like(x), scaled))


def convolution(sample: Tensor, kernel: Tensor, groups: int) -> Tensor:
    """Size-keeping grouped convolution of (channels, T, H, W), one pair of channels at a time."""
    num_outputs, per_group = kernel.shape[:2]
    outputs = []
    for output in range(num_outputs):
        first = output // (num_outputs // groups) * per_group
        total = torch.zeros_like(sample[0])
        for index in range(per_group):
            total = total + convolved(sample[first + index], kernel[output, index])
        outputs.append(total)
    return torch.stack(outputs)


def normalized(
    own: Values, outputs: dict[int, Tensor], routed: list[int]
) -> tuple[dict[int, Tensor], Tensor, Tensor]:
    """Batch normalization of a neuron's outputs by sample over those routed to it, with ReLU.

    Without routed samples (``routed`` empty) the running statistics serve and stay.
    """
    channels: dict[int, list[Tensor]] = {sample: [] for sample in outputs}
    means, variances = [], []
    for channel in range(len(own["weight"])):
        mean, variance = own["running_mean"][channel], own["running_var"][channel]
        new_mean, new_var = mean, variance
        if routed:
            values = torch.stack([outputs[sample][channel] for sample in routed])
            mean, variance = moments(values)
            new_mean = moved(new_mean, mean)
            new_var = moved(new_var, unbiased(variance, values.numel()))
        for sample, output in outputs.items():
            unit = (output[channel] - mean) / torch.sqrt(variance + EPS)
            channels[sample].append(
                torch.relu(own["weight"][channel] * unit + own["bias"][channel])
            )
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


def gate_of(
    values: Values, num_neurons: int, noise: Noise | None, variant: Variant, held: Held | None
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Values of b and of r for every neuron, and the straight-through offset."""
    if variant.specialization == "gates":
        binary, real, offset = gates_of(values["gates.gates"], noise, held)
        return list(binary), list(real), offset
    num_channels = values["neurons.fuse.weight"].shape[1]
    halves = torch.tensor([channel % 2 for channel in range(num_channels)], dtype=torch.float64)
    return [halves] * num_neurons, [halves] * num_neurons, torch.zeros(0)


def operated(
    values: Values, sample: Tensor, neuron: int, gate: Tensor, variant: Variant
) -> list[Tensor]:
    """Eq. 4-7, or the one 3x3x3 convolution."""
    names = ["volume"] if variant.specialization == "conv3d" else ["spatial", "temporal"]
    kernels = [values[f"neurons.operators.{name}"][neuron] for name in names]
    if variant.specialization == "conv3d":
        return [convolution(sample, kernels[0], variant.groups)]
    column = gate[:, None, None, None]
    return [
        convolution((1.0 - column) * sample, kernels[0], variant.groups),
        convolution(column * sample, kernels[1], variant.groups),
    ]


def run_layer(
    values: Values, features: Tensor, noise: Noise | None, variant: Variant, held: Held | None
) -> LayerResult:
    """One DSTS layer; without noise as at test time."""
    training = noise is not None
    norm = {key: values[f"neurons.operator_norm.{key}"] for key in ("weight", "bias")}
    norm |= {
        key: values[f"neurons.operator_norm.statistics.{key}"]
        for key in ("running_mean", "running_var")
    }
    num_neurons, samples = len(norm["weight"]), range(len(features))
    impulses, running, chosen = None, {}, []
    weights = features.new_full((len(features), num_neurons), 1 / num_neurons)
    selection_offset = weights
    if variant.synapse == "gumbel":
        impulses, running = impulses_of(values, features, variant, training=training)
        chosen, weights, selection_offset = selection_of(impulses, noise, variant, held)
    binary, real, gate_offset = gate_of(values, num_neurons, noise, variant, held)
    fused = [torch.zeros_like(sample) for sample in features]
    moved_means, moved_variances = [], []
    for neuron in range(num_neurons):
        routed = [sample for sample in samples if not chosen or chosen[sample] == neuron]
        computed = list(samples) if training and variant.dispatch == "dense" else routed
        outputs: dict[int, list[Tensor]] = {}
        for sample in computed:
            takes_binary = noise is None or noise.takes_binary[sample]
            gate = (binary if takes_binary else real)[neuron]
            outputs[sample] = operated(values, features[sample], neuron, gate, variant)
        results, mean, variance = normalized_operators(norm, neuron, outputs, training, routed)
        moved_means.append(mean)
        moved_variances.append(variance)
        for sample, combined in results.items():
            kernel = values["neurons.fuse.weight"][neuron if variant.fuse == "per_neuron" else 0]
            groups = variant.groups if variant.channel_shuffle else 1
            output = convolution(shuffled(combined, groups), kernel, variant.fuse_groups)
            fused[sample] = fused[sample] + weights[sample, neuron] * output
    if training:
        name = "neurons.operator_norm.statistics"
        running[f"{name}.running_mean"] = torch.stack(moved_means)
        running[f"{name}.running_var"] = torch.stack(moved_variances)
    held = Held(chosen, selection_offset, gate_offset)
    return LayerResult(torch.stack(fused), chosen, impulses, running, held)


def normalized_operators(
    norm: Values, neuron: int, outputs: dict[int, list[Tensor]], training: bool, routed: list[int]
) -> tuple[dict[int, Tensor], Tensor, Tensor]:
    """Sum of a neuron's normalized, rectified operators by sample (Eq. 8); moved statistics."""
    total_channels = norm["weight"].shape[1]
    num_operators = max([len(parts) for parts in outputs.values()], default=1)
    width = total_channels // num_operators
    sums: dict[int, Tensor] = {}
    means, variances = [], []
    for operator in range(num_operators):
        first = operator * width
        own = {key: value[neuron, first : first + width] for key, value in norm.items()}
        results, mean, variance = normalized(
            own,
            {sample: parts[operator] for sample, parts in outputs.items()},
            routed if training else [],
        )
        for sample, result in results.items():
            sums[sample] = sums[sample] + result if sample in sums else result
        means.append(mean)
        variances.append(variance)
    return sums, torch.cat(means), torch.cat(variances)


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
