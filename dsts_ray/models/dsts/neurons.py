"""Specialized neurons: spatial and temporal operators behind channel gates.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 4-8.

Differences from the paper:
    - The gates mask the kernels instead of the feature map: S(( 1 - b) X) = (S (1 - b))(X), so that
      all neurons read one input without copies of it.
    - ``groups`` splits the operators' channels, which brings the module to the size the paper
      states; ``groups=1`` is the letter.
    - Batch statistics of a neuron are those of the samples routed to it, in both dispatches; a
      neuron to which none is routed uses its running statistics.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dsts_ray.models.batch_norm import RunningStatistics
from dsts_ray.models.dsts.gates import GateSample
from dsts_ray.models.dsts.synapse import Selection

_EPS = 1e-5

Dispatch = Literal["dense", "sparse"]


class SpecializedNeurons(nn.Module):
    """The N neurons of a layer."""

    def __init__(self, *, channels: int, num_neurons: int, groups: int, dispatch: Dispatch) -> None:
        """Create the operators (Kaiming-uniform, as torch's convolutions).

        Args:
            channels: N_in = N_out.
            num_neurons: N.
            groups: Of both operators; divides ``channels``.
            dispatch: ``dense`` computes all neurons in training, so that the gradient of the
                selection sees every alternative's output; ``sparse`` computes the chosen neurons
                alone, and the selection's gradient sees the chosen output only. At test time only
                chosen neurons are ever computed.
        """
        super().__init__()
        self.groups = groups
        self.dispatch = dispatch
        self.spatial = nn.Parameter(torch.empty(num_neurons, channels, channels // groups, 1, 3, 3))
        self.temporal = nn.Parameter(
            torch.empty(num_neurons, channels, channels // groups, 3, 1, 1)
        )
        for kernel in (self.spatial, self.temporal):
            bound = kernel[0, 0].numel() ** -0.5
            nn.init.uniform_(kernel, -bound, bound)
        self.spatial_norm = NeuronNorm(num_neurons, channels)
        self.temporal_norm = NeuronNorm(num_neurons, channels)

    def forward(
        self,
        features: Float[Tensor, "batch channels time height width"],
        selection: Selection,
        gates: GateSample,
    ) -> Float[Tensor, "batch channels time height width"]:
        """Return Z of Eq. 8 of the neuron each sample activates."""
        dense = self.training and self.dispatch == "dense"
        operators = [
            (
                _masked(self.spatial, 1.0 - gates.binary),
                _masked(self.temporal, gates.binary),
            ),  # Eq. 4-5
        ]
        rows = [torch.arange(len(features), device=features.device)]
        if gates.real is not None and gates.takes_binary is not None:
            operators.append(
                (_masked(self.spatial, 1.0 - gates.real), _masked(self.temporal, gates.real))
            )
            rows = [
                gates.takes_binary.nonzero().squeeze(1),
                (~gates.takes_binary).nonzero().squeeze(1),
            ]
        order = torch.cat(rows).argsort()
        convolve = self._convolve_all if dense else self._convolve_chosen
        outputs = []
        for norm, kernels in zip(
            (self.spatial_norm, self.temporal_norm), zip(*operators, strict=True), strict=True
        ):
            parts = [
                convolve(features[index], kernel, selection.chosen[index])
                for index, kernel in zip(rows, kernels, strict=True)
                if len(index)
            ]
            outputs.append(norm(torch.cat(parts)[order], selection.chosen).relu())
        combined = outputs[0] + outputs[1]  # Eq. 8
        weights = (
            selection.weights
            if dense
            else selection.weights.gather(1, selection.chosen.unsqueeze(1))
        )
        return (weights[..., None, None, None, None] * combined).sum(1)

    def _convolve_all(self, features: Tensor, kernels: Tensor, chosen: Tensor) -> Tensor:
        del chosen
        kernels = rearrange(kernels, "n (g o) i t h w -> (g n o) i t h w", g=self.groups)
        output = _convolve(features, kernels, self.groups)
        return rearrange(
            output, "b (g n o) t h w -> b n (g o) t h w", g=self.groups, n=len(self.spatial)
        )

    def _convolve_chosen(self, features: Tensor, kernels: Tensor, chosen: Tensor) -> Tensor:
        present, counts = chosen.unique(return_counts=True)
        order = chosen.argsort(stable=True)
        parts = [
            _convolve(part, kernels[neuron], self.groups)
            for part, neuron in zip(
                features[order].split(counts.tolist()), present.tolist(), strict=True
            )
        ]
        return torch.cat(parts)[order.argsort()].unsqueeze(1)  # Eq. 6-7


class NeuronNorm(nn.Module):
    """Batch normalization per neuron over the samples routed to it on all workers."""

    def __init__(self, num_neurons: int, channels: int) -> None:
        """Create scale, shift and running statistics for every neuron and channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_neurons, channels))
        self.bias = nn.Parameter(torch.zeros(num_neurons, channels))
        self.statistics = RunningStatistics(num_neurons, channels)

    def forward(self, outputs: Tensor, chosen: Tensor) -> Tensor:
        """Normalize operator outputs.

        Args:
            outputs: (batch, neurons, channels, time, height, width), or with one neuron in
                dimension 1: the chosen.
            chosen: Activated neuron of each sample, shape (batch,).
        """
        outputs = outputs.to(self.weight.dtype)
        mean, variance = self.statistics.running_mean, self.statistics.running_var
        if self.training:
            mean, variance = self.statistics(*_routed_moments(outputs, chosen, len(self.weight)))
        scale = self.weight * (variance + _EPS).rsqrt()
        shift = self.bias - mean * scale
        if outputs.shape[1] == len(self.weight) and outputs.shape[1] > 1:
            scale, shift = scale.unsqueeze(0), shift.unsqueeze(0)
        else:
            scale, shift = scale[chosen].unsqueeze(1), shift[chosen].unsqueeze(1)
        return outputs * scale[..., None, None, None] + shift[..., None, None, None]


def _routed_moments(
    outputs: Tensor, chosen: Tensor, num_neurons: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of each neuron's outputs over the samples routed to it, on this worker."""
    routed = F.one_hot(chosen, num_neurons).to(outputs)
    size = outputs[0, 0, 0].numel()
    means = outputs.mean((-3, -2, -1))
    squares = ((outputs - means[..., None, None, None]) ** 2).sum((-3, -2, -1))
    samples = routed.sum(0)
    mean = _sum_routed(routed, means) / samples.clamp(min=1).unsqueeze(1)
    between = _sum_routed(routed, (means - mean) ** 2) * size
    return samples * size, mean, _sum_routed(routed, squares) + between


def _sum_routed(routed: Tensor, values: Tensor) -> Tensor:
    return (routed.unsqueeze(2) * values).sum(0)


def _masked(kernels: Tensor, gates: Tensor) -> Tensor:
    """Scale every kernel's input channels by its neuron's gates."""
    num_neurons, channels, per_group = kernels.shape[:3]
    per_output = rearrange(gates, "n (g i) -> n g 1 i", i=per_group)
    per_output = per_output.expand(-1, -1, per_group, -1).reshape(num_neurons, channels, per_group)
    return kernels * per_output[..., None, None, None]


def _convolve(features: Tensor, kernels: Tensor, groups: int) -> Tensor:
    padding = [size // 2 for size in kernels.shape[-3:]]
    return F.conv3d(features, kernels, padding=padding, groups=groups)
