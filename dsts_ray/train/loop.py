"""The training loop of a worker.

It knows no Ray: context, stream, step, evaluation and tracker are given.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from dsts_ray.data.batch import ClipBatch, select
from dsts_ray.errors import DataError, DivergedError
from dsts_ray.metrics.specialization import entropy
from dsts_ray.tracking.base import Tracker
from dsts_ray.train.collective import gather_objects, gather_rows, sum_over_workers
from dsts_ray.train.context import Notice, RunContext
from dsts_ray.train.ledger import Ledger, NonFiniteStep
from dsts_ray.train.plan import Plan
from dsts_ray.train.samples import SampleRecord
from dsts_ray.train.step import StepResult, TrainingStep

MAX_SKIPPED_IN_A_ROW = 10
"""Steps that are skipped one after the other until the run ends: not single videos are at fault."""

WriteCheckpoint = Callable[[int, dict[str, float]], Callable[[Path], None]]
"""From next step and metrics to what writes them into a folder."""


@dataclass
class TrainingLoop:
    """Runs a training from ``first_step`` to the plan's end.

    Attributes:
        context: Rank, reports, progress.
        plan: Length and evaluations.
        step: One optimizer step.
        stream: This worker's micro-batches, from ``first_step`` on, one joined batch more than
            there are steps.
        accumulation_steps: Micro-batches of one step.
        evaluate: Metrics of the validation split, called on all workers.
        write: Copies a checkpoint of the next step and these metrics into memory, on all workers;
            returns what writes the copy into a folder on rank 0, while training goes on.
        learning_rates: (downstream, upstream) at a share of the run done.
        tracker: Takes the metrics.
        max_bad_ratio: Share of an epoch's clips that may be refused.
        held_out_ratio: Share of the next joined batch that is held out, its first rows.
        stops_on_nonfinite_loss: Or skips the step.
        ledger: Of the run until ``first_step``.
        record: Takes down the clips of every step.
        was_stopped: The run was asked to stop, before its end.
    """

    context: RunContext
    plan: Plan
    step: TrainingStep
    stream: Iterator[ClipBatch]
    accumulation_steps: int
    evaluate: Callable[[], dict[str, float]]
    write: WriteCheckpoint
    learning_rates: Callable[[float], tuple[float, float]]
    tracker: Tracker
    max_bad_ratio: float
    held_out_ratio: float = 1.0
    stops_on_nonfinite_loss: bool = True
    ledger: Ledger = field(default_factory=Ledger)
    record: SampleRecord | None = None
    was_stopped: bool = field(default=False, init=False)
    _chosen: Tensor | None = None

    def run(self, first_step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Train; returns the last step's and the last evaluation's metrics.

        Args:
            first_step: Where to begin; nothing happens if it is the plan's last step or later.
            metrics: Of the steps before.

        Raises:
            DataError: More of an epoch's clips were refused than ``max_bad_ratio`` allows.
            DivergedError: A loss or gradient is NaN or infinite, and the run stops there, or has
                skipped too many steps in a row.
        """
        metrics = dict(metrics)
        if first_step >= self.plan.num_steps:
            return metrics
        ahead = self._take()
        for step in range(first_step, self.plan.num_steps):
            started = time.perf_counter()
            train, ahead = ahead, self._take()
            waited = time.perf_counter() - started
            lr, upstream_lr = self.learning_rates(step / self.plan.num_steps)
            held_out = self._held_out(step, train, ahead)
            result = self.step(step, train, held_out, lr=lr, upstream_lr=upstream_lr)
            self._check_finite(step, train, held_out, result)
            self._account(train, result)
            if self.record:
                self.record.add(step, train)
            elapsed = time.perf_counter() - started
            self.ledger.training_s += elapsed
            self.ledger.waiting_s += waited
            self.ledger.num_clips += result.num_clips
            metrics |= {} if result.was_skipped else result.metrics
            timings = {"time/step_s": elapsed, "time/data_wait_s": waited}
            self._log({**result.metrics, **timings}, step)
            self._show(step, result.loss)
            notice = self.context.notice()
            if self.plan.ends_epoch(step):
                self._end_epoch(step)
            if self.plan.evaluates_after(step):
                evaluation = self.evaluate()
                logged = {"logged_ms": self._log(evaluation, step)}
                metrics |= evaluation
                report = {**metrics, **logged, "step": step + 1}
                self._save(step, report, metrics)
            elif notice or self.plan.saves_after(step):
                # without an evaluation's metrics, it is not the best
                self._save(step, {"step": step + 1}, metrics)
            if notice is Notice.STOP and step + 1 < self.plan.num_steps:
                self.was_stopped = True
                break
        return metrics

    def _save(self, step: int, report: Mapping[str, float], metrics: dict[str, float]) -> None:
        started = time.perf_counter()
        self.context.report(report, self.write(step + 1, dict(metrics)))
        elapsed = time.perf_counter() - started
        self.ledger.checkpoint_s += elapsed
        self._log({"time/checkpoint_s": elapsed}, step)

    def _log(self, metrics: Mapping[str, float], step: int) -> int:
        """Log metrics of a step; returns the timestamp they are stored under."""
        started = time.perf_counter()
        timestamp = self.tracker.log_metrics(metrics, step=step)
        self.ledger.tracking_s += time.perf_counter() - started
        return timestamp

    def all_refused(self) -> dict[int, str]:
        """Reasons of the videos refused so far, by sample id; called on all workers."""
        refused: dict[int, str] = {}
        for own in gather_objects(self.ledger.refused):
            refused = own | refused
        return dict(sorted(refused.items()))

    def _take(self) -> list[ClipBatch]:
        return list(islice(self.stream, self.accumulation_steps))

    def _held_out(
        self, step: int, train: list[ClipBatch], ahead: list[ClipBatch]
    ) -> list[ClipBatch]:
        """The next joined batch, or its first rows.

        Clips that are also in this batch (two epochs meet) are left out.
        """
        if self.held_out_ratio < 1.0:
            num_rows = self.held_out_ratio * self.plan.batch_size
            ahead = [select(batch, batch.positions < num_rows) for batch in ahead]
        if self.plan.epoch_after(step + 1) == self.plan.epoch_after(step - 1):
            return ahead
        seen = gather_rows(torch.cat([batch.sample_ids for batch in train]))
        return [select(batch, ~torch.isin(batch.sample_ids, seen)) for batch in ahead]

    def _check_finite(
        self, step: int, train: list[ClipBatch], held_out: list[ClipBatch], result: StepResult
    ) -> None:
        """Take down a step whose loss or gradient is not finite, alike on all workers."""
        if math.isfinite(result.loss) and not result.was_skipped:
            return
        self.ledger.nonfinite.append(
            NonFiniteStep(step, result.loss, _samples_of(train), _samples_of(held_out))
        )
        skipped = [entry.step for entry in self.ledger.nonfinite]
        self._log({"train/num_skipped": len(skipped)}, step)
        in_a_row = skipped[-MAX_SKIPPED_IN_A_ROW:] == list(
            range(step - MAX_SKIPPED_IN_A_ROW + 1, step + 1)
        )
        if self.stops_on_nonfinite_loss or in_a_row or not result.was_skipped:
            what = f"the loss or gradient of step {step + 1} is not finite (loss {result.loss})"
            if in_a_row:
                what += f", and so were those of the {MAX_SKIPPED_IN_A_ROW - 1} steps before"
            raise DivergedError(what, step=step, loss=result.loss)

    def _account(self, train: list[ClipBatch], result: StepResult) -> None:
        for sample_id, reason in (pair for batch in train for pair in batch.refused):
            self.ledger.refused.setdefault(sample_id, reason)
        self.ledger.num_refused += result.num_refused
        allowed = self.max_bad_ratio * self.plan.num_clips
        if self.ledger.num_refused > allowed:
            reasons = "; ".join(islice(self.all_refused().values(), 3))
            raise DataError(
                f"{self.ledger.num_refused} of {self.plan.num_clips} training clips could not be "
                f"decoded in one epoch, data.max_bad_ratio={self.max_bad_ratio} allows "
                f"{int(allowed)}; repair the files (listed in the run's refused.parquet) or raise "
                f"it ({reasons})"
            )
        if result.chosen is not None:
            self._chosen = result.chosen if self._chosen is None else self._chosen + result.chosen

    def _end_epoch(self, step: int) -> None:
        metrics = {
            "train/epoch": float(self.plan.epoch_after(step)),
            "train/num_refused": float(self.ledger.num_refused),
        }
        metrics |= {
            "time/clips_per_s": self.ledger.clips_per_s,
            "time/data_wait_ratio": self.ledger.data_wait_ratio,
            "time/tracking_ratio": self.ledger.tracking_ratio,
        }
        if self._chosen is not None and self._chosen.shape[1] > 1:
            counts = sum_over_workers(self._chosen).double()
            for layer, shares in enumerate(counts / counts.sum(1, keepdim=True)):
                even = torch.log(shares.new_tensor(len(shares)))
                metrics[f"dsts/layer{layer}/train_utilization"] = entropy(shares) / float(even)
        self._log(metrics, step)
        self.ledger.num_refused, self._chosen = 0, None

    def _show(self, step: int, loss: float) -> None:
        self.context.show(
            {
                "step": step + 1,
                "num_steps": self.plan.num_steps,
                "epoch": self.plan.epoch_after(step),
                "loss": loss,
                "clips_per_s": self.ledger.clips_per_s,
            }
        )


def _samples_of(batches: list[ClipBatch]) -> list[int]:
    """Sample ids of all workers' clips that count."""
    ids = [batch.sample_ids[batch.weights > 0] for batch in batches]
    return sorted(gather_rows(torch.cat(ids)).tolist()) if ids else []
