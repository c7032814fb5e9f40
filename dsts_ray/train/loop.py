"""The training loop of a worker.

It knows no Ray: context, stream, step, evaluation and tracker are given.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from dsts_ray.data.batch import ClipBatch, select
from dsts_ray.errors import DataError
from dsts_ray.metrics.specialization import entropy
from dsts_ray.tracking.base import Tracker
from dsts_ray.train.collective import gather_objects, gather_rows, sum_over_workers
from dsts_ray.train.context import RunContext
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.plan import Plan
from dsts_ray.train.samples import SampleRecord
from dsts_ray.train.step import StepResult, TrainingStep

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
        ledger: Of the run until ``first_step``.
        record: Takes down the clips of every step.
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
    ledger: Ledger = field(default_factory=Ledger)
    record: SampleRecord | None = None
    _chosen: Tensor | None = None

    def run(self, first_step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Train; returns the last step's and the last evaluation's metrics.

        Args:
            first_step: Where to begin; nothing happens if it is the plan's last step or later.
            metrics: Of the steps before.

        Raises:
            DataError: More of an epoch's clips were refused than ``max_bad_ratio`` allows.
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
            result = self.step(
                step, train, self._held_out(step, train, ahead), lr=lr, upstream_lr=upstream_lr
            )
            self._account(train, result)
            if self.record:
                self.record.add(step, train)
            elapsed = time.perf_counter() - started
            self.ledger.training_s += elapsed
            self.ledger.waiting_s += waited
            self.ledger.num_clips += result.num_clips
            metrics |= result.metrics
            timings = {"time/step_s": elapsed, "time/data_wait_s": waited}
            self.tracker.log_metrics({**result.metrics, **timings}, step=step)
            self._show(step, result.loss)
            if self.plan.ends_epoch(step):
                self._end_epoch(step)
            if self.plan.evaluates_after(step):
                evaluation = self.evaluate()
                logged = {"logged_ms": self.tracker.log_metrics(evaluation, step=step)}
                metrics |= evaluation
                report = {**metrics, **logged, "step": step + 1}
                self._save(step, report, metrics)
            elif self.plan.saves_after(step):  # without an evaluation's metrics, it is not the best
                self._save(step, {"step": step + 1}, metrics)
        return metrics

    def _save(self, step: int, report: Mapping[str, float], metrics: dict[str, float]) -> None:
        started = time.perf_counter()
        self.context.report(report, self.write(step + 1, dict(metrics)))
        elapsed = time.perf_counter() - started
        self.ledger.checkpoint_s += elapsed
        self.tracker.log_metrics({"time/checkpoint_s": elapsed}, step=step)

    def all_refused(self) -> list[tuple[int, str]]:
        """(sample id, reason) of the clips refused so far; called on all workers."""
        return sorted({pair for pairs in gather_objects(self.ledger.refused) for pair in pairs})

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

    def _account(self, train: list[ClipBatch], result: StepResult) -> None:
        self.ledger.refused += [pair for batch in train for pair in batch.refused]
        self.ledger.num_refused += result.num_refused
        allowed = self.max_bad_ratio * self.plan.num_clips
        if self.ledger.num_refused > allowed:
            reasons = "; ".join(reason for _, reason in self.all_refused()[:3])
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
        }
        if self._chosen is not None and self._chosen.shape[1] > 1:
            counts = sum_over_workers(self._chosen).double()
            for layer, shares in enumerate(counts / counts.sum(1, keepdim=True)):
                even = torch.log(shares.new_tensor(len(shares)))
                metrics[f"dsts/layer{layer}/train_utilization"] = entropy(shares) / float(even)
        self.tracker.log_metrics(metrics, step=step)
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
