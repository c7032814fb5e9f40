from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.errors import CheckpointError, TrackingError
from dsts_ray.launch.weights import check_weights, locate_weights, pinned_weights, print_weights
from dsts_ray.tracking.connection import connect
from dsts_ray.train.checkpoint import WEIGHTS_FILE
from tests.support.store import new_store
from tests.support.tiny import tiny_config
from tests.support.tpn_reference import ORIGINAL, Size, published_shapes, random_state

SIZE = Size(depths=(1, 1, 1, 1), width=4, channels=8, groups=2, num_classes=3)


def test_a_file_or_a_checkpoint_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / WEIGHTS_FILE).touch()
    locate = partial(locate_weights, uri="unused", cache=tmp_path / "models")
    assert locate("") is None
    assert locate(str(tmp_path)) == tmp_path / WEIGHTS_FILE
    monkeypatch.chdir(tmp_path)
    assert locate(WEIGHTS_FILE) == tmp_path / WEIGHTS_FILE
    with pytest.raises(CheckpointError, match=r"model.weights = absent.pth: there is no file"):
        locate("absent.pth")


def test_a_registered_model_is_fetched(tmp_path: Path) -> None:
    folder, uri = tmp_path / "artifacts" / "model" / "artifacts", new_store(tmp_path)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / WEIGHTS_FILE).write_bytes(b"weights")
    client = connect(uri)
    client.create_registered_model("m")
    client.create_model_version("m", source=folder.parent.as_uri(), await_creation_for=0)
    client.set_registered_model_alias("m", "champion", "1")
    found = locate_weights("models:/m@champion", uri=uri, cache=tmp_path / "models")
    assert found is not None
    assert found.is_relative_to(tmp_path / "models")
    assert found.read_bytes() == b"weights"
    with pytest.raises(TrackingError, match=r"there is no models:/m@best"):
        locate_weights("models:/m@best", uri=uri, cache=tmp_path / "models")


def test_a_sweep_starts_from_the_version_that_an_alias_means_when_it_begins(tmp_path: Path) -> None:
    uri = new_store(tmp_path)
    client = connect(uri)
    client.create_registered_model("m")
    for alias in ("previous", "champion"):
        version = client.create_model_version("m", source="file:///m", await_creation_for=0)
        client.set_registered_model_alias("m", alias, str(version.version))
    file = tmp_path / "mine.yaml"
    row = "{model.weights: 'models:/m@previous', dsts.skip: false}"
    file.write_text(f"title: T\nrows:\n  new: {{}}\n  old: {row}")
    overrides = ["optim.lr=0.5", "model.weights=models:/m@champion"]
    plan = plan_sweep(load_sweep(str(file)), overrides)
    pinned = pinned_weights(plan, uri=uri)
    weights = {trial.row: trial.config.model.weights for trial in pinned.trials}
    assert weights == {"new": "models:/m/2", "old": "models:/m/1"}
    assert {trial.config.optim.lr for trial in pinned.trials} == {0.5}
    client.set_registered_model_alias("m", "champion", "1")
    assert pinned_weights(plan, uri=uri).name != pinned.name
    assert pinned_weights(pinned, uri="unused") is pinned
    file.write_text("title: T\nspace: {model.weights: ['models:/m@champion', here.pth]}")
    drawn = pinned_weights(plan_sweep(load_sweep(str(file))), uri=uri)
    assert [t.config.model.weights for t in drawn.trials] == ["models:/m/1", "here.pth"]
    with pytest.raises(TrackingError, match=r"there is no models:/m@best"):
        pinned_weights(plan_sweep(plan.sweep, ["model.weights=models:/m@best"]), uri=uri)


def test_the_table_names_every_outcome_once_for_each_part(tmp_path: Path) -> None:
    path = tmp_path / "tpn.pth"
    torch.save({"state_dict": random_state(published_shapes(ORIGINAL, SIZE))}, path)
    config = tiny_config("dsts.insertion=res4", "model.backbone.tpn.geometry=stock")
    report = check_weights(config, 4, path)
    console = Console(file=StringIO(), width=160)
    print_weights(report, console)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    lines = [line.split("│")[1:-1] for line in text.splitlines() if "│" in line]
    rows = {tuple(cell.strip() for cell in line) for line in lines}
    size = sum(entry.size for entry in report.entries if ".trunk." in entry.name)
    num_trunk = sum(".trunk." in entry.name for entry in report.entries)
    assert ("loaded", "backbone.trunk", str(num_trunk), f"{size:,}", "") in rows
    assert (
        "skipped",
        "classifier.fc",
        "1",
        "48",
        "keeps its initial values: 3x16 in the file, 4x80 in the model",
    ) in rows
    assert any(row[:2] == ("missing", "classifier.dsts") for row in rows)
    assert "TPN (original)" in text
    assert text.count("shift_downsample = true") == 1
