"""What a trial makes of its run, without a cluster."""

from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.integration import ray_train

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.launch.trial import TRIAL_KEY, EarlierReports, SweepJob


def test_a_trials_configuration_means_the_same_on_every_node(tmp_path: Path) -> None:
    overrides = ["data.manifest=here.parquet", "storage.path=there", "model.weights=a.pth"]
    plan = plan_sweep(load_sweep("table5", preset="demo", seeds=[0]), overrides)
    job = SweepJob(plan, tmp_path, "http://127.0.0.1:5000", "parent")
    trial = plan.trials[1]
    assert job.trial({TRIAL_KEY: trial.name}) == trial
    config = job.placed(trial)
    assert config.name == trial.name
    assert Path(config.data.manifest).is_absolute()
    assert Path(config.model.weights).is_absolute()
    assert (config.storage.path, config.tracking.uri) == (str(tmp_path), "http://127.0.0.1:5000")


def test_a_drawn_trial_has_the_values_it_was_drawn_with(tmp_path: Path) -> None:
    plan = plan_sweep(load_sweep("search"))
    job = SweepJob(plan, tmp_path, "uri", "parent")
    trial = job.trial({"optim.lr": 0.00123456, "dsts.num_layers": 2})
    assert (trial.config.optim.lr, trial.config.dsts.num_layers) == (0.00123456, 2)
    assert trial.row == "lr=0.00123 num_layers=2"


def test_tune_is_told_of_evaluations_and_not_of_checkpoints_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: Queue[dict[str, Any]] = Queue()
    session = SimpleNamespace(_get_or_create_inter_actor_queue=lambda: told)
    monkeypatch.setattr(ray_train, "_in_tune_session", lambda: True)
    monkeypatch.setattr(ray_train, "get_session", lambda: session)
    reports = EarlierReports(8, "val/top1")
    run: Any = None
    for metrics in ({"step": 2}, {"step": 4, "val/top1": 0.5}, {"step": 8, "val/top1": 0.6}):
        reports.after_report(run, [metrics], None)
    assert list(told.queue) == [{"step": 4, "val/top1": 0.5}]
