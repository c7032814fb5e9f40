import math

import pytest
import torch

from dsts_ray.metrics.specialization import (
    entropy,
    joint_distribution,
    mutual_information,
    shuffled_information,
    specialization_metrics,
)


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


def test_a_joint_distribution_counts_views_and_gives_the_metric() -> None:
    chosen, labels = torch.tensor([0, 1, 1, 2, 2, 0]), torch.tensor([0, 0, 1, 1, 2, 2])
    joint = joint_distribution(torch.nn.functional.one_hot(chosen, 4), labels)
    assert joint.shape == (4, 3)
    assert float(joint[1, 0]) == pytest.approx(1 / 6)
    metrics = specialization_metrics(chosen.unsqueeze(1), labels, 4)
    assert mutual_information(joint) == pytest.approx(metrics["layer0/mutual_information"])


def test_shuffled_classes_tell_what_few_videos_give_by_chance() -> None:
    """Against the expected bias of the estimate, (N - 1)(C - 1) / 2n nats (Miller, 1955)."""
    labels = torch.arange(400) % 4
    counts = torch.nn.functional.one_hot(labels, 5)[:, :4]
    chance = shuffled_information(counts, labels)
    assert chance.mean == pytest.approx(9 / 800, rel=0.15)
    assert chance.mean < chance.high < 3 * chance.mean
    assert mutual_information(joint_distribution(counts, labels)) > 100 * chance.mean
    assert shuffled_information(counts, labels) == chance
    assert shuffled_information(counts, labels, seed=1) != chance
