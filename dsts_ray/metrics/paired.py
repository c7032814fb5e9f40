"""The difference of two ways of training, measured on the same seeds and videos."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

NUM_RESAMPLES = 1000
SEED = 0
_AT_ONCE = 50


class Difference(NamedTuple):
    """A mean difference with its 95 % interval, or without one (NaN) where nothing can be drawn.

    ``drawn`` says what was drawn with replacement.
    """

    mean: float
    low: float
    high: float
    drawn: str

    @property
    def is_decided(self) -> bool:
        """Tell whether there is an interval and it does not hold 0."""
        return self.low > 0 or self.high < 0


def difference_over_videos(
    ours: Float[np.ndarray, "seeds videos"],
    theirs: Float[np.ndarray, "seeds videos"],
    *,
    classes: Int[np.ndarray, " videos"] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Draw seeds and videos with replacement, the same for both, and take the difference of means.

    One seed is not drawn: the interval then holds for that seed alone. Few seeds make an interval
    too narrow: there are only so many draws of them.

    Args:
        ours: 1 where a run of a seed recognizes a video, else 0.
        theirs: The same of the others.
        classes: True classes, to average over classes; None averages over videos.
        num_resamples: Draws.
        seed: Names them.
    """
    change = (ours - theirs).astype(np.float64)
    num_seeds, num_videos = change.shape
    members = _members(classes, num_videos)
    rng = np.random.default_rng(seed)
    draws = []
    for start in range(0, num_resamples, _AT_ONCE):
        size = min(_AT_ONCE, num_resamples - start)
        videos = rng.multinomial(num_videos, [1 / num_videos] * num_videos, size).astype(np.float64)
        seeds = np.ones((size, 1))
        if num_seeds > 1:
            seeds = rng.multinomial(num_seeds, [1 / num_seeds] * num_seeds, size) / num_seeds
        draws.append((_means(change, videos, members) * seeds).sum(1))
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    mean = _means(change, np.ones((1, num_videos)), members).mean()
    told = f"{num_seeds} seeds and " if num_seeds > 1 else ""
    alone = "" if num_seeds > 1 else " of one seed"
    return Difference(float(mean), float(low), float(high), f"{told}{num_videos} videos{alone}")


def difference_over_seeds(
    ours: Float[np.ndarray, " seeds"],
    theirs: Float[np.ndarray, " seeds"],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
) -> Difference:
    """Draw seeds with replacement, the same for both; a single one gives no interval."""
    change = ours - theirs
    mean, count = float(change.mean()), len(change)
    if count < 2:
        return Difference(mean, np.nan, np.nan, "nothing: one seed")
    rows = np.random.default_rng(seed).integers(count, size=(num_resamples, count))
    low, high = np.percentile(change[rows].mean(1), [2.5, 97.5])
    return Difference(mean, float(low), float(high), f"{count} seeds")


def _members(classes: np.ndarray | None, num_videos: int) -> np.ndarray:
    """Which videos are averaged together, (videos, groups) of 0 and 1."""
    if classes is None:
        return np.ones((num_videos, 1))
    return (classes[:, None] == np.unique(classes)[None, :]).astype(np.float64)


def _means(change: np.ndarray, videos: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Mean over groups of the mean over a draw's videos, (draws, seeds); empty groups left out."""
    counts = videos @ members
    sums = np.stack([videos @ (members * row[:, None]) for row in change], 1)
    means = np.divide(sums, counts[:, None], out=np.zeros_like(sums), where=counts[:, None] > 0)
    return means.sum(2) / (counts > 0).sum(1)[:, None]
