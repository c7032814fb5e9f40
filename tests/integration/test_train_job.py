"""Train, evaluate, predict, serve: the jobs a newcomer runs, each a process of its own."""

import json
import math
import sys
from pathlib import Path
from statistics import median

import pytest
from mlflow import MlflowClient

from dsts_ray.data.manifest import Manifest
from dsts_ray.launch.measurement import MEASURED_ON
from dsts_ray.tracking.mlflow import connect
from tests.support.jobs import REPOSITORY, Home, TrainedRun

GATE = "gates/layer1/neuron2_spatial_ratio"
CHAMPION = "models:/dsts_ray@champion"


@pytest.fixture
def client(trained: TrainedRun) -> MlflowClient:
    return connect(trained.tracking_uri)


def videos(trained: TrainedRun) -> list[Path]:
    return sorted((trained.manifest.parent / "rgb").glob("*.mp4"))


def test_a_run_ends_in_a_table_and_says_what_next(trained: TrainedRun) -> None:
    out = trained.process.stdout
    assert "error" not in trained.process.stderr.lower()
    for text in ("last training loss", "lower 95 % bound", "clips per second", "ln(classes)"):
        assert text in out
    for line in (
        f"run folder         {trained.folder}",
        "registered         models:/dsts_ray/1, now champion",
        f"mlflow ui --backend-store-uri {trained.tracking_uri}",
        f"python jobs/predict.py --model {CHAMPION} --tracking-uri {trained.tracking_uri} VIDEO...",
    ):
        assert line in out


def test_the_run_folder_holds_configuration_summary_and_checkpoints(trained: TrainedRun) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    files = {"config.yaml", "data.json", "summary.json", "refused.parquet", "nonfinite.json"}
    assert names == files | {"checkpoints", "samples"}
    assert json.loads((trained.folder / "nonfinite.json").read_text()) == []
    summary = trained.summary
    assert summary["num_classes"] == 4
    assert 0.0 <= summary["val/top1_low"] <= summary["val/top1"] <= 1.0
    assert math.isfinite(summary["train/loss_last"])
    assert 0 < summary["num_dsts_parameters"] < summary["num_parameters"]
    assert summary["clips_per_s"] > 0
    assert 0.0 <= summary["data_wait_ratio"] <= 1.0
    assert summary["wall_s"] > 0
    assert summary["refused"] == []
    assert (summary["registered_model"], summary["registered_version"]) == ("dsts_ray", "1")
    states = sorted(
        json.loads(path.read_text())["step"]
        for path in (trained.folder / "checkpoints").glob("*/state.json")
    )
    assert len(states) >= 2
    assert states[-1] == 12


def test_nothing_is_pickled(trained: TrainedRun) -> None:
    files = [path for path in trained.storage.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".pth")]


def test_mlflow_holds_metrics_parameters_and_versions(
    trained: TrainedRun, client: MlflowClient
) -> None:
    run = client.get_run(trained.summary["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["dsts.num_neurons"] == "3"
    assert {"version.python", "version.torch", "version.ray"} <= run.data.tags.keys()
    assert [key for key in run.data.metrics if key.startswith("system/")]

    def steps(key: str) -> list[int]:
        return [point.step for point in client.get_metric_history(run.info.run_id, key)]

    for key in ("train/loss", "time/data_wait_s", "udl/held_out_loss"):
        assert steps(key) == list(range(12)), key
    for key in ("val/top1", "train/epoch", "dsts/layer0/utilization", GATE):
        assert steps(key) == [3, 7, 11], key
    assert steps("time/checkpoint_s")[-1] == 11
    assert set(steps("time/checkpoint_s")) <= {2, 3, 5, 7, 8, 11}
    assert 0 < trained.summary["checkpoint_ratio"] < 0.5
    assert 0 < trained.summary["tracking_ratio"] < 0.01
    assert run.data.metrics["val/top1"] == trained.summary["val/top1"]


def test_figures_of_the_last_evaluation_are_artifacts(
    trained: TrainedRun, client: MlflowClient
) -> None:
    assert trained.summary["figures_lost"] == []
    (step,) = client.list_artifacts(trained.summary["mlflow_run_id"], "figures")
    assert step.path == "figures/step-000000012"
    found = client.list_artifacts(trained.summary["mlflow_run_id"], step.path)
    drawn = {Path(figure.path).name for figure in found}
    assert {"gates_layer1.png", "classes_layer0.png", "use.png", "confusion.png"} <= drawn


def test_upstream_learns_with_the_presets_own_optimizer(
    trained: TrainedRun, client: MlflowClient
) -> None:
    """Its steps neither vanish, as Eq. 10's gradient would have them, nor throw it about."""
    key = "udl/upstream_update_ratio"
    history = client.get_metric_history(trained.summary["mlflow_run_id"], key)
    assert len(history) == 12
    assert 1e-5 < median(point.value for point in history) < 0.1


def test_the_best_checkpoint_is_champion_with_its_metrics(
    trained: TrainedRun, client: MlflowClient
) -> None:
    version = client.get_model_version_by_alias("dsts_ray", "champion")
    assert str(version.version) == "1"
    run_id = trained.summary["mlflow_run_id"]
    assert version.run_id == run_id
    history = client.get_metric_history(run_id, "val/top1")
    assert float(version.tags["val/top1"]) == max(point.value for point in history)


def test_the_same_command_again_says_finished_and_does_nothing(trained: TrainedRun) -> None:
    def content() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}

    before = content()
    again = trained.home.job("train.py", *trained.command)
    assert again.returncode == 0, again.stderr
    assert f"run {trained.folder.name} is finished" in again.stdout
    assert content() == before


def test_evaluate_reproduces_the_registered_metrics_from_another_folder_and_home(
    trained: TrainedRun, client: MlflowClient, tmp_path: Path
) -> None:
    """In a home with a token file of Ray; the data set is not made again."""
    home = Home(tmp_path)
    home.token.parent.mkdir()
    home.token.write_text("0" * 64)
    store = ("--tracking-uri", trained.tracking_uri)
    evaluation = home.job("evaluate.py", "--model", CHAMPION, "--record", *store)
    assert evaluation.returncode == 0, evaluation.stderr
    assert not (home.work / "runs" / "data").exists()
    cells = [line.split("│") for line in evaluation.stdout.splitlines() if line.startswith("│")]
    printed = {name.strip(): float(value) for _, name, value, *_ in cells}
    tags = client.get_model_version_by_alias("dsts_ray", "champion").tags
    assert "on test, 8 videos, protocol 1x1 (softmax averaged)" in evaluation.stdout
    assert (tags["protocol"], tags["split"], tags["num_videos"]) == ("1x1", "test", "8")
    assert {"val/top1", "val/top5", "val/mean_class_accuracy"} <= printed.keys()
    for name, value in printed.items():
        assert value == pytest.approx(float(tags[name]), abs=1e-6), name
    (recorded,) = (json.loads(tag) for key, tag in tags.items() if key.startswith("evaluation."))
    assert recorded.items() >= {name: tags[name] for name in MEASURED_ON}.items()
    assert float(recorded["val/top1"]) == printed["val/top1"]
    run_id, folder = trained.summary["mlflow_run_id"], str(Path(recorded["predictions"]).parent)
    assert [file.path for file in client.list_artifacts(run_id, folder)] == [
        recorded["predictions"]
    ]


def test_predict_names_classes_neurons_and_the_broken_file(
    trained: TrainedRun, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    good = str(videos(trained)[0])
    told = trained.home.job("predict.py", "--model", CHAMPION, "--top", "3", good, str(broken))
    assert told.returncode == 1, told.stderr
    assert f"{broken}: " in told.stdout
    assert "active neurons: layer 0: " in told.stdout
    cells = [line.split("│") for line in told.stdout.splitlines() if line.startswith("│")]
    assert len(cells) == 3
    assert {name.strip() for _, name, _, _ in cells} < set(Manifest.read(trained.manifest).classes)
    assert sum(float(value) for _, _, value, _ in cells) <= 1.0 + 1e-3


def test_the_registered_model_predicts_with_the_code_and_requirements_it_carries(
    trained: TrainedRun, client: MlflowClient
) -> None:
    stored = client.get_model_version_download_uri("dsts_ray", "1").removeprefix("file://")
    served = trained.home.run(
        *(sys.executable, str(REPOSITORY / "tests" / "support" / "serve.py")),
        *(str(REPOSITORY), str(videos(trained)[0]), CHAMPION, f"{stored}/requirements.txt"),
        PYTHONPATH="",
        MLFLOW_TRACKING_URI=trained.tracking_uri,
        DSTS_SERVE_ROOT=str(trained.storage),
    )
    assert served.returncode == 0, served.stderr
    package, from_bytes, from_path = json.loads(served.stdout.splitlines()[-1])
    assert not Path(package).is_relative_to(REPOSITORY)
    assert from_bytes == from_path
    (row,) = from_bytes
    assert len(row["classes"]) == len(row["probabilities"]) == 2
    assert len(row["neurons"]) == 2
    assert row["error"] is None
