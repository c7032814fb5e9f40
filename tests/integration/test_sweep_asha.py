"""What early stopping saves, on demo data from which a tiny model learns within an epoch."""

from pathlib import Path

import pytest

from dsts_ray.report.record import FINISHED, STOPPED
from dsts_ray.report.results import SweepResults, read_sweep
from dsts_ray.tracking.search import metric_history
from tests.support.jobs import Home
from tests.support.tuning import tune

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1200)]
RATES = """
title: Learning rates from good to useless
preset: demo
space:
  optim.lr: [0.003, 1.0e-5, 1.0e-6]
"""
LEARNS = (
    "data.demo.num_classes=3",
    "data.demo.num_train_clips=150",
    "data.demo.num_test_clips=60",
    "data.demo.min_frames=16",
    "data.demo.max_frames=24",
    "dsts.enabled=false",
    "udl.enabled=false",
    "optim.warmup_epochs=0.2",
    "train.batch_size=10",
    "train.num_epochs=3",
    "train.evaluate_every_epochs=1",
    "tracking.figures_every=0",
    "scaling.num_workers=1",
)
"""The plain backbone learns three classes within an epoch; one run at a time on two CPUs."""


def rates(home: Home, scheduler: str) -> tuple[SweepResults, int]:
    """Try the rates in a storage folder of their own; returns results and steps trained in all."""
    (home.work / "rates.yaml").write_text(RATES)
    told = tune(home, "rates.yaml", "--scheduler", scheduler, *LEARNS)
    assert told.returncode == 0, told.stdout + told.stderr
    uri = f"sqlite:///{home.work / 'runs' / 'mlflow.db'}"
    results = read_sweep("rates", uri)
    histories = [
        metric_history(uri=uri, run_id=run.run_id, key="train/loss")
        for run in results.runs.values()
    ]
    return results, sum(history[-1][0] + 1 for history in histories)


def test_asha_reaches_the_best_of_a_grid_with_fewer_steps(tmp_path: Path) -> None:
    grid, all_steps = rates(Home(tmp_path / "grid"), "none")
    halved, steps = rates(Home(tmp_path / "asha"), "asha")
    best = {row: max(value for _, value in grid.of_row(row)[0].curve) for row in grid.rows}
    good, *useless = grid.rows
    assert best[good] > max(best[row] for row in useless) + 0.1
    assert {row: halved.of_row(row)[0].outcome for row in halved.rows} == {
        good: FINISHED,
        **dict.fromkeys(useless, STOPPED),
    }
    assert halved.of_row(good)[0].curve == grid.of_row(good)[0].curve
    assert [len(halved.of_row(row)[0].curve) for row in halved.rows] == [3, 1, 1]
    assert steps < all_steps == 3 * 45
