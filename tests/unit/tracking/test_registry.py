import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import mlflow
import pytest

from dsts_ray.errors import TrackingError
from dsts_ray.tracking import registry
from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.mlflow import open_run
from dsts_ray.tracking.registry import find_version, promote_if_better, resolve_model

Register = Callable[[str, Mapping[str, float]], str]


@pytest.fixture(autouse=True)
def _global_address_stays() -> Iterator[None]:
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    yield
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == before


def test_version_carries_metrics_in_full_precision_and_no_pickle(
    uri: str, run_id: str, register: Register
) -> None:
    top1 = 0.1 + 0.2
    assert register("plain", {"val/top1": top1}) == "1"
    assert register("plain", {"val/top1": 0.1}) == "2"

    version = connect(uri).get_model_version("plain", "1")
    assert float(version.tags["val/top1"]) == top1
    assert version.tags["protocol"] == "4x3 views"
    assert version.run_id == run_id
    location = connect(uri).get_model_version_download_uri("plain", "1")
    stored = Path(location.removeprefix("file://"))
    files = {path.name for path in stored.rglob("*")}
    assert {"MLmodel", "config.yaml", "model.safetensors", "model_script.py"} <= files
    assert {"input_example.json", "requirements.txt"} <= files
    assert not [name for name in files if name.endswith((".pkl", ".pickle"))]


@pytest.mark.parametrize("damage", ["metric name", "model script", "artifact store", "run"])
def test_failed_registration_leaves_nothing(
    uri: str, model_folder: Path, tmp_path: Path, damage: str
) -> None:
    name = f"failed {damage}"
    root = tmp_path / "artifacts"
    run_id = open_run(
        uri=uri,
        experiment=name,
        run_name="run",
        artifact_root=str(root),
        params={},
        tags={},
    )
    if damage == "model script":
        (model_folder / "model_script.py").write_text("raise RuntimeError('broken')")
    if damage == "artifact store":
        root.write_text("a file where the folder should be")
    with pytest.raises(TrackingError, match="did not register a version"):
        registry.register_model(
            uri=uri,
            run_id="0" * 32 if damage == "run" else run_id,
            name=name,
            model_script=model_folder / "model_script.py",
            artifacts={"config": model_folder / "config.yaml"},
            code_paths=[],
            example=b"\x01",
            pip_requirements=["mlflow"],
            metrics={"val/top1?!" if damage == "metric name" else "val/top1": 0.5},
            tags={},
        )
    client = connect(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert not client.search_registered_models(f"name = '{name}'")
    assert not client.search_logged_models([experiment.experiment_id])


def test_failed_registration_spares_earlier_versions(uri: str, register: Register) -> None:
    register("spared", {"val/top1": 0.5})
    with pytest.raises(TrackingError):
        register("spared", {"?!": 0.5})
    found = connect(uri).search_model_versions("name = 'spared'")
    assert [str(version.version) for version in found] == ["1"]


def test_a_runs_version_is_found_by_its_tags(uri: str, run_id: str, register: Register) -> None:
    for top1 in (0.5, 0.6):
        register("found", {"val/top1": top1})

    def find(run_id: str, **tags: str) -> str | None:
        return find_version(uri=uri, name="found", run_id=run_id, tags=tags)

    assert find(run_id) == "2"
    assert find(run_id, protocol="4x3 views", **{"val/top1": "0.5"}) == "1"
    assert find(run_id, protocol="1x1") is None
    assert find("another") is None
    assert find_version(uri=uri, name="nobody", run_id=run_id, tags={}) is None


def test_champion_moves_only_for_a_strictly_better_version(uri: str, register: Register) -> None:
    for top1 in (0.5, 0.4, 0.5, 0.6, float("nan"), 0.7):
        register("judged", {"val/top1": top1})

    def promote(version: str) -> tuple[bool, str | None]:
        outcome = promote_if_better(
            uri=uri, name="judged", version=version, metric="val/top1", mode="max"
        )
        assert (outcome.name, outcome.version) == ("judged", version)
        return outcome.is_champion, outcome.previous

    assert promote("5") == (False, None)
    assert promote("1") == (True, None)
    assert promote("1") == (True, None)
    assert promote("2") == (False, None)
    assert promote("3") == (False, None)
    assert promote("5") == (False, None)
    assert promote("4") == (True, "1")
    assert promote("6") == (True, "4")
    aliases = connect(uri).get_registered_model("judged").aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {
        "champion": "6",
        "previous": "4",
    }


def test_champion_stays_where_the_new_version_was_measured_on_something_else(
    uri: str, register: Register
) -> None:
    for top1 in (0.5, 0.6, 0.7, 0.8):
        register("compared", {"val/top1": top1})
    client = connect(uri)
    client.set_model_version_tag("compared", "2", "split", "val")
    client.set_model_version_tag("compared", "4", "protocol", "1x1")

    def promote(version: str) -> tuple[bool, str]:
        outcome = promote_if_better(
            uri=uri,
            name="compared",
            version=version,
            metric="val/top1",
            mode="max",
            alike=("split", "protocol"),
        )
        return outcome.is_champion, outcome.incomparable

    assert promote("1") == (True, "")
    assert promote("2") == (False, "split val, the champion's is unknown")
    assert promote("3") == (True, "")
    assert promote("4") == (False, "protocol 1x1, the champion's is 4x3 views")


def test_lock_of_a_promotion_that_died_is_removed(
    uri: str, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register("locked", {"val/top1": 0.5})
    client = connect(uri)
    client.set_registered_model_tag("locked", f"{registry.LOCK_TAG}.dead", "")
    monkeypatch.setattr(registry, "LOCK_LIFETIME_S", 0.3)
    started = time.monotonic()
    outcome = promote_if_better(
        uri=uri, name="locked", version=version, metric="val/top1", mode="max"
    )
    assert outcome.is_champion
    assert time.monotonic() - started > 0.3
    assert not client.get_registered_model("locked").tags


def test_smaller_is_better_when_declared(uri: str, register: Register) -> None:
    for loss in (0.5, 0.6, 0.4):
        register("loss", {"val/loss": loss})
    outcomes = [
        promote_if_better(uri=uri, name="loss", version=v, metric="val/loss", mode="min")
        for v in ("1", "2", "3")
    ]
    assert [outcome.is_champion for outcome in outcomes] == [True, False, True]


def test_promotion_needs_the_metric_and_the_version(uri: str, register: Register) -> None:
    register("tagged", {"val/top1": 0.5})
    for version, metric, message in [
        ("1", "val/top5", r"no number under the tag 'val/top5'; its tags: protocol, val/top1"),
        ("1", "protocol", "no number under the tag 'protocol'"),
        ("9", "val/top1", r"there is no models:/tagged/9.*models:/tagged/1"),
    ]:
        with pytest.raises(TrackingError, match=message):
            promote_if_better(uri=uri, name="tagged", version=version, metric=metric, mode="max")
    assert not connect(uri).get_registered_model("tagged").aliases


def test_resolve_by_alias_version_and_folder(
    uri: str, run_id: str, register: Register, model_folder: Path, tmp_path: Path
) -> None:
    register("resolved", {"val/top1": 0.5})
    promote_if_better(uri=uri, name="resolved", version="1", metric="val/top1", mode="max")
    cache = tmp_path / "cache"
    found = resolve_model(uri=uri, model="models:/resolved@champion", cache_dir=cache)
    assert (found.name, found.version, found.run_id) == ("resolved", "1", run_id)
    assert found.tags["val/top1"] == "0.5"
    assert (found.directory / "config.yaml").read_text() == "0.5"
    assert (found.directory / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in cache.iterdir()] == [found.directory.name]

    temporary = resolve_model(uri=uri, model="models:/resolved/1", cache_dir=None)
    assert temporary.directory != found.directory
    assert (temporary.directory / "config.yaml").read_text() == "0.5"
    shutil.rmtree(temporary.directory)

    location = connect(uri).get_model_version_download_uri("resolved", "1")
    shutil.rmtree(location.removeprefix("file://"))
    assert resolve_model(uri=uri, model="models:/resolved/1", cache_dir=cache) == found

    plain = resolve_model(uri="unused", model=str(model_folder), cache_dir=None)
    assert plain == (model_folder, None, None, None, {})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/listed@challenger", r"there is: .*models:/listed@champion \(version 1\)"),
        ("models:/listed/12", r"there is no models:/listed/12.*models:/listed/1"),
        ("models:/nobody@champion", r"there is no models:/nobody@champion.*models:/listed/1"),
        ("models:/listed", r"allowed: models:/NAME@ALIAS"),
        ("models:/../listed/1", r"allowed: models:/NAME@ALIAS"),
    ],
)
def test_what_cannot_be_resolved_is_named(
    uri: str, register: Register, model: str, message: str
) -> None:
    register("listed", {"val/top1": 0.5})
    promote_if_better(uri=uri, name="listed", version="1", metric="val/top1", mode="max")
    with pytest.raises(TrackingError, match=message):
        resolve_model(uri=uri, model=model, cache_dir=None)


def test_folder_without_the_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(TrackingError, match=r"lacks model\.safetensors"):
        resolve_model(uri="unused", model=str(tmp_path), cache_dir=None)
