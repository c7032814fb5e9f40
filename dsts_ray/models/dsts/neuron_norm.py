"""Batch normalization of the operators' outputs, each neuron's over the samples routed to it.

Reference: Li et al., ECCV 2022, section 3.2: "Z_S and Z_T are then fed to a batch normalization".

Differences from the paper, which leaves open what a neuron's batch is: statistics are those of the
samples routed to the neuron (all samples where outputs are averaged), on all workers, in either
dispatch. A neuron to which no sample is routed uses its running statistics and keeps them.
"""

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from dsts_ray.models.batch_norm import RunningStatistics

_EPS = 1e-5
_POSITIONS = (-3, -2, -1)


class NeuronNorm(nn.Module):
    """Scale and shift per neuron and channel; both operators' in one, for one all-reduce."""

    def __init__(self, *, num_neurons: int, channels: int) -> None:
        """Create parameters and running statistics; ``channels`` counts all operators' outputs."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_neurons, channels))
        self.bias = nn.Parameter(torch.zeros(num_neurons, channels))
        self.statistics = RunningStatistics(num_neurons, channels)

    def forward(
        self, moments: tuple[Tensor, Tensor, Tensor] | None
    ) -> tuple[Float[Tensor, "neurons channels"], Float[Tensor, "neurons channels"]]:
        """Return factor and summand that normalize.

        Args:
            moments: This worker's, from :func:`routed_moments`; None for the running statistics.
        """
        mean, variance = self.statistics.running_mean, self.statistics.running_var
        if moments is not None:
            mean, variance = self.statistics(*moments)
        scale = self.weight * (variance + _EPS).rsqrt()
        return scale, self.bias - mean * scale


def routed_moments(
    means: Float[Tensor, "batch computed channels"],
    variances: Float[Tensor, "batch computed channels"],
    routed: Float[Tensor, "batch neurons"],
    size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and squared deviations of every neuron's outputs over the samples routed to it.

    Args:
        means: Of each sample's outputs; all neurons' or, in dimension 1, the chosen one's alone.
        variances: Biased, likewise.
        routed: 1 where the sample is routed to the neuron, else 0.
        size: Positions of an output.

    Returns:
        Arguments of :class:`~dsts_ray.models.batch_norm.RunningStatistics`.
    """
    samples = routed.sum(0)
    routed = routed.unsqueeze(2)
    mean = (routed * means).sum(0) / samples.clamp(min=1).unsqueeze(1)
    squares = (routed * (variances + (means - mean) ** 2)).sum(0) * size
    return samples * size, mean, squares


def output_moments(outputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each sample's outputs.

    Args:
        outputs: One per operator, (batch, groups, neurons, outputs per group, time, height, width).

    Returns:
        Both of shape (batch, neurons, channels of all operators).
    """
    means, variances = zip(*map(_Moments.apply, outputs), strict=True)
    mean, variance = (
        torch.cat([rearrange(part, "b g n o -> b n (g o)") for part in parts], dim=2)
        for parts in (means, variances)
    )
    return mean, variance


class _Moments(torch.autograd.Function):
    """Mean and biased variance over the last three dimensions; differentiates twice.

    ``torch.var_mean`` takes 13 times as long on a CPU, and its derivatives pass over the values
    four times as often.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> tuple[Tensor, Tensor]:
        mean = values.mean(_POSITIONS)
        deviations = values - _per_position(mean)
        variance = torch.linalg.vector_norm(deviations, dim=_POSITIONS) ** 2
        ctx.save_for_backward(values, mean)
        return mean, variance / deviations[0, 0, 0, 0].numel()

    @staticmethod
    def backward(ctx: BackwardCFunction, *gradients: Tensor) -> Tensor:
        values, mean = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        size = values[0, 0, 0, 0].numel()
        of_mean, of_variance = gradients
        factor = 2 / size * of_variance
        summand = of_mean / size - factor * mean
        return (values * _per_position(factor)).add_(_per_position(summand))


def _per_position(values: Tensor) -> Tensor:
    return values[..., None, None, None]
