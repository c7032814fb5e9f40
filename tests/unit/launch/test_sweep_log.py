"""What a sweep writes into MLflow while its trials begin and end, in a store that goes away."""

from pathlib import Path

import pytest
from rich.console import Console

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.errors import TrackingError
from dsts_ray.launch.sweep_log import SweepLog
from dsts_ray.launch.trial import TRIAL_KEY, SweepJob
from dsts_ray.launch.trial_board import RUNNING, TrialState
from dsts_ray.report.record import FAILED, FINISHED, STOPPED, new_record
from dsts_ray.report.results import read_sweep
from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.mlflow import open_run
from tests.support.sweeps import WrittenSweep, begin_sweep


def begin(sweep: WrittenSweep, state: TrialState) -> str:
    """The id of the trial's run, which has begun."""
    return open_run(
        uri=sweep.uri,
        experiment="dsts_ray",
        run_name=state.trial.name,
        artifact_root=None,
        params={},
        tags={},
    )


def test_an_outage_of_mlflow_delays_what_is_logged_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = begin_sweep(tmp_path)
    job = SweepJob(sweep.plan, tmp_path, sweep.uri, sweep.run_id)
    log = SweepLog(job, sweep.record, Console(width=200))
    first, second = (TrialState(trial, RUNNING, step=4) for trial in sweep.plan.trials[:2])
    ids = [begin(sweep, state) for state in (first, second)]
    store = Path(sweep.uri.removeprefix("sqlite:///"))
    away = store.rename(tmp_path / "away")
    first.outcome, first.reason = FAILED, "it died"
    first.metrics, first.logged_ms = {"val/top1": 0.25}, 1
    log.changed(first, {TRIAL_KEY: first.trial.name})
    assert f"how {first.trial.name} stands is yet to be logged" in capsys.readouterr().out
    with pytest.raises(TrackingError):
        log.write()
    away.rename(store)
    second.outcome = STOPPED
    log.changed(second, {TRIAL_KEY: second.trial.name})
    runs = [connect(sweep.uri).get_run(run_id) for run_id in ids]
    assert [run.info.status for run in runs] == ["FAILED", "KILLED"]
    assert runs[0].data.metrics == {"val/top1": 0.25}
    told = read_sweep("hand", sweep.uri).record.outcomes
    assert told == {first.trial.name: (FAILED, "it died"), second.trial.name: (STOPPED, "")}


def test_runs_of_an_interrupted_sweep_do_not_stay_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = begin_sweep(tmp_path)
    log = SweepLog(SweepJob(sweep.plan, tmp_path, sweep.uri, sweep.run_id), sweep.record, Console())
    states = [TrialState(trial, RUNNING, step=4) for trial in sweep.plan.trials[:2]]
    ids = [begin(sweep, state) for state in states]
    states[0].outcome = FINISHED
    log.interrupted(states)
    runs = [connect(sweep.uri).get_run(run_id) for run_id in ids]
    assert [run.info.status for run in runs] == ["RUNNING", "KILLED"]
    assert not read_sweep("hand", sweep.uri).record.outcomes  # both are yet to be told of
    Path(sweep.uri.removeprefix("sqlite:///")).rename(tmp_path / "away")
    log.interrupted(states)
    assert f"how {sweep.plan.name} stands is yet to be logged" in capsys.readouterr().out


def test_a_drawn_trial_is_one_of_the_record_however_often_it_begins(tmp_path: Path) -> None:
    begun = begin_sweep(tmp_path)
    plan = plan_sweep(load_sweep("search"))
    record = new_record(plan)
    job = SweepJob(plan, tmp_path, begun.uri, begun.run_id)
    log = SweepLog(job, record, Console(quiet=True))
    point = {"dsts.num_layers": 2}
    first, again = (TrialState(job.trial(point), RUNNING) for _ in range(2))
    log.changed(first, point)
    log.changed(first, point)  # a retry
    first.outcome = FINISHED
    log.changed(first, point)
    log.changed(again, point)
    again.outcome = FINISHED
    log.changed(again, point)
    assert [entry.row for entry in record.trials] == ["num_layers=2", "num_layers=2 #2"]
    assert record.num_ended == 2
