"""A sweep from plan to the last trial: the driver's side of Ray Tune."""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from rich.console import Console

from dsts_ray.build import build_plan
from dsts_ray.config.schema import Config
from dsts_ray.config.trials import SweepPlan
from dsts_ray.data.manifest import Manifest
from dsts_ray.errors import ConfigError
from dsts_ray.launch.cluster import connected, num_runs_at_once
from dsts_ray.launch.dataset import labelled_split, locate_manifest
from dsts_ray.launch.home import storage_folder, tracking_uri
from dsts_ray.launch.lock import locked
from dsts_ray.launch.progress import interrupted_by_sigterm
from dsts_ray.launch.searcher import optuna_searcher
from dsts_ray.launch.sweep_log import SweepLog
from dsts_ray.launch.trial import TRIAL_KEY, SweepJob, run_trial
from dsts_ray.launch.trial_board import TrialBoard
from dsts_ray.launch.weights import pinned_weights
from dsts_ray.report.record import (
    SweepRecord,
    new_record,
    read_record,
    sweep_tags,
    write_record,
)
from dsts_ray.tracking.mlflow import environment_versions, finish_run, open_run
from dsts_ray.tracking.search import find_runs

RETRIES = 2
"""How often a failed trial is tried again; each time it goes on from its last checkpoint."""
REDUCTION_FACTOR = 3
"""ASHA: of the trials that reach a rung, one in so many goes on."""
_NEVER_PAUSED: Mapping[str, Any] = {"min_time_slice": math.inf}
"""Median rule: Ray's type says an integer, but only infinity keeps it from pausing a trial."""
_DRIVER: dict[str, float] = {"memory": 1}
"""A trial's own process computes nothing, but must ask for something; its run asks for CPUs."""
_LOCKS = ".locks"
_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep ended with.

    Attributes:
        name: Of its own MLflow run.
        record: Trials and outcomes.
        was_finished: True when an earlier call had finished it and nothing was done now.
        uri: MLflow store.
    """

    name: str
    record: SweepRecord
    was_finished: bool
    uri: str


def run_sweep(plan: SweepPlan, console: Console, *, resume: bool) -> SweepOutcome:
    """Train every run of a sweep, as many at once as the cluster carries.

    A trial that fails is retried, then marked; the others go on. A sweep that was interrupted goes
    on with ``resume``: what finished or diverged stays, interrupted runs continue from their last
    checkpoints, failed ones are tried again.

    Raises:
        DSTSRayError: Nothing can run: bad data, cluster or tracking server, an interrupted sweep
            without ``resume``, or one that another process runs.
    """
    storage = storage_folder(plan.base)
    plan = pinned_weights(plan, uri=tracking_uri(plan.base, storage))
    refusal = (
        f"{plan.name} runs in another process, with {storage} as its storage; wait for its end, or "
        "change the sweep"
    )
    with locked(storage / _LOCKS / plan.name, refusal):
        return _run_alone(plan, storage, console, resume=resume)


def _run_alone(plan: SweepPlan, storage: Path, console: Console, *, resume: bool) -> SweepOutcome:
    base = plan.base
    uri = tracking_uri(base, storage)
    with locked(storage / _LOCKS / "store"):
        earlier = _record_so_far(plan, uri)
    record = new_record(plan, earlier)
    if record.num_ended == plan.num_runs:
        with _sweep_run(plan, record, uri, storage) as run_id:
            write_record(record, uri=uri, run_id=run_id)
        return SweepOutcome(plan.name, record, was_finished=True, uri=uri)
    if earlier and not resume:
        raise ConfigError(
            f"{plan.name} was started before, {record.num_ended} of its {plan.num_runs} "
            "runs are done; give --resume to go on with it, or change the sweep"
        )
    configs = [trial.config for trial in plan.unique_trials().values()] or [base]
    with console.status("preparing data"):
        for config in configs:
            with locked(storage / _LOCKS / "data"):
                _check_data(config, storage)
    with _sweep_run(plan, record, uri, storage) as run_id, connected(), interrupted_by_sigterm():
        job = SweepJob(plan, storage, uri, run_id)
        at_once = num_runs_at_once(configs, console)
        console.print(
            f"{plan.name}: {plan.num_runs} runs, {at_once} at once, in {storage}",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        log = SweepLog(job, record, console)
        log.write()
        with TrialBoard(console, job, base.tracking.metric, plan.num_runs, log.changed) as board:
            try:
                _fit(job, record, board, at_once)
            except KeyboardInterrupt:
                log.interrupted(board.states.values())
                raise
        log.write()
    return SweepOutcome(plan.name, record, was_finished=False, uri=uri)


def _record_so_far(plan: SweepPlan, uri: str) -> SweepRecord | None:
    """The record that an earlier call began; None without one."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return None
    experiment = plan.base.tracking.experiment
    found = find_runs(uri=uri, experiment=experiment, names=[plan.name]).get(plan.name)
    return read_record(uri=uri, run_id=found.run_id) if found else None


def _check_data(config: Config, storage: Path) -> None:
    """Make the demo data set where it is asked for, before trials would make it all at once."""
    manifest = Manifest.read(locate_manifest(config, storage))
    for split in (config.data.train_split, config.data.val_split):
        labelled_split(manifest, split)


@contextmanager
def _sweep_run(plan: SweepPlan, record: SweepRecord, uri: str, storage: Path) -> Iterator[str]:
    """The sweep's own MLflow run, under which its trials' runs lie; it fails where one of them did.

    A new SQLite store is made by one process at a time: MLflow breaks where two make its tables.
    """
    with locked(storage / _LOCKS / "store"):
        run_id = open_run(
            uri=uri,
            experiment=plan.base.tracking.experiment,
            run_name=plan.name,
            artifact_root=str(storage / "artifacts"),
            params={
                "sweep": plan.sweep.name,
                "preset": plan.sweep.preset,
                "overrides": " ".join(plan.overrides),
                "seeds": str(list(plan.sweep.seeds)),
                "searcher": plan.sweep.searcher,
                "scheduler": plan.sweep.scheduler,
            },
            tags={**environment_versions(), **sweep_tags(plan)},
        )
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FAILED"
    try:
        yield run_id
        status = "FAILED" if record.failed else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        finish_run(uri=uri, run_id=run_id, status=status)


def _fit(job: SweepJob, record: SweepRecord, board: TrialBoard, at_once: int) -> None:
    """Run Tune; its own files are needed by nobody afterwards."""
    plan, folder = job.plan, job.storage / job.plan.name
    shutil.rmtree(folder, ignore_errors=True)
    os.environ.update(_ENVIRONMENT)
    space, search, num_samples = _search(plan, record)
    if not num_samples:
        return
    try:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, job=job), _DRIVER),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=num_samples,
                max_concurrent_trials=at_once,
                search_alg=search,
                scheduler=scheduler(plan, *_evaluations(plan, job.storage)),
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[board],
                verbose=0,
            ),
        ).fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _search(plan: SweepPlan, record: SweepRecord) -> tuple[dict[str, Any], Any, int]:
    """Tune's parameter space, search algorithm and number of samples of it for what is to do."""
    if plan.sweep.searcher == "optuna":
        search, num_left = optuna_searcher(plan, record)
        return {}, search, num_left
    names = list(plan.unique_trials())
    if plan.sweep.scheduler == "none":
        names = [name for name in names if name not in record.kept]
    return {TRIAL_KEY: tune.grid_search(names)}, None, 1 if names else 0


def scheduler(plan: SweepPlan, first: int, longest: int) -> TrialScheduler:
    """The scheduler by name; its time is the run's own step, which goes on over interruptions.

    None of them pauses a trial: the run would go on and keep its resources.

    Args:
        plan: The sweep.
        first: Steps until a run's first evaluation.
        longest: Steps of the longest run.
    """
    if plan.sweep.scheduler == "none":
        return FIFOScheduler()
    judged: Mapping[str, Any] = {
        "time_attr": "step",
        "metric": plan.base.tracking.metric,
        "mode": "max",
        "grace_period": first,
    }
    if plan.sweep.scheduler == "median":
        return MedianStoppingRule(**judged, **_NEVER_PAUSED)
    return AsyncHyperBandScheduler(**judged, max_t=longest + 1, reduction_factor=REDUCTION_FACTOR)


def _evaluations(plan: SweepPlan, storage: Path) -> tuple[int, int]:
    """Steps until the first evaluation, and of the longest run."""
    configs: Sequence[Config] = [trial.config for trial in plan.trials] or [plan.base]
    firsts, lengths = [], []
    for config in configs:
        manifest = Manifest.read(locate_manifest(config, storage))
        run = build_plan(config, len(labelled_split(manifest, config.data.train_split)))
        steps = range(run.num_steps)
        firsts.append(next(step + 1 for step in steps if run.evaluates_after(step)))
        lengths.append(run.num_steps)
    return max(firsts), max(lengths)
