"""DeepSpeed on real gloo processes does what plain torch does, for ZeRO 0, 1 and 2."""

import pytest
import torch

from tests.support.engines import CASES, SHAPES, TRAININGS, Case, all_engine_work, resume
from tests.support.workers import Results, run_on_workers

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    return run_on_workers(all_engine_work, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Results:
    (results,) = run_on_workers(all_engine_work, tmp_path_factory.mktemp("one"), num_workers=1)
    return results


def assert_same(
    one: Results, prefix: str, other: Results, other_prefix: str, tolerance: float = TOLERANCE
) -> None:
    names = [name.removeprefix(prefix) for name in one if name.startswith(prefix)]
    assert names
    for name in names:
        torch.testing.assert_close(
            one[prefix + name],
            other[other_prefix + name],
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{prefix}{name}: {text}",
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_deepspeed_equals_torch(
    two_workers: list[Results], one_worker: Results, case: Case
) -> None:
    """Parameters after four steps, and every step's gradient norm before clipping."""
    for results in [*two_workers, one_worker]:
        assert_same(results, f"{case.name}/torch/", results, f"{case.name}/deepspeed/")
    assert_same(two_workers[0], f"{case.name}/torch/", one_worker, f"{case.name}/torch/")
    norms = one_worker[f"{case.name}/torch/norms"]
    assert case.clip_norm == 0.0 or bool((norms > case.clip_norm).all())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_gradient_that_is_not_finite_changes_nothing(
    two_workers: list[Results], one_worker: Results, case: Case
) -> None:
    """The steps after it end where they would have ended without it, on all workers."""
    for results in [*two_workers, one_worker]:
        for engine in ("torch", "deepspeed"):
            assert not results[f"{case.name}/poison-{engine}"].isfinite()
            for name in SHAPES:
                assert torch.equal(
                    results[f"{case.name}/poisoned-{engine}/{name}"],
                    results[f"{case.name}/{engine}/{name}"],
                )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fresh_engine_continues_from_the_state(
    two_workers: list[Results], one_worker: Results, case: Case
) -> None:
    """Also when two workers' state goes to one, and to an engine without DeepSpeed."""
    for results in [*two_workers, one_worker]:
        for name in SHAPES:
            assert torch.equal(
                results[f"{case.name}/resumed/{name}"], results[f"{case.name}/deepspeed/{name}"]
            )
    prefix = f"{case.name}/state/"
    state = {
        name.removeprefix(prefix): value
        for name, value in two_workers[0].items()
        if name.startswith(prefix)
    }
    entries = {"sgd": {"momentum_buffer"}, "adamw": {"exp_avg", "exp_avg_sq", "step"}}
    assert state.keys() == {f"{n}/{entry}" for n in SHAPES for entry in entries[case.optimizer]}
    resumed = resume(case, state, two_workers[0], 0, 1, deepspeed=False)
    assert_same(resumed, f"{case.name}/resumed/", two_workers[0], f"{case.name}/deepspeed/")


@pytest.mark.parametrize(("zero_stage", "accumulation_steps"), TRAININGS)
def test_two_engines_train_one_model(
    two_workers: list[Results], one_worker: Results, zero_stage: int, accumulation_steps: int
) -> None:
    """Upstream and downstream with UDL: as on torch engines, and as on one worker.

    Micro-batches of accumulation are so small here that float32 rounding moves ReLU's kinks; in
    float64 ``test_two_processes`` compares them with one worker.
    """
    name = f"training-{accumulation_steps}"
    for results in [*two_workers, one_worker]:
        assert_same(results, f"{name}/{zero_stage}/", results, f"{name}/torch/", tolerance=1e-5)
    for key, value in one_worker.items() if accumulation_steps == 1 else ():
        if key.startswith(f"{name}/{zero_stage}/"):
            torch.testing.assert_close(two_workers[0][key], value, rtol=1e-4, atol=1e-5)
