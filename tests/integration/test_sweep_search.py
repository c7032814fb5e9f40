"""Drawn trials through real sweeps."""

import re
from pathlib import Path

import pytest

from dsts_ray.config.sweep import Range, load_sweep
from dsts_ray.report.record import FINISHED, STOPPED
from dsts_ray.report.results import read_sweep
from tests.support.jobs import Home, RunJob
from tests.support.tuning import tune

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1200)]
SPACE = load_sweep("search").space
TWO_AT_ONCE = ("scaling.num_workers=1", "data.cpus_per_decoder=0.25")


@pytest.mark.parametrize(("searcher", "scheduler"), [("random", "none"), ("optuna", "asha")])
def test_drawn_trials_are_trained_and_reported(
    tiny_runs: tuple[str, ...],
    tmp_path: Path,
    run_job: RunJob,
    searcher: str,
    scheduler: str,
) -> None:
    """The packaged ``search``, which draws neurons, too."""
    home = Home(tmp_path / "home")
    overrides = [text for text in tiny_runs if text.partition("=")[0] not in SPACE]
    options = ("--num-rows", "4", "--searcher", searcher, "--scheduler", scheduler)
    told = tune(home, "search", *options, *overrides, *TWO_AT_ONCE)
    assert told.returncode == 0, told.stdout + told.stderr
    uri = f"sqlite:///{home.work / 'runs' / 'mlflow.db'}"
    results = read_sweep("search", uri)
    assert len(results.record.trials) == len(results.runs) == 4
    ends = {FINISHED} | ({STOPPED} if scheduler == "asha" else set())
    assert {run.outcome for run in results.runs.values()} <= ends
    assert all(run.curve for run in results.runs.values())
    for row in results.rows:
        drawn = dict(re.findall(r"(\w+)=(\S+)", row))
        for key, allowed in SPACE.items():
            value = float(drawn[key.rpartition(".")[2]])
            if isinstance(allowed, Range):
                assert allowed.low <= value <= allowed.high
            else:
                assert value in allowed
    reported = run_job("report.py", "search", "--tracking-uri", uri)
    assert reported.code == 0, reported.err
    text = Path("runs/reports/search/report.md").read_text()
    finished = sum(run.outcome == FINISHED for run in results.runs.values())
    assert f"{finished} of 4 runs finished" in text
    assert all(f"| {row} |" in text for row in results.rows)
