"""Synapse mechanism: which specialized neuron a sample activates.

Reference: Li et al., Dynamic Spatio-Temporal Specialization Learning for Fine-Grained Action
Recognition, ECCV 2022, section 3.2, Eq. 1-3.

Differences from the paper:
    - The scoring kernel (N_out x N_in x 1x1x1) is stored collapsed over its outputs: Eq. 2 sums
      over them, so v_i = <sum_o m_i[o], sum_thw X> exactly. The collapsed vector starts with the
      standard deviation the sum of N_out Kaiming-uniform rows has, 1/sqrt(3); each of the N_out
      equal rows would receive the vector's gradient, so plain SGD on the literal kernel moves their
      sum N_out times as fast.
    - The impulse is normalized. With ``sum`` (the letter of Eq. 2) it exceeds the Gumbel noise by
      orders of magnitude and every sample activates the same neuron. ``standardized`` subtracts
      each neuron's mean over the joined batch and divides by its standard deviation (running
      statistics at test time); a joined batch of one sample has impulses of 0, so that the noise
      alone chooses. ``mean`` averages over time, height and width; the sum over outputs stays.
"""

import math
from typing import Literal, NamedTuple

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsts_ray.models.batch_norm import RunningStatistics

_EPS = 1e-5

ImpulseNormalization = Literal["sum", "mean", "standardized"]


class Selection(NamedTuple):
    """Which neuron each sample activates.

    Attributes:
        chosen: Index of the activated neuron.
        weights: One-hot rows in value; the gradient is that of the Gumbel-softmax in training.
        impulses: Normalized impulses V of Eq. 3, without noise.
    """

    chosen: Int[Tensor, " batch"]
    weights: Float[Tensor, "batch neurons"]
    impulses: Float[Tensor, "batch neurons"]


class Synapse(nn.Module):
    """Scores a feature map against every neuron and activates the best."""

    def __init__(
        self,
        *,
        channels: int,
        num_neurons: int,
        impulse: ImpulseNormalization = "standardized",
        temperature: float = 1.0,
    ) -> None:
        """Create scoring kernels.

        Args:
            channels: N_in of the feature map.
            num_neurons: N, at least 1.
            impulse: Normalization of the impulse.
            temperature: Of the Gumbel-softmax, above 0.
        """
        super().__init__()
        self.impulse = impulse
        self.temperature = temperature
        self.scoring = nn.Parameter(torch.randn(num_neurons, channels) / math.sqrt(3.0))
        self.statistics = RunningStatistics(1, num_neurons) if impulse == "standardized" else None

    def forward(
        self,
        features: Float[Tensor, "batch channels time height width"],
        noise: Float[Tensor, "batch neurons"] | None,
    ) -> Selection:
        """Select a neuron for each sample; ties go to the lower index.

        Args:
            features: X.
            noise: Gumbel noise in training, None at test time.
        """
        impulses = self._normalize(self._impulses(features))
        if noise is None:
            chosen = impulses.argmax(1)
            return Selection(chosen, _one_hot(chosen, impulses), impulses)
        soft = ((impulses + noise.to(impulses)) / self.temperature).softmax(1)
        chosen = soft.argmax(1)
        hard = _one_hot(chosen, impulses)
        return Selection(chosen, hard + (soft - soft.detach()), impulses)

    def _impulses(self, features: Tensor) -> Tensor:
        features = features.to(self.scoring.dtype)
        pooled = reduce(features, "b c t h w -> b 1 c", "mean" if self.impulse == "mean" else "sum")
        return (pooled * self.scoring).sum(
            2
        )  # Eq. 1-2; not a matrix product, which autocast would round

    def _normalize(self, impulses: Tensor) -> Tensor:
        if self.statistics is None:
            return impulses
        mean, variance = self.statistics.running_mean, self.statistics.running_var
        if self.training:
            local_mean = impulses.mean(0, keepdim=True)
            squares = ((impulses - local_mean) ** 2).sum(0, keepdim=True)
            mean, variance = self.statistics(
                impulses.new_full((1,), len(impulses)), local_mean, squares
            )
        return (impulses - mean) * (variance + _EPS).rsqrt()


def _one_hot(chosen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, chosen.unsqueeze(1), 1.0)
