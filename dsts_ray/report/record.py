"""What a sweep consists of and how its trials ended, kept in MLflow beside the runs."""

import itertools
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dsts_ray.config.trials import SweepPlan, Trial
from dsts_ray.errors import TrackingError
from dsts_ray.tracking.mlflow import log_artifacts
from dsts_ray.tracking.search import fetched

FINISHED, STOPPED, DIVERGED, FAILED = "finished", "stopped early", "diverged", "failed"
"""How a trial ends."""
SWEEP_TAG = "dsts_ray.sweep"
"""Tag with the sweep's name, on its own MLflow run."""
RAN_TAG = "dsts_ray.sweep_ran"
"""Tag with the time (UTC, ISO 8601) when the sweep was last begun or gone on with."""
_ARTIFACT, _FILE = "sweep", "sweep.json"


@dataclass
class TrialRecord:
    """One row and seed of a sweep.

    Attributes:
        row: Of the sweep.
        seed: ``train.seed``.
        run: Name of the training run; rows may share one.
        parameters: Of a drawn trial, by dotted key.
    """

    row: str
    seed: int
    run: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class SweepRecord:
    """A sweep as its report needs it; a JSON file among the artifacts of the sweep's MLflow run.

    Attributes:
        name: Of the sweep.
        title: Of the sweep.
        metric: That decides.
        experiment: Of MLflow, in which the runs are.
        preset: All rows start from.
        overrides: ``key=value`` of the command line.
        source: Of the paper's numbers.
        baselines: Row that each row is compared with.
        paper: The paper's numbers by row and measure.
        trials: In the order of the table.
        outcomes: (outcome, reason) by run; none for a run that has not ended.
    """

    name: str
    title: str
    metric: str
    experiment: str
    preset: str
    overrides: list[str]
    source: str
    baselines: dict[str, str]
    paper: dict[str, dict[str, float]]
    trials: list[TrialRecord] = field(default_factory=list)
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def propose(
        self, trial: Trial, parameters: Mapping[str, Any], taken: Collection[TrialRecord]
    ) -> TrialRecord:
        """The entry of a drawn trial: an interrupted one of its run, or a new one.

        A point may be drawn twice, and names of points are rounded: a name that is there already
        gets a number.

        Args:
            trial: Drawn.
            parameters: By dotted key.
            taken: Entries of other trials of this session.
        """
        for entry in self.trials:
            if entry.run == trial.name and entry.run not in self.kept and entry not in taken:
                return entry
        rows = {entry.row for entry in self.trials}
        numbered = (f"{trial.row} #{number}" for number in itertools.count(2))
        row = trial.row if trial.row not in rows else next(n for n in numbered if n not in rows)
        self.trials.append(TrialRecord(row, trial.seed, trial.name, dict(parameters)))
        return self.trials[-1]

    @property
    def kept(self) -> set[str]:
        """Runs that are done with."""
        return self.outcomes.keys() - set(self.failed)

    @property
    def num_ended(self) -> int:
        """Trials that are done with; those of one run are one, unless they were drawn."""
        ended = [entry for entry in self.trials if entry.run in self.kept]
        return len({entry.row if entry.parameters else entry.run for entry in ended})

    @property
    def failed(self) -> list[str]:
        """Runs that failed; those that diverged or were stopped early did what they could."""
        return [name for name, (outcome, _) in self.outcomes.items() if outcome == FAILED]


def sweep_tags(plan: SweepPlan) -> dict[str, str]:
    """Tags by which a sweep that runs now is found."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return {SWEEP_TAG: plan.sweep.name, RAN_TAG: now}


def new_record(plan: SweepPlan, earlier: SweepRecord | None = None) -> SweepRecord:
    """Record a plan, with the outcomes and drawn trials that an earlier record of its runs has.

    Titles, names of rows, baselines and the paper's numbers are the plan's: the sweep's file may
    have been edited since.
    """
    sweep = plan.sweep
    record = SweepRecord(
        name=sweep.name,
        title=sweep.title,
        metric=plan.base.tracking.metric,
        experiment=plan.base.tracking.experiment,
        preset=sweep.preset,
        overrides=list(plan.overrides),
        source=sweep.source,
        baselines={},
        paper={row: dict(numbers) for row, numbers in sweep.paper.items()},
    )
    for trial in plan.trials:
        record.trials.append(TrialRecord(trial.row, trial.seed, trial.name))
        if baseline := sweep.baseline_of(trial.row):
            record.baselines[trial.row] = baseline
    if earlier:
        record.outcomes = earlier.outcomes
        record.trials = record.trials or earlier.trials
    return record


def write_record(record: SweepRecord, *, uri: str, run_id: str) -> None:
    """Log a record to the sweep's MLflow run, in the place of an earlier one.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _FILE).write_text(json.dumps(asdict(record), indent=2))
        log_artifacts(uri=uri, run_id=run_id, directory=Path(folder), artifact_path=_ARTIFACT)


def read_record(*, uri: str, run_id: str) -> SweepRecord | None:
    """Read the record of a sweep's MLflow run; None where it has none.

    Raises:
        TrackingError: The store cannot be reached, or what it gives is no record.
    """
    with fetched(uri=uri, run_id=run_id, path=f"{_ARTIFACT}/{_FILE}") as path:
        if path is None:
            return None
        content = json.loads(path.read_text())
    try:
        trials = [TrialRecord(**trial) for trial in content.pop("trials")]
        outcomes = {name: (end, reason) for name, (end, reason) in content.pop("outcomes").items()}
        return SweepRecord(**content, trials=trials, outcomes=outcomes)
    except (KeyError, TypeError, ValueError) as error:
        raise TrackingError(
            f"{_ARTIFACT}/{_FILE} of run {run_id} is no record that this release reads ({error}); "
            "run the sweep again"
        ) from error
