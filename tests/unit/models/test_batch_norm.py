import pytest
import torch
from torch import nn

from dsts_ray.models.batch_norm import (
    BatchNorm,
    RunningStatistics,
    frozen_statistics,
    joined_moments,
)


@pytest.mark.parametrize("size", [(4, 3), (4, 3, 5), (4, 3, 5, 2), (4, 3, 5, 2, 2)])
def test_one_worker_equals_torch(size: tuple[int, ...]) -> None:
    own, reference = BatchNorm(3).double(), nn.BatchNorm1d(3).double()
    values = torch.randn(size, dtype=torch.float64)
    for _ in range(2):
        output = own(values)
        flat = reference(values.flatten(2)) if values.ndim > 2 else reference(values)
        torch.testing.assert_close(output.flatten(2) if values.ndim > 2 else output, flat)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(own.state_dict()[name], value)


def test_frozen_statistics_stay_and_move_again_afterwards() -> None:
    module = nn.ModuleList([BatchNorm(2), RunningStatistics(1, 2)])
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def run() -> None:
        module[0](torch.randn(4, 2) + 3)
        module[1](torch.tensor([4.0]), torch.ones(1, 2), torch.ones(1, 2))

    with frozen_statistics(module):
        run()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    run()
    after = module.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if "running" in name)


def test_frozen_statistics_end_with_an_error_too() -> None:
    layer = BatchNorm(2)
    with pytest.raises(ZeroDivisionError), frozen_statistics(layer):
        _ = 1 / 0
    assert layer.track_running_stats


def test_moments_of_groups_and_of_none() -> None:
    mean, variance, total = joined_moments(
        torch.tensor([4.0, 0.0]), torch.tensor([[2.0], [7.0]]), torch.tensor([[8.0], [0.0]])
    )
    assert mean.tolist() == [[2.0], [0.0]]
    assert variance.tolist() == [[2.0], [0.0]]
    assert total.tolist() == [4.0, 0.0]


def test_groups_without_values_have_and_keep_their_running_statistics() -> None:
    statistics = RunningStatistics(2, 1)
    statistics.running_mean.fill_(5.0)
    mean, variance = statistics(
        torch.tensor([4.0, 0.0]), torch.tensor([[2.0], [7.0]]), torch.tensor([[8.0], [0.0]])
    )
    assert mean.tolist() == [[2.0], [5.0]]
    assert variance.tolist() == [[2.0], [1.0]]
    assert statistics.running_mean.tolist() == [[pytest.approx(4.7)], [5.0]]
    unbiased = 8.0 / 3
    assert statistics.running_var.tolist() == [[pytest.approx(0.9 + 0.1 * unbiased)], [1.0]]
