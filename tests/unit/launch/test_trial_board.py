"""What the board tells of trials, without a cluster."""

import re
from io import StringIO
from pathlib import Path

import pytest
from ray.tune.experiment import Trial
from rich.console import Console

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.launch import trial_board
from dsts_ray.launch.trial import TRIAL_KEY, SweepJob
from dsts_ray.launch.trial_board import RUNNING, TrialBoard
from dsts_ray.report.record import FAILED, FINISHED


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


def test_the_live_table_says_how_each_trial_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, while they run; a row's name is text, be it in brackets."""
    (tmp_path / "mine.yaml").write_text("title: T\nrows:\n  '[x]': {}\n  b: {dsts.skip: false}")
    job = SweepJob(plan_sweep(load_sweep(str(tmp_path / "mine.yaml"))), tmp_path, "uri", "parent")
    first, second = (
        Trial("run_trial", stub=True, config={TRIAL_KEY: trial.name}) for trial in job.plan.trials
    )
    monkeypatch.setattr(trial_board, "release", lambda lease: None)
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=120, no_color=True)
    board = TrialBoard(console, job, "val/top1", 2, lambda state, parameters: None)

    def drawn() -> list[list[str]]:
        out.truncate(out.seek(0))
        board._live.refresh()
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()
        told.append(next(line.strip() for line in lines if "to come" in line))
        return [[cell.strip() for cell in line.split("│")[1:-2]] for line in lines if "│" in line]

    told: list[str] = []
    one, other = (trial.name for trial in job.plan.trials)
    with board:
        board.on_trial_start(0, [], first)
        assert drawn() == [["[x]", "0", one, RUNNING, "0", ""]]
        board.on_trial_result(0, [], first, {"step": 4, "val/top1": 0.25, "train/loss": 1.0})
        board.on_trial_start(0, [], second)
        assert drawn() == [
            ["[x]", "0", one, RUNNING, "4", "0.2500"],
            ["b", "0", other, RUNNING, "0", ""],
        ]
        result = {"step": 8, "val/top1": 0.5, "outcome": FINISHED}
        board.on_trial_result(0, [], first, result)
        board.on_trial_complete(0, [], first)
        board.on_trial_error(0, [], second)
        assert drawn() == [
            ["[x]", "0", one, FINISHED, "8", "0.5000"],
            ["b", "0", other, FAILED, "0", ""],
        ]
    assert told == [
        "1 running, 1 to come",
        "2 running, 0 to come",
        "1 finished, 1 failed, 0 to come",
    ]
