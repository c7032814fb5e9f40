"""How much a metric would vary with other videos: percentile bootstrap."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsts_ray.metrics.recognition import mean_class_accuracy

NUM_RESAMPLES = 1000
SEED = 0


class Interval(NamedTuple):
    """Ends of a 95 % interval."""

    low: float
    high: float


def bootstrap_intervals(
    probabilities: Float[Tensor, "videos classes"],
    labels: Int[Tensor, " videos"],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> dict[str, Interval]:
    """Draw as many videos with replacement, many times, and score each draw.

    Videos are drawn one by one; where several come from one source video, as in Diving48, the true
    spread is larger.

    Args:
        probabilities: Rows of probabilities, zeros for a refused video.
        labels: True classes.
        num_resamples: Draws.
        seed: Names them.

    Returns:
        From the 2.5th to the 97.5th percentile of ``top1``, ``top5`` and ``mean_class_accuracy``
        (over the classes that a draw holds).
    """
    num_videos, num_classes = probabilities.shape
    answered = (probabilities.sum(1) > 0).unsqueeze(1)
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    hits = ((order == labels.unsqueeze(1)) & answered)[:, :5]
    first, any_of_five = hits[:, 0], hits.any(1)
    rng = np.random.default_rng(seed)
    draws = np.empty((num_resamples, 3))
    for draw in draws:
        rows = torch.from_numpy(rng.integers(num_videos, size=num_videos))
        right, classes = first[rows], labels[rows]
        counts = torch.bincount(classes, minlength=num_classes)
        correct = torch.bincount(classes[right], minlength=num_classes)
        draw[0] = right.double().mean()
        draw[1] = any_of_five[rows].double().mean()
        draw[2] = mean_class_accuracy(correct, counts)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    names = ("top1", "top5", "mean_class_accuracy")
    return {name: Interval(float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}
