"""Optuna's proposals, without a cluster."""

from pathlib import Path

import pytest
from ray.tune.search.optuna import OptunaSearch

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import SweepPlan, plan_sweep
from dsts_ray.launch.searcher import optuna_searcher
from dsts_ray.report.record import FINISHED, SweepRecord, TrialRecord, new_record
from dsts_ray.tracking.mlflow import finish_run, open_run
from tests.support.store import new_store


@pytest.fixture
def plan(tmp_path: Path) -> SweepPlan:
    uri = new_store(tmp_path)
    open_run(
        uri=uri,
        experiment="dsts_ray",
        run_name="sweep",
        artifact_root=None,
        params={},
        tags={},
    )
    return plan_sweep(load_sweep("search", num_rows=6), [f"tracking.uri={uri}"])


def proposed(search: OptunaSearch | None, count: int) -> list[dict[str, object]]:
    """Proposals for trials that run one after the other and are all alike."""
    assert search is not None
    points = []
    for trial in range(count):
        point = search.suggest(str(trial))
        assert point is not None
        points.append(point)
        search.on_trial_complete(str(trial), {"val/top1": 0.5})
    return points


def finish(
    plan: SweepPlan, record: SweepRecord, point: dict[str, object], top1: float
) -> TrialRecord:
    trial = plan.drawn(point)
    entry = record.propose(trial, point, ())
    record.outcomes[trial.name] = (FINISHED, "")
    uri = plan.base.tracking.uri
    run_id = open_run(
        uri=uri, experiment="dsts_ray", run_name=trial.name, artifact_root=None, params={}, tags={}
    )
    finish_run(uri=uri, run_id=run_id, status="FINISHED", metrics={"val/top1": top1})
    return entry


def test_proposals_follow_from_the_seed_and_lie_in_the_space(plan: SweepPlan) -> None:
    record = new_record(plan)
    search, num_left = optuna_searcher(plan, record)
    assert num_left == 6
    points = proposed(search, 6)
    assert points == proposed(optuna_searcher(plan, record)[0], 6)
    for point in points:
        assert point.keys() == plan.sweep.space.keys()
        assert 0.0005 <= float(str(point["optim.lr"])) <= 0.005
        assert point["dsts.num_layers"] in (1, 2, 3)
        assert plan.drawn(point).config.optim.lr == point["optim.lr"]


def test_a_resumed_search_knows_what_was_found_and_begins_with_what_was_interrupted(
    plan: SweepPlan,
) -> None:
    record = new_record(plan)
    points = proposed(optuna_searcher(plan, record)[0], 3)
    for point, top1 in zip(points[:2], (0.3, 0.9), strict=True):
        finish(plan, record, point, top1)
    record.propose(plan.drawn(points[2]), points[2], ())  # interrupted
    search, num_left = optuna_searcher(plan, record)
    assert num_left == 4
    assert search is not None
    assert search._ot_study is not None
    told = [(trial.params, trial.value) for trial in search._ot_study.trials if trial.value]
    assert told == [(points[0], 0.3), (points[1], 0.9)]
    assert proposed(search, 1) == [points[2]]


def test_a_finished_search_has_nothing_left(plan: SweepPlan) -> None:
    record = new_record(plan)
    for point in proposed(optuna_searcher(plan, record)[0], 6):
        finish(plan, record, point, 0.5)
    assert optuna_searcher(plan, record) == (None, 0)


def test_points_that_are_drawn_twice_or_differ_in_late_digits_count_each(plan: SweepPlan) -> None:
    record = new_record(plan)
    (point,) = proposed(optuna_searcher(plan, record)[0], 1)
    near = point | {"optim.lr": float(str(point["optim.lr"])) * (1 + 1e-6)}
    entries = [finish(plan, record, drawn, 0.5) for drawn in (point, point, near)]
    row, run = plan.drawn(point).row, plan.drawn(point).name
    assert plan.drawn(near).row == row
    assert [entry.row for entry in entries] == [row, f"{row} #2", f"{row} #3"]
    assert [entry.run for entry in entries] == [run, run, plan.drawn(near).name]
    assert (record.trials, record.num_ended) == (entries, 3)
    assert optuna_searcher(plan, record)[1] == 3


def test_points_that_were_interrupted_together_go_on_as_they_were(plan: SweepPlan) -> None:
    record = new_record(plan)
    (point,) = proposed(optuna_searcher(plan, record)[0], 1)
    trial = plan.drawn(point)
    first = record.propose(trial, point, ())
    second = record.propose(trial, point, [first])
    assert record.trials == [first, second]
    assert proposed(optuna_searcher(plan, record)[0], 2) == [point, point]
    assert record.propose(trial, point, ()) is first
    assert record.propose(trial, point, [first]) is second
    assert record.num_ended == 0
