"""A sweep's record in MLflow, kept up as its trials begin and end, through outages."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from dsts_ray.errors import TrackingError
from dsts_ray.launch.trial import TRIAL_KEY, SweepJob
from dsts_ray.launch.trial_board import RUNNING, TrialState
from dsts_ray.report.record import DIVERGED, FAILED, SweepRecord, TrialRecord, write_record
from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.mlflow import finish_run, log_missing
from dsts_ray.tracking.search import find_runs


class SweepLog:
    """Notes how trials stand; what MLflow does not take now it is given at the next event."""

    def __init__(self, job: SweepJob, record: SweepRecord, console: Console) -> None:
        """Note nothing yet.

        Args:
            job: Of the sweep.
            record: What is known; kept up.
            console: Where an outage is told.
        """
        self._job, self._record, self._console = job, record, console
        self._ended: list[TrialState] = []
        self._proposed: list[TrialRecord] = []

    def changed(self, state: TrialState, parameters: Mapping[str, Any]) -> None:
        """Note a trial that has begun or ended, with Tune's parameters of it."""
        trial = state.trial
        if TRIAL_KEY not in parameters and not state.is_proposed:
            self._proposed.append(self._record.propose(trial, parameters, self._proposed))
            state.is_proposed = True
        if state.outcome != RUNNING:
            self._record.outcomes[trial.name] = (state.outcome, state.reason)
            self._ended.append(state)
        self._try_to_write(trial.name)

    def interrupted(self, states: Iterable[TrialState]) -> None:
        """Note that the sweep ends while these trials, as far as they have not ended, run."""
        self._ended += [state for state in states if state.outcome == RUNNING]
        self._try_to_write(self._job.plan.name)

    def _try_to_write(self, name: str) -> None:
        try:
            connect(self._job.uri)  # trials wait while this does: it gives up within seconds
            self.write()
        except TrackingError as error:
            self._console.print(
                f"how {name} stands is yet to be logged: {error}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )

    def write(self) -> None:
        """Log all that is noted.

        Raises:
            TrackingError: The store cannot be reached or refuses.
        """
        while self._ended:
            _close_run(self._job, self._ended[0])
            del self._ended[0]
        write_record(self._record, uri=self._job.uri, run_id=self._job.parent_run_id)


def _close_run(job: SweepJob, state: TrialState) -> None:
    """End the MLflow run of a trial that could not do so itself, with its last evaluation."""
    experiment, name = state.trial.config.tracking.experiment, state.trial.name
    run = find_runs(uri=job.uri, experiment=experiment, names=[name], patient=True).get(name)
    if run and run.status == "RUNNING":
        log_missing(
            uri=job.uri,
            run_id=run.run_id,
            metrics=state.metrics,
            step=state.step - 1,
            timestamp=state.logged_ms,
        )
        status = "FAILED" if state.outcome in (FAILED, DIVERGED) else "KILLED"
        finish_run(uri=job.uri, run_id=run.run_id, status=status)
