"""What the board tells of trials that fail, without a cluster."""

from pathlib import Path

import pytest
from ray.tune.experiment import Trial
from rich.console import Console

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.launch import trial_board
from dsts_ray.launch.trial import TRIAL_KEY, SweepJob
from dsts_ray.launch.trial_board import RUNNING, TrialBoard
from dsts_ray.report.record import FAILED


def test_a_failed_trial_is_retried_then_marked_and_gives_back_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = SweepJob(plan_sweep(load_sweep("lr")), tmp_path, "uri", "parent")
    name = job.plan.trials[0].name
    trial = Trial("run_trial", stub=True, config={TRIAL_KEY: name})
    released: list[str] = []
    monkeypatch.setattr(trial_board, "release", released.append)
    changes: list[tuple[str, str]] = []
    board = TrialBoard(
        Console(width=200),
        job,
        "val/top1",
        job.plan.num_runs,
        lambda state, parameters: changes.append((parameters[TRIAL_KEY], state.outcome)),
    )
    board.on_trial_start(0, [], trial)
    board.on_trial_result(0, [], trial, {"step": 4, "val/top1": 0.25, "train/loss": 1.0})
    board.on_trial_recover(0, [], trial)
    board.on_trial_start(0, [], trial)
    board.on_trial_error(0, [], trial)
    told = [line.partition("): ")[2] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "starts",
        "step 4: val/top1 0.2500",
        "will be retried: it died without a word",
        "retry 1",
        "failed it died without a word",
    ]
    assert released == [f"parent/{name}"] * 2
    assert changes == [(name, RUNNING), (name, RUNNING), (name, FAILED)]
    (state,) = board.states.values()
    assert (state.step, state.num_retries) == (4, 1)
