import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dsts_ray.models.dsts.synapse import Selection
from dsts_ray.train.losses import joined_cross_entropy, utilization_loss


def test_the_mean_over_unequal_shards_is_the_joined_mean() -> None:
    logits, labels = torch.randn(7, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    weights = torch.tensor([1, 1, 0, 1, 1, 1, 1], dtype=torch.float64)
    num_workers = 2
    summands = [
        joined_cross_entropy(
            logits[rows],
            labels[rows],
            weights[rows],
            normalizer=weights.sum() / num_workers,
            label_smoothing=0.1,
        )
        for rows in (slice(0, 5), slice(5, 7))
    ]
    kept = weights > 0
    expected = F.cross_entropy(logits[kept], labels[kept], label_smoothing=0.1)
    torch.testing.assert_close(torch.stack(summands).mean(), expected)


def test_bfloat16_logits_give_a_float32_loss() -> None:
    loss = joined_cross_entropy(
        torch.randn(2, 3, dtype=torch.bfloat16),
        torch.tensor([0, 1]),
        torch.ones(2),
        normalizer=torch.tensor(2.0),
        label_smoothing=0.0,
    )
    assert loss.dtype == torch.float32


def selection(impulses: Tensor) -> Selection:
    return Selection(impulses.argmax(1), torch.zeros_like(impulses), impulses)


def test_the_utilization_loss_is_0_for_even_shares_and_1_for_a_single_neuron() -> None:
    even = selection(50.0 * torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 3, 2, 1, 0]])
    one = selection(50.0 * torch.eye(4, dtype=torch.float64)[[2] * 8])
    for layers, expected in (([even], 0.0), ([one], 1.0), ([even, one], 0.5)):
        assert float(utilization_loss(layers, temperature=1.0)) == pytest.approx(expected, abs=1e-9)
    alone = selection(torch.randn(3, 1))
    assert float(utilization_loss([alone], temperature=1.0)) == 0.0


def test_the_utilization_loss_is_the_scaled_squared_coefficient_of_variation() -> None:
    impulses = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    loss = utilization_loss([selection(impulses)], temperature=0.5)
    shares = (2 * impulses).softmax(1).mean(0)
    variation = shares.var(correction=0) / shares.mean() ** 2
    torch.testing.assert_close(loss, variation / 2)
    (slope,) = torch.autograd.grad(loss, impulses)
    assert float(slope.norm()) > 0.0
