"""What every backbone returns."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from dsts_ray.models.draws import Draws

Criterion = Callable[[Tensor], Tensor]
"""Maps logits to the classification loss of the batch at hand."""

AuxiliaryLoss = Callable[[Criterion, Draws], Tensor]
"""A loss of the backbone's own, already weighted, from the criterion and the names of its draws."""


class BackboneOutput(NamedTuple):
    """Features of a batch of clips.

    Attributes:
        features: What DSTS, or without it the classifier, reads.
        pooled: Further features that go to the classifier directly, or None.
        auxiliary_losses: Losses of the backbone's own, already weighted; each is given the
            criterion.
    """

    features: Float[Tensor, "batch channels time height width"]
    pooled: Float[Tensor, "batch pooled"] | None = None
    auxiliary_losses: tuple[AuxiliaryLoss, ...] = ()
