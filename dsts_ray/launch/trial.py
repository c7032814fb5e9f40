"""What Ray Tune runs for a trial: a training run of its own that reports to Tune.

A trial whose run was interrupted continues it: the run's name follows from its configuration, and
training a run of the same name goes on from its last checkpoint. Tune's own restoring is not used.
What the run had reported before is told to Tune first, so that a scheduler judges it as if it had
not stopped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.train import Checkpoint
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console

from dsts_ray.build import build_plan
from dsts_ray.config.schema import Config
from dsts_ray.config.trials import SweepPlan, Trial
from dsts_ray.data.manifest import Manifest
from dsts_ray.errors import CheckpointError, ConfigError, DataError, DivergedError, OutOfMemoryError
from dsts_ray.launch.admission import admitted, hold
from dsts_ray.launch.dataset import DEMO, labelled_split, manifest_path
from dsts_ray.launch.lock import locked
from dsts_ray.launch.run import CHECKPOINTS
from dsts_ray.launch.snapshot import latest_step, recover
from dsts_ray.launch.trainer import train
from dsts_ray.report.record import DIVERGED, FAILED, FINISHED
from dsts_ray.tracking.search import find_runs, metric_history

PARENT_TAG = "mlflow.parentRunId"
TRIAL_KEY = "trial"
"""Parameter of a trial that was known before; a drawn one has the space's keys instead."""
_LOSS = "train/loss"
_NOT_RETRIED = (ConfigError, DataError, CheckpointError, OutOfMemoryError)


@dataclass(frozen=True)
class SweepJob:
    """What every trial of a sweep knows.

    Attributes:
        plan: The sweep's runs.
        storage: Folder of run folders.
        uri: MLflow store.
        parent_run_id: The sweep's own MLflow run.
    """

    plan: SweepPlan
    storage: Path
    uri: str
    parent_run_id: str

    def trial(self, parameters: Mapping[str, Any]) -> Trial:
        """The trial that Tune's parameters name or draw."""
        if TRIAL_KEY in parameters:
            return self.plan.unique_trials()[parameters[TRIAL_KEY]]
        return self.plan.drawn(parameters)

    def lease(self, trial: Trial) -> str:
        """Name of the trial's lease of the cluster's resources."""
        return f"{self.parent_run_id}/{trial.name}"

    def placed(self, trial: Trial) -> Config:
        """Configuration of the trial's run, with places that mean the same on every node."""
        config = trial.config
        data, model = config.data, config.model
        if data.manifest != DEMO:
            data = replace(data, manifest=str(manifest_path(config, self.storage)))
        if model.weights and not model.weights.startswith("models:"):
            weights = Path(model.weights).expanduser().absolute()
            model = replace(model, weights=str(weights))
        return replace(
            config,
            name=trial.name,
            data=data,
            model=model,
            storage=replace(config.storage, path=str(self.storage)),
            tracking=replace(config.tracking, uri=self.uri),
        )


class EarlierReports(TuneReportCallback):
    """Tells Tune of every evaluation but the last.

    After the last one the run is still to be recorded; a scheduler that stops it then would lose
    it, so the trial itself reports it at its end. A checkpoint between two evaluations has no
    metric, without which Tune takes no report.
    """

    def __init__(self, num_steps: int, metric: str) -> None:
        """Know the run.

        Args:
            num_steps: Of the run.
            metric: That an evaluation reports.
        """
        super().__init__()
        self._num_steps, self._metric = num_steps, metric

    def after_report(
        self,
        run_context: TrainRunContext,
        metrics: list[dict[str, Any]],
        checkpoint: Checkpoint | None,
    ) -> None:
        """Pass rank 0's metrics on."""
        if self._metric in metrics[0] and metrics[0]["step"] < self._num_steps:
            super().after_report(run_context, metrics, checkpoint)


class HeldResources(WorkerGroupCallback):
    """Takes down what a trial's workers hold as soon as they hold it.

    A trial that is killed, be it before its first evaluation, cannot free it.
    """

    def __init__(self, lease: str) -> None:
        """Know the trial.

        Args:
            lease: Of the trial.
        """
        self._lease = lease

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Note the workers' placement group."""
        handle = worker_group.get_worker_group_state().placement_group_handle
        hold(self._lease, handle.placement_group)


def run_trial(parameters: dict[str, Any], *, job: SweepJob) -> None:
    """Train a trial's run, or what is left of it, and report to Tune.

    Two sweeps that share a run do not train it twice: the second waits and takes the result. What
    would fail again, be it retried, is reported as failed; what else goes wrong is raised, and
    retried by Tune.
    """
    trial = job.trial(parameters)
    config = job.placed(trial)
    metric = config.tracking.metric
    with locked(job.storage / ".locks" / trial.name):
        try:
            num_steps = run_length(config, job.storage)
            for report in _earlier_reports(config, job, num_steps):
                tune.report(report)
            lease = job.lease(trial)
            with admitted(lease, config):
                outcome = train(
                    config,
                    Console(quiet=True),
                    tags={PARENT_TAG: job.parent_run_id},
                    callbacks=[EarlierReports(num_steps, metric), HeldResources(lease)],
                )
        except DivergedError as error:
            step = error.step + 1
            tune.report({metric: math.nan, _LOSS: error.loss, "step": step, "outcome": DIVERGED})
            return
        except _NOT_RETRIED as error:
            tune.report(
                {metric: math.nan, "step": 0, "outcome": FAILED, "reason": _one_line(error)}
            )
            return
    tune.report({"step": num_steps, metric: outcome.summary[metric], "outcome": FINISHED})


def run_length(config: Config, storage: Path) -> int:
    """Optimizer steps of a run whose manifest exists."""
    manifest = Manifest.read(manifest_path(config, storage))
    return build_plan(config, len(labelled_split(manifest, config.data.train_split))).num_steps


def _earlier_reports(config: Config, job: SweepJob, num_steps: int) -> list[dict[str, Any]]:
    """What the run reported until its latest checkpoint, as MLflow has it."""
    checkpoints = job.storage / config.name / CHECKPOINTS
    recover(checkpoints, config.tracking.metric, Console(quiet=True).print)
    done = latest_step(checkpoints)
    names = [config.name] if done else []
    runs = find_runs(uri=job.uri, experiment=config.tracking.experiment, names=names)
    if config.name not in runs:
        return []
    run_id = runs[config.name].run_id
    losses = dict(metric_history(uri=job.uri, run_id=run_id, key=_LOSS))
    metric = config.tracking.metric
    return [
        {metric: value, _LOSS: losses.get(step), "step": step + 1}
        for step, value in metric_history(uri=job.uri, run_id=run_id, key=metric)
        if step + 1 <= min(done, num_steps - 1)
    ]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
