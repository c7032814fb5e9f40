"""Figures of evaluations in a real store."""

import io
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from dsts_ray.launch.figures import FigureLog
from dsts_ray.tracking.mlflow import open_run
from dsts_ray.train.plan import Plan
from tests.support.explanation import PREDICTED, SPATIAL_RATIOS, predictions
from tests.support.store import new_store

PLAN = Plan(num_clips=8, batch_size=4, num_epochs=5)


@pytest.fixture
def store(tmp_path: Path) -> tuple[str, str]:
    """Its address, and a run in it."""
    uri = new_store(tmp_path)
    names = {"experiment": "tests", "run_name": "drawn", "artifact_root": None}
    return uri, open_run(uri=uri, **names, params={}, tags={})


def drawn(store: tuple[str, str], every: int) -> list[str]:
    uri, run_id = store
    figures = FigureLog(uri=uri, run_id=run_id, plan=PLAN, every=every)
    for epoch in range(1, 6):
        figures.add(predictions(PREDICTED), SPATIAL_RATIOS, next_step=2 * epoch)
    assert figures.close() == []
    return [Path(f.path).name for f in MlflowClient(uri).list_artifacts(run_id, "figures")]


def test_every_other_evaluation_and_the_last_one(store: tuple[str, str]) -> None:
    assert drawn(store, 2) == ["step-000000004", "step-000000008", "step-000000010"]
    uri, run_id = store
    files = MlflowClient(uri).list_artifacts(run_id, "figures/step-000000010")
    names = {Path(file.path).stem for file in files}
    assert {"gates_layer0", "use", "classes_layer0", "confusion"} <= names
    content = MlflowClient(uri).download_artifacts(run_id, "figures/step-000000010/use.png")
    assert Image.open(io.BytesIO(Path(content).read_bytes())).size > (400, 200)


def test_no_figures(store: tuple[str, str]) -> None:
    assert drawn(store, 0) == []


def test_what_the_store_does_not_take_is_told(store: tuple[str, str]) -> None:
    figures = FigureLog(uri=store[0], run_id="0" * 32, plan=PLAN, every=1)
    figures.add(predictions(PREDICTED), SPATIAL_RATIOS, next_step=2)
    (reason,) = figures.close()
    assert reason.startswith("figures of step 2: ")


def test_what_cannot_be_drawn_is_told(
    store: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    uri, run_id = store
    figures = FigureLog(uri=uri, run_id=run_id, plan=PLAN, every=1)
    for step in (2, 4):
        figures.add(predictions(PREDICTED), SPATIAL_RATIOS, next_step=step)
    reasons = figures.close()
    assert [reason.partition("(2,")[0] for reason in reasons] == [
        f"figures of step {step}: FileNotFoundError" for step in (2, 4)
    ]
