"""What a sweep asks of Ray Tune, without a cluster."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.launch.tune import scheduler


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
