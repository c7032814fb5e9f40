"""Bad input ends in one clear error, exit code 2 and nothing half-written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run

from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.launch.snapshot import latest_step
from dsts_ray.tracking.mlflow import connect
from tests.support.jobs import TINY, Home, JobResult, RunJob, kill_tree, session, wait_for
from tests.support.videos import truncate, write_audio, write_video

NUM_CLIPS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos and the list of them."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for index in range(NUM_CLIPS):
        write_video(folder / f"{index}.mp4", width=64, height=64)
        lines.append(f"{index}.mp4,{'ab'[index % 2]},{'test' if index < 2 else 'train'}\n")
    (folder / "list.csv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def manifest(data: Path) -> Path:
    out = data / "manifest.parquet"
    index_dataset(format="csv", root=data / "list.csv", out=out, num_processes=1)
    return out


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def refused(result: JobResult, *texts: str) -> None:
    """Check that the job ended in one error that holds the texts."""
    assert result.code == 2, result.out + result.err
    for text in texts:
        assert text in result.error


def index(run_job: RunJob, format: str, root: Path, out: Path) -> JobResult:
    options = ("--format", format, "--root", root, "--out", out, "--num-processes", 1)
    return run_job("prepare_data.py", "index", *options)


def train(run_job: RunJob, storage: Path, *overrides: str) -> JobResult:
    return run_job("train.py", *TINY, f"storage.path={storage}", *overrides)


@pytest.mark.parametrize("format", ["diving48", "ssv2", "csv"])
def test_missing_data_root(run_job: RunJob, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out" / "manifest.parquet"
    refused(index(run_job, format, tmp_path / "absent", out), str(tmp_path / "absent"), "--root")
    assert not out.parent.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare_data.py", "demo", "--out"),
        ("prepare_data.py", "index", "--format", "csv", "--root", "list.csv", "--out"),
        ("prepare_data.py", "pack", "--manifest", "m.parquet", "--out"),
        ("prepare_data.py", "pack", "--out", "packed", "--manifest"),
        ("predict.py", "--model", "model", "video.mp4", "--out"),
    ],
)
def test_what_is_local_is_given_as_a_url(
    run_job: RunJob, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    refused(
        run_job(*arguments, "s3://bucket/data"),
        f"argument {arguments[-1]}: s3://bucket/data is a URL, this must be a path of this machine",
    )
    assert not any((tmp_path / "work").iterdir())


def test_missing_manifest(run_job: RunJob, tmp_path: Path, storage: Path) -> None:
    result = train(run_job, storage, f"data.manifest={tmp_path / 'absent.parquet'}")
    refused(result, "there is no manifest at", "prepare_data.py index")
    assert not storage.exists()


def test_a_recipe_without_its_manifest_says_what_to_write(run_job: RunJob, storage: Path) -> None:
    result = run_job("train.py", "--preset", "ssv2_tpn", f"storage.path={storage}")
    refused(result, "something_something_v2.parquet", "prepare_data.py index", "data.manifest=FILE")
    assert not storage.exists()


def test_flip_pairs_of_another_data_set(run_job: RunJob, manifest: Path, storage: Path) -> None:
    pairs = "augment.flip_labels=[[86, 87], [93, 94], [166, 167]]"
    result = train(run_job, storage, f"data.manifest={manifest}", pairs)
    refused(result, "augment.flip_labels names class 167, the data set has 2 classes, 0 to 1")
    assert not storage.exists()


def test_empty_manifest(run_job: RunJob, tmp_path: Path, storage: Path) -> None:
    empty = tmp_path / "empty.parquet"
    Manifest(SCHEMA.empty_table(), ("a",)).write(empty)
    refused(train(run_job, storage, f"data.manifest={empty}"), str(empty), "empty")
    assert not storage.exists()


def test_empty_list(run_job: RunJob, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\n")
    out = tmp_path / "out" / "manifest.parquet"
    refused(index(run_job, "csv", tmp_path / "list.csv", out), "lists no video")
    assert not out.parent.exists()


def test_label_outside_the_vocabulary_of_a_release(run_job: RunJob, tmp_path: Path) -> None:
    root = tmp_path / "release"
    root.mkdir()
    item = {"vid_name": "x_0", "label": 7, "start_frame": 0, "end_frame": 5}
    (root / "Diving48_vocab.json").write_text(json.dumps([["Back", "Dive", "NoTwis", "PIKE"]]))
    for split in ("train", "test"):
        (root / f"Diving48_V2_{split}.json").write_text(json.dumps([item]))
    out = tmp_path / "out" / "manifest.parquet"
    refused(index(run_job, "diving48", root, out), "label 7", "x_0")
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("label", "text"), [(2, "label 2"), (-1, "1 of the 6 videos in split 'train' have no label")]
)
def test_label_outside_the_classes_of_a_manifest(
    run_job: RunJob, manifest: Path, tmp_path: Path, storage: Path, label: int, text: str
) -> None:
    table = pq.read_table(manifest)
    labels = table["label"].to_pylist()
    labels[-1] = label
    column = table.schema.get_field_index("label")
    bad = tmp_path / "bad.parquet"
    pq.write_table(table.set_column(column, SCHEMA.field("label"), pa.array(labels)), bad)
    result = train(run_job, storage, f"data.manifest={bad}")
    refused(result, text, "7.mp4")
    assert not storage.exists()


def test_videos_that_cannot_be_used_are_left_out_and_counted(
    run_job: RunJob, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    write_video(folder / "good.mp4")
    truncate(write_video(folder / "truncated.mp4"), 0.5)
    (folder / "empty.mp4").touch()
    write_audio(folder / "sound.mp4")
    write_video(folder / "one_frame.mp4", num_frames=1)
    bad = ["missing.mp4", "truncated.mp4", "empty.mp4", "sound.mp4", "one_frame.mp4"]
    listing = folder / "list.csv"
    listing.write_text("".join(f"{name},a\n" for name in ["good.mp4", *bad]))
    result = index(run_job, "csv", listing, folder / "manifest.parquet")
    assert result.code == 0, result.err
    assert "1 videos indexed, 5 refused" in result.out
    for name in bad:
        assert f"refused {folder / name}: " in result.out
    assert len(Manifest.read(folder / "manifest.parquet")) == 1


@pytest.mark.parametrize(
    ("override", "texts"),
    [
        ("preset=dmeo", ["did you mean demo?"]),
        ("dsts.num_neuron=6", ["unknown key", "did you mean dsts.num_neurons?"]),
        ("optim.lr=-1", ["optim.lr = -1", "must be"]),
        ("train.batch_size=1", ["train.batch_size = 1", "scaling.num_workers", "at least 2"]),
    ],
)
def test_unknown_preset_key_or_value(
    run_job: RunJob, storage: Path, override: str, texts: list[str]
) -> None:
    refused(train(run_job, storage, override), *texts)
    assert not storage.exists()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        (["scaling.cpus_per_worker=1"], ["asks for 33.2 CPUs", "scaling.num_workers"]),
        (
            ["scaling.cpus_per_worker=0.01", "scaling.use_gpu=true"],
            ["32 workers x 0.01 and a GPU", "scaling.num_workers", "scaling.use_gpu=false"],
        ),
    ],
)
def test_more_workers_than_the_cluster_carries(
    run_job: RunJob, manifest: Path, storage: Path, overrides: list[str], texts: list[str]
) -> None:
    wide = ("scaling.num_workers=32", "train.batch_size=32", "udl.enabled=false")
    data = f"data.manifest={manifest}"
    refused(train(run_job, storage, *wide, data, *overrides), *texts)
    assert [path for path in storage.iterdir() if path.is_dir()] == []


def test_tracking_server_not_reachable(run_job: RunJob, manifest: Path, storage: Path) -> None:
    address = "http://127.0.0.1:1"
    overrides = (f"data.manifest={manifest}", f"tracking.uri={address}")
    refused(train(run_job, storage, *overrides), "no MLflow server", address)
    assert not storage.exists()


@pytest.fixture
def victim(data: Path) -> Iterator[Path]:
    """A training video that broke after indexing."""
    video = data / "5.mp4"
    content = video.read_bytes()
    video.write_bytes(b"")
    yield video
    video.write_bytes(content)


def run_that_listed(storage: Path, victim: Path) -> Run:
    """The one run in MLflow, which has the victim among its artifacts, as the run folder does."""
    client = connect(f"sqlite:///{storage / 'mlflow.db'}")
    assert client.search_registered_models() == []
    (run,) = client.search_runs([client.search_experiments()[0].experiment_id])
    logged = client.download_artifacts(run.info.run_id, "run/refused.parquet", str(storage))
    for listed in (storage / "broken" / "refused.parquet", logged):
        (row,) = pq.read_table(listed).to_pylist()
        assert (row["video_id"], row["path"]) == ("5.mp4", str(victim))
        assert "is empty" in row["reason"]
    return run


@pytest.mark.usefixtures("ray_cluster")
def test_too_many_videos_that_broke_after_indexing_end_the_run(
    run_job: RunJob, manifest: Path, victim: Path, storage: Path
) -> None:
    result = train(
        run_job,
        storage,
        f"data.manifest={manifest}",
        "name=broken",
        "scaling.num_workers=1",
        "train.max_steps=6",
        "train.evaluate_every_epochs=9",
    )
    refused(result, "1 of 6 training clips", "data.max_bad_ratio=0.05", "5.mp4")
    assert not list(storage.rglob("model.safetensors"))
    assert not (storage / "broken" / "summary.json").exists()
    assert run_that_listed(storage, victim).info.status == "FAILED"


@pytest.mark.exhaustive
def test_refused_videos_are_listed_where_the_workers_died(
    manifest: Path, victim: Path, storage: Path, tmp_path: Path
) -> None:
    process = Home(tmp_path).start(
        "train.py",
        *TINY,
        f"storage.path={storage}",
        f"data.manifest={manifest}",
        "name=broken",
        "data.max_bad_ratio=0.5",
        "scaling.num_workers=1",
        "scaling.max_failures=0",
        "train.num_epochs=1000",
        "train.evaluate_every_epochs=1000",
        "train.checkpoint_every_steps=1",
    )
    try:
        wait_for(process, lambda: latest_step(storage / "broken" / "checkpoints") > 2)
        next(one for one in session(process) if "RayTrainWorker" in one.cmdline()[0]).kill()
        assert process.wait(120) == 2
    finally:
        kill_tree(process)
    assert run_that_listed(storage, victim).info.status == "FAILED"
