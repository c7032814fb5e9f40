"""Sweeps in an MLflow store whose runs are written by hand."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import SweepPlan, plan_sweep
from dsts_ray.report.record import SweepRecord, new_record, sweep_tags, write_record
from dsts_ray.report.results import RUN_ARTIFACT, SUMMARY_FILE
from dsts_ray.tracking.mlflow import MLflowTracker, finish_run, log_artifacts, open_run
from dsts_ray.train.evaluate import Predictions
from dsts_ray.train.predictions import PREDICTIONS_FILE, SavedPredictions, write_predictions
from tests.support.predictions import SETUP
from tests.support.store import new_store

SWEEP = """
title: Written by hand
preset: demo
seeds: [0, 1]
rows:
  whole: {}
  w/o UDL: {udl.enabled: false}
  lost: {dsts.skip: false}
baseline: whole
source: nowhere
paper:
  whole: {val/top1: 0.884}
  w/o UDL: {val/top1: 0.874, val/mean_class_accuracy: 0.767}
"""


@dataclass(frozen=True)
class WrittenSweep:
    """A sweep in a store of its own."""

    uri: str
    file: str
    plan: SweepPlan
    record: SweepRecord
    run_id: str

    def run(self, row: str, seed: int) -> str:
        """Name of a row's run."""
        (trial,) = (t for t in self.plan.trials if (t.row, t.seed) == (row, seed))
        return trial.name

    def end(self, row: str, seed: int, outcome: str, reason: str = "") -> None:
        """Note how a run ended."""
        self.record.outcomes[self.run(row, seed)] = (outcome, reason)
        write_record(self.record, uri=self.uri, run_id=self.run_id)


def begin_sweep(folder: Path, uri: str = "", **changes: object) -> WrittenSweep:
    """A sweep of which nothing has run, in a new store or a given one."""
    file, uri = folder / "hand.yaml", uri or new_store(folder)
    file.write_text(SWEEP)
    plan = plan_sweep(load_sweep(str(file), **changes), ["optim.lr=0.5"])
    run_id = open_run(
        uri=uri,
        experiment="dsts_ray",
        run_name=plan.name,
        artifact_root=None,
        params={},
        tags=sweep_tags(plan),
    )
    record = new_record(plan)
    write_record(record, uri=uri, run_id=run_id)
    return WrittenSweep(uri, str(file), plan, record, run_id)


def write_run(
    uri: str,
    name: str,
    right: Sequence[bool] | None,
    top1: float,
    curve: Sequence[float] = (),
    **values: float,
) -> str:
    """A finished run, with what it predicted of as many videos as ``right`` has entries.

    Returns:
        Its id.
    """
    run_id = open_run(
        uri=uri, experiment="dsts_ray", run_name=name, artifact_root=None, params={}, tags={}
    )
    tracker = MLflowTracker(uri=uri, run_id=run_id, flush_s=0.01)
    for step, value in enumerate(curve):
        tracker.log_metrics({"val/top1": value}, step=step)
    tracker.close()
    summary: Mapping[str, float] = {
        "val/top1": top1,
        "best/val/top1": top1,
        "val/mean_class_accuracy": top1,
        "num_parameters": 1.5e6,
        "num_auxiliary_parameters": 0.5e6,
        "wall_s": 60.0,
        "time/inference_view_s": 0.004,
        **values,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / SUMMARY_FILE).write_text(json.dumps(summary))
        if right is not None:
            write_predictions(predictions(right), Path(folder) / PREDICTIONS_FILE)
        log_artifacts(uri=uri, run_id=run_id, directory=Path(folder), artifact_path=RUN_ARTIFACT)
    finish_run(uri=uri, run_id=run_id, status="FINISHED")
    time.sleep(0.002)  # runs are told apart by their start in milliseconds
    return run_id


def predictions(right: Sequence[bool]) -> SavedPredictions:
    """Predictions of videos of three classes in turn, right or wrong as told."""
    labels = torch.arange(len(right)) % 3
    wrong = torch.from_numpy(~np.array(right))
    rows = Predictions(
        labels=labels,
        probabilities=torch.eye(3)[(labels + wrong.long()) % 3],
        views_seen=torch.ones(len(right), dtype=torch.int64),
        chosen=torch.zeros(len(right), 1, 0, dtype=torch.int64),
        refused={},
    )
    return SavedPredictions(
        setup=replace(SETUP, num_videos=len(right)),
        classes=("x", "y", "z"),
        num_neurons=1,
        video_ids=tuple(f"v{video}" for video in range(len(right))),
        predictions=rows,
    )
