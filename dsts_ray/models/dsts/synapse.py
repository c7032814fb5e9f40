"""Synapse mechanism: which specialized neuron a sample activates.

Reference: Li et al., Dynamic Spatio-Temporal Specialization Learning for Fine-Grained Action
Recognition, ECCV 2022, section 3.2, Eq. 1-3.

Differences from the paper: the impulse is normalized. With ``sum`` (the letter of Eq. 2) it exceeds
the Gumbel noise by orders of magnitude, and every sample activates the same neuron.

    - ``mean`` divides by the number of positions; the sum over outputs stays.
    - ``standardized`` subtracts each neuron's mean over the joined batch and divides by its
      standard deviation (running statistics at test time); a joined batch of one sample has
      impulses of 0, so that the noise alone chooses.
    - ``running`` does the same with the running statistics, this batch included, in training too:
      less noisy for small batches.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsts_ray.models.batch_norm import RunningStandardization, RunningStatistics
from dsts_ray.models.dsts.scoring import ScoringKernel, ScoringKernels, ScoringRows

_EPS = 1e-5

ImpulseNormalization = Literal["sum", "mean", "standardized", "running"]


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
        kernel: ScoringKernel = "1x1x1",
        rows: ScoringRows = "collapsed",
        impulse_deviation: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        """Create scoring kernels.

        Args:
            channels: N_in of the feature map.
            num_neurons: N, at least 1.
            impulse: Normalization of the impulse.
            kernel: Shape of the scoring kernels.
            rows: Their storage.
            impulse_deviation: Of standardized impulses, above 0; Gumbel noise has 1.28.
            temperature: Of the Gumbel-softmax, above 0.
        """
        super().__init__()
        self.impulse = impulse
        self.impulse_deviation = impulse_deviation
        self.temperature = temperature
        self.scoring = ScoringKernels(
            channels=channels, num_neurons=num_neurons, kernel=kernel, rows=rows
        )
        kinds = {"standardized": RunningStatistics, "running": RunningStandardization}
        self.statistics = kinds[impulse](1, num_neurons) if impulse in kinds else None

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
        impulses = self._normalize(self.scoring(features), features[0, 0].numel())  # Eq. 1-3
        if noise is None:
            chosen = impulses.argmax(1)
            return Selection(chosen, _one_hot(chosen, impulses), impulses)
        soft = ((impulses + noise.to(impulses)) / self.temperature).softmax(1)
        chosen = soft.argmax(1)
        hard = _one_hot(chosen, impulses)
        return Selection(chosen, hard + (soft - soft.detach()), impulses)

    def _normalize(self, impulses: Tensor, num_positions: int) -> Tensor:
        if self.statistics is None:
            return impulses / num_positions if self.impulse == "mean" else impulses
        mean, variance = self.statistics.running_mean, self.statistics.running_var
        if self.training:
            own_variance, own_mean = torch.var_mean(impulses, 0, correction=0, keepdim=True)
            count = impulses.new_full((1,), len(impulses))
            mean, variance = self.statistics(count, own_mean, own_variance * len(impulses))
        return (impulses - mean) * (variance + _EPS).rsqrt() * self.impulse_deviation


def _one_hot(chosen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like).scatter_(1, chosen.unsqueeze(1), 1.0)
