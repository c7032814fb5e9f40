"""The evaluate job: the same predictions on any number of workers, saved, scored and fused."""

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsts_ray.data.manifest import Manifest
from dsts_ray.train.predictions import write_predictions
from tests.support.jobs import JobResult, RunJob, UntrainedModel
from tests.support.predictions import SAVED

VIEWS = (
    "evaluation.protocol=2x3",
    "evaluation.short_side=48",
    "evaluation.crop_size=40",
    "evaluation.batch_size=18",  # three videos a block, so that a ninth row fills the last one
    "data.cpus_per_decoder=0.5",
)


@dataclass(frozen=True)
class Saved:
    """A model folder and manifests: of the model's data, and with one test video's file gone."""

    model: Path
    manifest: Path
    broken_manifest: Path
    broken_video: str


@pytest.fixture(scope="module")
def saved(untrained: UntrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    manifest = Manifest.read(untrained.manifest)
    rows = manifest.table.to_pylist()
    victim = [row for row in rows if row["split"] == "test"][2]
    victim["path"] += ".gone"
    broken = tmp_path_factory.mktemp("saved") / "broken.parquet"
    Manifest(pa.Table.from_pylist(rows, manifest.table.schema), manifest.classes).write(broken)
    return Saved(untrained.folder, untrained.manifest, broken, victim["video_id"])


def evaluate(run_job: RunJob, saved: Saved, *arguments: object) -> JobResult:
    return run_job("evaluate.py", "--model", saved.model, *arguments)


@pytest.mark.usefixtures("ray_cluster")
def test_one_worker_and_two_give_the_same_bits_and_files_score_and_fuse(
    run_job: RunJob, saved: Saved, tmp_path: Path
) -> None:
    data, broken = saved.broken_manifest, saved.broken_video
    printed, tables = [], []
    for num_workers in (1, 2):
        file = tmp_path / f"{num_workers}.parquet"
        options = ("--data", data, "--save", file, "--num-workers", num_workers, *VIEWS)
        result = evaluate(run_job, saved, *options)
        assert result.code == 0, result.err
        printed.append(result.out)
        tables.append(pq.read_table(file))
    assert tables[0].equals(tables[1], check_metadata=True)
    assert printed[0] == printed[1]
    assert "on test, 8 videos, protocol 2x3 (softmax averaged), frames 4 by segments" in printed[0]
    assert "crop 40 of 48" in printed[0]
    assert f"refused, counted as wrong: {broken}: " in printed[0]
    ids = Manifest.read(data).split("test").table["video_id"].to_pylist()
    assert tables[0]["video_id"].to_pylist() == ids
    seen = dict(zip(ids, tables[0]["views_seen"].to_pylist(), strict=True))
    assert seen == {video_id: 0 if video_id == broken else 6 for video_id in ids}

    file, report = tmp_path / "1.parquet", tmp_path / "report.json"
    scored = run_job("evaluate.py", "--score", file, "--report", report, "--per-class")
    assert scored.code == 0, scored.err
    assert "taken for it" in scored.out
    metrics = json.loads(report.read_text())["metrics"]
    assert (metrics["val/num_videos"], metrics["val/num_refused"]) == (8.0, 1.0)
    assert f"{metrics['val/mean_class_accuracy']:.6f}" in printed[0]
    fused = run_job("evaluate.py", "--fuse", file, tmp_path / "2.parquet")
    assert fused.code == 0, fused.err
    assert f"{metrics['val/top1']:.6f}" in fused.out


@pytest.mark.usefixtures("ray_cluster")
def test_a_refused_video_ends_the_evaluation_when_asked_to(
    run_job: RunJob, saved: Saved, tmp_path: Path
) -> None:
    file = tmp_path / "p.parquet"
    options = ("--data", saved.broken_manifest, "--save", file, *VIEWS, "evaluation.refused=stop")
    result = evaluate(run_job, saved, *options)
    assert result.code == 2
    assert ".gone: there is no such file" in result.error
    assert "evaluation.refused=wrong" in result.error
    assert not file.exists()


def other_classes(saved: Saved, folder: Path) -> Path:
    manifest = Manifest.read(saved.manifest)
    path = folder / "more.parquet"
    Manifest(manifest.table, (*manifest.classes, "one more")).write(path)
    return path


def test_bad_requests(run_job: RunJob, saved: Saved, tmp_path: Path) -> None:
    data = ("--data", saved.manifest)
    for arguments, texts in (
        ((*data, "evaluation.protocol=3views"), ["evaluation.protocol = '3views'", "2x3"]),
        ((*data, "--num-workers", 0), ["--num-workers is 0"]),
        ((*data, "dsts.num_neurons=4"), ["dsts.num_neurons: cannot be changed"]),
        ((*data, "evaluation.crop_size=64"), ["evaluation.crop_size = 64 exceeds"]),
        ((*data, "--split", "val"), ["no video in split 'val'; it has: test, train", "--split"]),
        (("--record",), ["--record is for registered versions", "--save keeps"]),
        (("--data", other_classes(saved, tmp_path)), ["5 classes", "the model's head has 4"]),
    ):
        result = evaluate(run_job, saved, *arguments)
        assert result.code == 2
        for text in texts:
            assert text in result.error


@pytest.mark.usefixtures("ray_cluster")
def test_more_workers_than_the_cluster_carries(run_job: RunJob, saved: Saved) -> None:
    result = evaluate(run_job, saved, "--data", saved.manifest, "--num-workers", 40)
    assert result.code == 2
    assert "asks for 10.6 CPUs: 40 workers x 0.25" in result.error
    assert "--num-workers" in result.error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("evaluation.protocol=2x3",), "key=value"),
        (("--data", "more.parquet", "--split", "val"), "--data, --split"),
        (("--num-workers", "2"), "--num-workers"),
        (("--tracking-uri", "sqlite:///x.db"), "--tracking-uri"),
    ],
)
def test_saved_predictions_take_nothing_that_a_model_takes(
    run_job: RunJob, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    write_predictions(SAVED, tmp_path / "p.parquet")
    assert run_job("evaluate.py", "--score", tmp_path / "p.parquet").code == 0
    for what in (("--score", tmp_path / "p.parquet"), ("--fuse", *[tmp_path / "p.parquet"] * 2)):
        result = run_job("evaluate.py", *what, *arguments)
        assert result.code == 2
        assert f"error: {named}: only with --model; predictions are read as they are" in result.err
        assert not result.out


def test_a_damaged_file_of_predictions(run_job: RunJob, tmp_path: Path) -> None:
    file = tmp_path / "p.parquet"
    file.write_bytes(b"no predictions")
    result = run_job("evaluate.py", "--score", file)
    assert result.code == 2
    assert "p.parquet is not a readable Parquet file" in result.error
