"""How a sweep's trials stand: a live table on the console, told by Ray Tune."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from dsts_ray.config.trials import Trial
from dsts_ray.launch.admission import release
from dsts_ray.launch.trial import SweepJob
from dsts_ray.report.record import DIVERGED, FAILED, STOPPED

WAITING, RUNNING = "waiting", "running"
_LOSS = "train/loss"


@dataclass
class TrialState:
    """A trial as the console shows it.

    Attributes:
        trial: Row, seed, configuration.
        outcome: Of those of ``trial.py``, or ``WAITING``, ``RUNNING``.
        step: Of the latest evaluation.
        value: Of the metric there, NaN before the first.
        reason: Why it failed.
        num_retries: So far.
        seconds: Of this session.
        metrics: Of the latest evaluation.
        logged_ms: Their timestamp.
        is_proposed: It is a drawn trial that the sweep's record has.
    """

    trial: Trial
    outcome: str = WAITING
    step: int = 0
    value: float = math.nan
    reason: str = ""
    num_retries: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    logged_ms: int = 0
    is_proposed: bool = False
    started: float = field(default_factory=time.monotonic)


class TrialBoard(tune.Callback):
    """Follows trials and draws their table; without a terminal, prints a line for every event."""

    def __init__(
        self,
        console: Console,
        job: SweepJob,
        metric: str,
        num_runs: int,
        changed: Callable[[TrialState, dict[str, Any]], None],
    ) -> None:
        """Start empty.

        Args:
            console: Where to draw.
            job: Of the sweep.
            metric: Shown.
            num_runs: Of the sweep in all.
            changed: Called with a trial that has begun or ended, and Tune's parameters of it.
        """
        self.states: dict[str, TrialState] = {}
        self._console, self._job, self._metric = console, job, metric
        self._num_runs, self._changed = num_runs, changed
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=1)

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing in the files that Tune writes."""
        return {}

    def __enter__(self) -> "TrialBoard":
        """Begin to draw."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw a last time."""
        if self._console.is_terminal:
            self._live.stop()

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """A trial has got its resources, for the first time or again."""
        state = self.states.setdefault(
            trial.trial_id, TrialState(self._job.trial(trial.config or {}))
        )
        state.outcome = RUNNING
        self._changed(state, dict(trial.config or {}))
        self._say(state, "starts" if not state.num_retries else f"retry {state.num_retries}")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: object,
    ) -> None:
        """A trial has reported an evaluation, or how it ended."""
        state = self.states[trial.trial_id]
        state.step, state.value = result["step"], result[self._metric]
        state.logged_ms = result.get("logged_ms", state.logged_ms)
        state.metrics = {key: value for key, value in result.items() if "/" in key}
        if "outcome" in result:
            state.outcome, state.reason = result["outcome"], result.get("reason", "")
        if state.outcome == DIVERGED:
            state.reason = f"the training loss is {result[_LOSS]} at step {state.step}"
        if state.outcome == RUNNING:
            self._say(state, f"step {state.step}: {self._metric} {state.value:.4f}")

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """A trial has failed and is to be retried."""
        state = self.states[trial.trial_id]
        state.num_retries += 1
        release(self._job.lease(state.trial))
        self._say(state, f"will be retried: {_last_line(trial)}")

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """A trial has ended, or has been stopped."""
        state = self.states[trial.trial_id]
        if state.outcome == RUNNING:
            state.outcome = STOPPED
        self._end(state, trial)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: object
    ) -> None:
        """A trial has failed as often as it may."""
        state = self.states[trial.trial_id]
        state.outcome, state.reason = FAILED, _last_line(trial)
        self._end(state, trial)

    def _end(self, state: TrialState, trial: TuneTrial) -> None:
        state.seconds = time.monotonic() - state.started
        release(self._job.lease(state.trial))
        self._say(state, f"{state.outcome} {state.reason}".rstrip())
        self._changed(state, dict(trial.config or {}))

    def _say(self, state: TrialState, text: str) -> None:
        if not self._console.is_terminal:
            trial = state.trial
            self._console.print(
                f"{trial.row} (seed {trial.seed}, {trial.name}): {text}",
                soft_wrap=True,
                markup=False,
                highlight=False,
            )

    def _table(self) -> Table:
        counts = Counter(state.outcome for state in self.states.values())
        waiting = self._num_runs - len(self.states)
        told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        table = Table(title=f"{told or 'starting'}, {waiting} to come")
        for heading in ("row", "seed", "run", "", "step", self._metric, "seconds"):
            table.add_column(heading)
        for state in self.states.values():
            seconds = state.seconds or time.monotonic() - state.started
            table.add_row(
                escape(state.trial.row),
                str(state.trial.seed),
                escape(state.trial.name),
                state.outcome,
                str(state.step),
                "" if math.isnan(state.value) else f"{state.value:.4f}",
                f"{seconds:.0f}",
            )
        return table


def _last_line(trial: TuneTrial) -> str:
    """What the latest of a trial's errors says."""
    lines = [line.strip() for line in str(trial.get_error() or "").splitlines() if line.strip()]
    return lines[-1] if lines else "it died without a word"
