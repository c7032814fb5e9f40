"""What the runs of a sweep gave, as MLflow has it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsts_ray.config.sweep import MEASURES
from dsts_ray.errors import TrackingError
from dsts_ray.report.record import (
    DIVERGED,
    FINISHED,
    RAN_TAG,
    SWEEP_TAG,
    SweepRecord,
    read_record,
)
from dsts_ray.tracking.mlflow import RUN_NAME_TAG
from dsts_ray.tracking.search import (
    TrackedRun,
    fetched,
    find_latest,
    find_runs,
    metric_history,
)
from dsts_ray.train.checkpoint import read_json
from dsts_ray.train.predictions import PREDICTIONS_FILE, SavedPredictions, read_predictions

RUN_ARTIFACT, SUMMARY_FILE = "run", "summary.json"
"""Artifact folder of a finished run, and the file in it that marks it as finished."""
NOT_RUN = "not run"


class Recognized(NamedTuple):
    """Which videos a run recognized.

    Attributes:
        video_ids: In the order of the rows.
        labels: True classes, (videos,).
        ranks: Of the true class among the probabilities, from 0; classes for a refused video.
    """

    video_ids: tuple[str, ...]
    labels: np.ndarray
    ranks: np.ndarray


@dataclass(frozen=True)
class RunResult:
    """One training run.

    Attributes:
        name: Of the run.
        outcome: ``FINISHED`` or how else it ended, or ``NOT_RUN``.
        reason: For that.
        run_id: In MLflow; empty where it has none.
        values: By measure, of the last evaluation; empty unless finished.
        best: Sweep's metric at the best checkpoint; None unless finished.
        curve: (step, metric) of its evaluations.
        recognized: By its last evaluation; None where no predictions were logged.
    """

    name: str
    outcome: str
    reason: str = ""
    run_id: str = ""
    values: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    recognized: Recognized | None = None


@dataclass(frozen=True)
class SweepResults:
    """A sweep and its runs.

    Attributes:
        record: What the sweep consists of.
        run_name: Of its own MLflow run.
        runs: By name.
    """

    record: SweepRecord
    run_name: str
    runs: dict[str, RunResult]

    @property
    def rows(self) -> list[str]:
        """In the order of the table."""
        return list(dict.fromkeys(trial.row for trial in self.record.trials))

    def of_row(self, row: str) -> dict[int, RunResult]:
        """A row's runs by seed."""
        return {t.seed: self.runs[t.run] for t in self.record.trials if t.row == row}


def sweep_name(sweep: str) -> str:
    """Name of the sweep that a command line names, or of its file."""
    return Path(sweep).stem if sweep.endswith(".yaml") else sweep


def read_sweep(sweep: str, uri: str) -> SweepResults:
    """Read the sweep of a name that ran last, or one by its own MLflow run.

    Args:
        sweep: Name of a packaged sweep, the path of a sweep's file, or ``sweep-NAME-DIGEST``.
        uri: Tracking server or store.

    Raises:
        TrackingError: There is no such sweep, or no run logged its metric.
    """
    name = sweep_name(sweep)
    parent = find_latest(uri=uri, tag=SWEEP_TAG, value=name, newest_by=RAN_TAG) or find_latest(
        uri=uri, tag=RUN_NAME_TAG, value=name
    )
    record = parent and read_record(uri=uri, run_id=parent.run_id)
    if parent is None or record is None:
        raise TrackingError(
            f"no sweep {name!r} was ever started in this store; run python jobs/tune.py {sweep}, "
            "or name another store with --tracking-uri"
        )
    names = [trial.run for trial in record.trials]
    tracked = find_runs(uri=uri, experiment=record.experiment, names=dict.fromkeys(names))
    runs = {name: _result(name, tracked.get(name), record, uri) for name in dict.fromkeys(names)}
    finished = [run for run in runs.values() if run.outcome == FINISHED]
    if finished and not any(record.metric in run.values for run in finished):
        raise TrackingError(
            f"no run of {name} logged {record.metric}; they have: "
            f"{', '.join(sorted(finished[0].values))}"
        )
    return SweepResults(record, parent.name, runs)


def _result(name: str, run: TrackedRun | None, record: SweepRecord, uri: str) -> RunResult:
    outcome, reason = record.outcomes.get(name, (NOT_RUN, ""))
    if run is None:
        return RunResult(name, outcome, reason)
    curve = metric_history(uri=uri, run_id=run.run_id, key=record.metric)
    with fetched(uri=uri, run_id=run.run_id, path=RUN_ARTIFACT) as folder:
        if folder is None or not (folder / SUMMARY_FILE).exists() or outcome == DIVERGED:
            return RunResult(name, outcome, reason, run.run_id, curve=curve)
        summary = read_json(folder / SUMMARY_FILE)
        values = {key: float(summary[key]) for key in MEASURES if summary.get(key) is not None}
        values["num_parameters"] -= summary["num_auxiliary_parameters"]
        best = summary.get(f"best/{record.metric}")
        predictions = folder / PREDICTIONS_FILE
        seen = recognized(read_predictions(predictions)) if predictions.exists() else None
    return RunResult(name, FINISHED, "", run.run_id, values, best, curve, seen)


def recognized(saved: SavedPredictions) -> Recognized:
    """Rank the true classes among what was predicted."""
    rows = saved.predictions
    order = rows.probabilities.argsort(dim=1, descending=True, stable=True)
    ranks = (order == rows.labels.unsqueeze(1)).int().argmax(1)
    ranks[list(rows.refused)] = rows.probabilities.shape[1]
    return Recognized(saved.video_ids, rows.labels.numpy(), ranks.numpy())
