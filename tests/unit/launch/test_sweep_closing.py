"""What a person reads when a sweep has ended."""

from io import StringIO

from rich.console import Console

from dsts_ray.launch.sweep_closing import print_sweep
from dsts_ray.launch.tune import SweepOutcome
from dsts_ray.report.record import DIVERGED, FAILED, SweepRecord, TrialRecord


def test_every_run_is_told_of_and_names_are_text() -> None:
    trials = [TrialRecord(row, 0, run) for row, run in (("[x]", "run-1"), ("b", "run-2"))]
    outcomes = {"run-1": (FAILED, "no file /data/[/y]"), "run-2": (DIVERGED, "")}
    record = SweepRecord("[z]", "T", "val/top1", "e", "demo", [], "", {}, {}, trials, outcomes)
    outcome = SweepOutcome("sweep-[z]-1", record, was_finished=True, uri="sqlite:////data/[v].db")
    out = StringIO()
    print_sweep(outcome, Console(file=out, width=160))
    text = out.getvalue()
    assert "sweep-[z]-1 is finished; its runs stay as they are" in text
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    assert [line for line in lines if line] == [
        ["[x]", "0", "run-1", FAILED, "no file /data/[/y]"],
        ["b", "0", "run-2", DIVERGED, ""],
    ]
    assert text.count("sweep-[z]-1\n") + text.count("sweep-[z]-1  ") >= 1  # the table's title
    assert "--from-sweep sweep-[z]-1 --tracking-uri 'sqlite:////data/[v].db'" in text
