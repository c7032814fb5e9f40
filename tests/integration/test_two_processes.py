"""Two gloo workers compute what one does on the joined batch."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.support.workers import NUM_WORKERS, Results, all_work, run_on_workers

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-6, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Results]]:
    """One worker's results, and both of two workers'."""
    joined = run_on_workers(all_work, tmp_path_factory.mktemp("workers"))
    return all_work(0, 1), joined


def join(name: str, parts: Sequence[Tensor]) -> Tensor:
    if name.endswith("_sum"):
        return torch.stack(list(parts)).sum(0)
    if name.endswith(("output", "_rows")):
        return torch.cat(list(parts))
    assert all(torch.equal(part, parts[0]) for part in parts), f"{name} differs between workers"
    return parts[0]


@pytest.mark.parametrize(
    "check",
    [
        "batch_norm",
        "half_precision",
        "collective",
        "loss",
        "predictions",
        "udl_dense",
        "udl_sparse",
        "udl_average",
        "udl_ours",
        "step_1",
        "step_2",
        "step_uneven",
        "step_previous",
        "step_plain",
    ],
)
def test_two_workers_equal_one(results: tuple[Results, list[Results]], check: str) -> None:
    one, two = results
    names = [name for name in one if name.startswith(f"{check}/")]
    assert len(two) == NUM_WORKERS
    assert names
    for name in names:
        tolerance = TOLERANCES.get(one[name].dtype, 0.0)
        torch.testing.assert_close(
            join(name, [rank[name] for rank in two]),
            one[name],
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_the_checks_say_something(results: tuple[Results, list[Results]]) -> None:
    one, _ = results
    assert one["predictions/labels"].tolist() == [0, 1, 2, 3, 0]
    assert one["predictions/probabilities"][2].tolist() == [0.0] * 4
    for check, count in (("udl_dense", 4), ("udl_sparse", 4), ("udl_average", 2), ("udl_ours", 2)):
        gradients = [one[name] for name in one if name.startswith(f"{check}/dsts.")]
        assert len(gradients) == count
        assert all(float(gradient.norm()) > 1e-4 for gradient in gradients)
    assert float(one["batch_norm/second_rows"].norm()) > 0.1
