import math

import pytest
import torch

from dsts_ray.metrics.confusion import confusion_matrix
from dsts_ray.metrics.recognition import (
    REFUSED,
    predicted_classes,
    recognition_metrics,
    wilson_interval,
    wilson_low,
)

PROBABILITIES = torch.tensor(
    [
        [0.7, 0.1, 0.1, 0.1],  # class 0, right
        [0.2, 0.5, 0.2, 0.1],  # class 0, taken for 1
        [0.1, 0.8, 0.1, 0.0],  # class 1, right
        [0.0, 0.0, 0.0, 0.0],  # class 1, refused
        [0.3, 0.3, 0.3, 0.1],  # class 0, right: ties go to the lower class
    ]
)
LABELS = torch.tensor([0, 0, 1, 1, 0])


def test_recognition_by_hand() -> None:
    metrics = recognition_metrics(PROBABILITIES, LABELS)
    assert metrics["top1"] == pytest.approx(3 / 5)
    assert metrics["top5"] == pytest.approx(4 / 5)
    assert metrics["mean_class_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics["mean_class_accuracy_all"] == pytest.approx((2 / 3 + 1 / 2) / 4)
    expected = -sum(map(math.log, (0.7, 0.2, 0.8, 0.3))) / 4
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["top1_low"] == wilson_low(metrics["top1"], 5)


def test_top5_looks_at_five_classes() -> None:
    probabilities = torch.arange(8, 0, -1).float().repeat(8, 1) / 36
    metrics = recognition_metrics(probabilities, torch.arange(8))
    assert metrics["top1"] == pytest.approx(1 / 8)
    assert metrics["top5"] == pytest.approx(5 / 8)


def test_a_split_of_refused_videos_is_all_wrong() -> None:
    metrics = recognition_metrics(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert (metrics["top1"], metrics["top5"], metrics["mean_class_accuracy"]) == (0.0, 0.0, 0.0)
    assert math.isnan(metrics["loss"])


@pytest.mark.parametrize(
    ("share", "count", "low"),
    [(0.5, 100, 0.40383), (1.0, 10, 0.72247), (0.0, 10, 0.0), (0.25, 320, 0.20571)],
)
def test_wilson_bound(share: float, count: int, low: float) -> None:
    """Against the tabulated interval (p + z^2/2n - z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    assert wilson_low(share, count) == pytest.approx(low, abs=1e-5)


def test_a_class_without_videos_costs_only_the_mean_over_all_classes() -> None:
    labels = torch.tensor([c for c in range(48) if c != 30])  # Diving48 V2 has no video of 30
    metrics = recognition_metrics(torch.eye(48)[labels], labels)
    assert metrics["mean_class_accuracy"] == 1.0
    assert metrics["mean_class_accuracy_all"] == pytest.approx(47 / 48)


def test_an_absent_class_that_is_predicted_changes_no_mean() -> None:
    probabilities = torch.eye(4)[[0, 3, 1]]
    metrics = recognition_metrics(probabilities, torch.tensor([0, 0, 1]))
    assert metrics["mean_class_accuracy"] == pytest.approx((1 / 2 + 1) / 2)


def test_confusion_has_true_classes_in_rows_and_leaves_refused_videos_out() -> None:
    predicted = predicted_classes(PROBABILITIES)
    assert predicted.tolist() == [0, 1, 1, REFUSED, 0]
    assert confusion_matrix(predicted, LABELS, 4).tolist() == [
        [2, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_the_wilson_interval_is_symmetric_and_within_one() -> None:
    low, high = wilson_interval(0.3, 10)
    assert (low, high) == pytest.approx((0.1078, 0.6032), abs=1e-4)  # Newcombe (1998), method 3
    assert wilson_interval(0.7, 10) == pytest.approx((1 - high, 1 - low))
    assert wilson_interval(1.0, 20)[1] == 1.0
