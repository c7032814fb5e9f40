import pytest
import torch

from dsts_ray.metrics.bootstrap import bootstrap_intervals


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    labels = torch.zeros(400, dtype=torch.int64)
    probabilities = torch.eye(8)[(torch.arange(400) % 4 == 0).long()]  # 3/4 right
    intervals = bootstrap_intervals(probabilities, labels)
    spread = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert intervals["top1"].low == pytest.approx(0.75 - spread, abs=0.006)
    assert intervals["top1"].high == pytest.approx(0.75 + spread, abs=0.006)
    assert intervals["top5"] == (1.0, 1.0)
    assert intervals["mean_class_accuracy"] == intervals["top1"]


def test_draws_are_named_by_the_seed() -> None:
    labels = torch.arange(30) % 3
    probabilities = torch.eye(3)[(labels + (torch.arange(30) % 4 == 0)) % 3]
    one = bootstrap_intervals(probabilities, labels, num_resamples=50)
    assert one == bootstrap_intervals(probabilities, labels, num_resamples=50)
    assert one != bootstrap_intervals(probabilities, labels, num_resamples=50, seed=1)
