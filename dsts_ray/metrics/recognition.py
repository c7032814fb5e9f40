"""Accuracy over videos and over classes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

REFUSED = -1
"""Predicted class of a refused video."""


def recognition_metrics(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, " videos"]
) -> dict[str, float]:
    """Score predictions.

    Args:
        probabilities: Rows of probabilities; a row of zeros stands for a refused video and is never
            right.
        labels: True classes.

    Returns:
        ``top1``, ``top5``, ``top1_low`` (lower end of the 95 % Wilson interval),
        ``mean_class_accuracy`` (mean of the classes present in ``labels``),
        ``mean_class_accuracy_all`` (mean of all classes, an absent one counting 0), ``loss``
        (cross-entropy over the videos not refused), all as fractions but the loss.
    """
    answered = probabilities.sum(1) > 0
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    hits = (order == labels.unsqueeze(1)) & answered.unsqueeze(1)
    top1 = float(hits[:, :1].any(1).double().mean())
    num_classes = probabilities.shape[1]
    counts = torch.bincount(labels, minlength=num_classes)
    correct = torch.bincount(labels[hits[:, 0]], minlength=num_classes)
    own = probabilities[answered].gather(1, labels[answered].unsqueeze(1)).double()
    return {
        "top1": top1,
        "top5": float(hits[:, :5].any(1).double().mean()),
        "top1_low": wilson_low(top1, len(labels)),
        "mean_class_accuracy": mean_class_accuracy(correct, counts),
        "mean_class_accuracy_all": float((correct / counts.clamp(min=1)).mean()),
        "loss": float(-own.clamp(min=1e-12).log().mean()) if len(own) else math.nan,
    }


def predicted_classes(probabilities: Float[Tensor, "videos classes"]) -> Int[Tensor, " videos"]:
    """Return the most probable class, the lower one of a tie; ``REFUSED`` for a row of zeros."""
    best = probabilities.argsort(dim=1, descending=True, stable=True)[:, 0]
    return torch.where(probabilities.sum(1) > 0, best, REFUSED)


def mean_class_accuracy(correct: Int[Tensor, " classes"], counts: Int[Tensor, " classes"]) -> float:
    """Average the accuracies of the classes that have videos.

    Args:
        correct: Videos of each class recognized as such.
        counts: Videos of each class.
    """
    present = counts > 0
    return float((correct[present].double() / counts[present]).mean())


def wilson_low(share: float, count: int, z: float = 1.959964) -> float:
    """Lower end of the Wilson score interval of a share.

    Args:
        share: Observed, in [0, 1].
        count: Trials, at least 1.
        z: Quantile of the normal distribution; the default gives 95 %.
    """
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + z * z / count))


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share; arguments as of :func:`wilson_low`."""
    return wilson_low(share, count), 1.0 - wilson_low(1.0 - share, count)
