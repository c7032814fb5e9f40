"""Optuna's proposals, without a cluster."""

from pathlib import Path

import pytest
from ray.tune.search.optuna import OptunaSearch

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import SweepPlan, plan_sweep
from dsts_ray.launch.searcher import optuna_searcher
from dsts_ray.report.record import FINISHED, SweepRecord, new_record
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


def finish(plan: SweepPlan, record: SweepRecord, point: dict[str, object], top1: float) -> None:
    trial = plan.drawn(point)
    record.add(trial, point, None)
    record.outcomes[trial.name] = (FINISHED, "")
    uri = plan.base.tracking.uri
    run_id = open_run(
        uri=uri, experiment="dsts_ray", run_name=trial.name, artifact_root=None, params={}, tags={}
    )
    finish_run(uri=uri, run_id=run_id, status="FINISHED", metrics={"val/top1": top1})


def test_proposals_follow_from_the_seed_and_lie_in_the_space(plan: SweepPlan) -> None:
    record = new_record(plan)
    search, num_left = optuna_searcher(plan, record, set())
    assert num_left == 6
    points = proposed(search, 6)
    assert points == proposed(optuna_searcher(plan, record, set())[0], 6)
    for point in points:
        assert point.keys() == plan.sweep.space.keys()
        assert 0.0005 <= float(str(point["optim.lr"])) <= 0.005
        assert point["dsts.num_layers"] in (1, 2, 3)
        assert plan.drawn(point).config.optim.lr == point["optim.lr"]


def test_a_resumed_search_knows_what_was_found_and_begins_with_what_was_interrupted(
    plan: SweepPlan,
) -> None:
    record = new_record(plan)
    points = proposed(optuna_searcher(plan, record, set())[0], 3)
    for point, top1 in zip(points[:2], (0.3, 0.9), strict=True):
        finish(plan, record, point, top1)
    record.add(plan.drawn(points[2]), points[2], None)  # interrupted
    search, num_left = optuna_searcher(plan, record, set(record.outcomes))
    assert num_left == 4
    assert search is not None
    assert search._ot_study is not None
    told = [(trial.params, trial.value) for trial in search._ot_study.trials if trial.value]
    assert told == [(points[0], 0.3), (points[1], 0.9)]
    assert proposed(search, 1) == [points[2]]


def test_a_finished_search_has_nothing_left(plan: SweepPlan) -> None:
    record = new_record(plan)
    for point in proposed(optuna_searcher(plan, record, set())[0], 6):
        finish(plan, record, point, 0.5)
    assert optuna_searcher(plan, record, set(record.outcomes)) == (None, 0)
