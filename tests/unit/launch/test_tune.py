"""What a sweep asks of Ray Tune, without a cluster."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.errors import ConfigError
from dsts_ray.launch.lock import locked
from dsts_ray.launch.tune import run_sweep, scheduler
from tests.support.sweeps import begin_sweep


@pytest.mark.parametrize("name", ["asha", "median"])
def test_no_scheduler_pauses_a_trial_while_another_waits(name: str) -> None:
    judge = scheduler(plan_sweep(load_sweep("lr", scheduler=name)), first=4, longest=8)
    trial, waiting = (Trial("trial", stub=True) for _ in range(2))
    assert waiting.status == Trial.PENDING
    controller: Any = SimpleNamespace(get_live_trials=lambda: [trial, waiting])
    for added in (trial, waiting):
        judge.on_trial_add(controller, added)
    decision = judge.on_trial_result(controller, trial, {"step": 4, "val/top1": 0.5})
    assert decision == TrialScheduler.CONTINUE


def test_a_sweep_that_another_process_runs_is_not_run_beside_it(tmp_path: Path) -> None:
    sweep = begin_sweep(tmp_path)
    places = [f"storage.path={tmp_path}", f"tracking.uri={sweep.uri}"]
    plan = plan_sweep(load_sweep(sweep.file), [*sweep.plan.overrides, *places])
    running = pytest.raises(ConfigError, match=f"{plan.name} runs in another process")
    with locked(tmp_path / ".locks" / plan.name), running:
        run_sweep(plan, Console(quiet=True), resume=False)
    with pytest.raises(ConfigError, match=r"was started before.* give --resume"):
        run_sweep(plan, Console(quiet=True), resume=False)
