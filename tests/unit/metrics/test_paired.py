import math

import numpy as np
import pytest

from dsts_ray.metrics.paired import difference_over_seeds, difference_over_videos


def hits(share: float, seeds: int, videos: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((seeds, videos)) < share).astype(float)


def test_over_videos_of_one_seed_it_is_the_paired_normal_interval() -> None:
    ours, theirs = hits(0.7, 1, 900, 0), hits(0.6, 1, 900, 1)
    change = (ours - theirs)[0]
    found = difference_over_videos(ours, theirs, num_resamples=4000)
    spread = 1.96 * change.std() / 30
    assert found.mean == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - spread, abs=0.004)
    assert found.high == pytest.approx(change.mean() + spread, abs=0.004)
    assert found.drawn == "900 videos of one seed"
    assert found.is_decided


def test_what_both_recognize_alike_does_not_widen_the_interval() -> None:
    """Paired: 990 videos are the same for both, of 10 the one recognizes all, the other none."""
    both = hits(0.5, 1, 990, 2)
    ours = np.concatenate([both, np.ones((1, 10))], 1)
    theirs = np.concatenate([both, np.zeros((1, 10))], 1)
    found = difference_over_videos(ours, theirs)
    assert found.mean == pytest.approx(0.01)
    assert 0.003 < found.low < 0.006
    assert 0.015 < found.high < 0.018


def test_seeds_that_disagree_widen_it() -> None:
    theirs = np.zeros((4, 500))
    ours = np.zeros((4, 500))
    ours[:2] = 1.0  # two seeds gain everything, two nothing
    found = difference_over_videos(ours, theirs)
    assert found.drawn == "4 seeds and 500 videos"
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    assert not found.is_decided


def test_over_classes_each_class_weighs_the_same() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    ours = np.concatenate([np.zeros((1, 90)), np.ones((1, 10))], 1)
    assert difference_over_videos(ours, np.zeros((1, 100))).mean == pytest.approx(0.1)
    found = difference_over_videos(ours, np.zeros((1, 100)), classes=classes)
    assert found.mean == pytest.approx(0.5)
    assert (found.low, found.high) == (0.5, 0.5)


def test_draws_are_named_by_the_seed() -> None:
    ours, theirs = hits(0.7, 2, 60, 0), hits(0.6, 2, 60, 1)
    one = difference_over_videos(ours, theirs, num_resamples=60)
    assert one == difference_over_videos(ours, theirs, num_resamples=60)
    assert one != difference_over_videos(ours, theirs, num_resamples=60, seed=1)


def test_over_seeds_alone() -> None:
    ours, theirs = np.array([0.5, 0.6, 0.7]), np.array([0.4, 0.4, 0.4])
    found = difference_over_seeds(ours, theirs)
    assert found.mean == pytest.approx(0.2)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.3)
    assert found.drawn == "3 seeds"
    alone = difference_over_seeds(ours[:1], theirs[:1])
    assert math.isnan(alone.low)
    assert not alone.is_decided
    assert alone.drawn == "nothing: one seed"
