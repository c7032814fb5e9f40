"""Losses over the joined batch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dsts_ray.models.dsts.synapse import Selection
from dsts_ray.models.synchronize import stack_over_workers


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


def utilization_loss(selections: Sequence[Selection], *, temperature: float) -> Tensor:
    """How unevenly the joined batch spreads over neurons, equal on all workers.

    The squared coefficient of variation of the neurons' mean selection probabilities (softmax of
    the impulses without noise), as Shazeer et al. (2017) balance experts, over its largest value:
    0 where neurons are equally likely, 1 where one takes all; the mean over layers.

    Args:
        selections: Of every layer, on this worker.
        temperature: Of the softmax.

    Returns:
        Scalar; the mean over workers of its gradients is the joined loss's gradient.
    """
    soft = torch.stack([(layer.impulses / temperature).softmax(1) for layer in selections], dim=1)
    counted = torch.cat([soft, torch.ones_like(soft[..., :1])], dim=2).sum(0)
    total = stack_over_workers(counted).sum(0)
    shares = total[:, :-1] / total[:, -1:]
    num_neurons = shares.shape[1]
    variation = num_neurons * (shares**2).sum(1) - 1.0
    return variation.mean() / max(num_neurons - 1, 1)
