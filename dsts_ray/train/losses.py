"""Classification loss over the joined batch."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def joined_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    weights: Float[Tensor, " batch"],
    *,
    normalizer: Tensor,
    label_smoothing: float,
) -> Tensor:
    """This worker's summand of the weighted mean cross-entropy of the joined batch.

    Args:
        logits: Any real values.
        labels: Class of each sample.
        weights: 1 for a sample that counts, 0 for one that does not.
        normalizer: Sum of all workers' and micro-batches' weights, over the number of workers;
            above 0.
        label_smoothing: In [0, 1).

    Returns:
        Scalar; the mean over workers of the sum over micro-batches is the joined mean.
    """
    losses = F.cross_entropy(
        logits.to(weights.dtype), labels, reduction="none", label_smoothing=label_smoothing
    )
    return (losses * weights).sum() / normalizer
