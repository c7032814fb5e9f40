import math

import pytest
import torch

from dsts_ray.metrics import entropy, recognition_metrics, specialization_metrics, wilson_low

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


def test_a_bijection_of_neuron_and_class_carries_all_information() -> None:
    labels = torch.arange(4).repeat(12)
    chosen = torch.stack([3 - labels, torch.zeros_like(labels), torch.arange(48) // 4 % 4], dim=1)
    metrics = specialization_metrics(chosen, labels, 4)
    assert metrics["layer0/utilization"] == pytest.approx(1.0)
    assert metrics["layer0/mutual_information"] == pytest.approx(math.log(4))
    assert metrics["layer1/utilization"] == pytest.approx(0.0)
    assert metrics["layer1/mutual_information"] == pytest.approx(0.0)
    assert metrics["layer2/utilization"] == pytest.approx(1.0)
    assert metrics["layer2/mutual_information"] == pytest.approx(0.0, abs=1e-9)


def test_half_of_the_neurons_are_half_used() -> None:
    chosen = torch.tensor([[0], [1], [0], [1]])
    metrics = specialization_metrics(chosen, torch.tensor([0, 0, 1, 1]), 4)
    assert metrics["layer0/utilization"] == pytest.approx(0.5)


def test_a_single_neuron_is_fully_used() -> None:
    metrics = specialization_metrics(torch.zeros(3, 1, dtype=torch.int64), torch.arange(3), 1)
    assert metrics == {"layer0/utilization": 1.0, "layer0/mutual_information": 0.0}


def test_entropy_of_a_certain_outcome_is_zero() -> None:
    assert entropy(torch.tensor([1.0, 0.0])) == 0.0
