"""Twenty steps on files that nobody here made for it, and on the Something-Something layout."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dsts_ray.data.manifest import Manifest
from dsts_ray.tracking.mlflow import connect
from tests.support.jobs import DEMO, REPOSITORY, TINY, JobResult, RunJob
from tests.support.videos import truncate, write_audio, write_video

pytestmark = pytest.mark.usefixtures("ray_cluster")

GIVEN_VIDEOS = REPOSITORY.parent / "shared" / "videos"
SHORT = (
    "train.max_steps=20",
    "train.num_epochs=40",
    "train.evaluate_every_epochs=40",
    "scaling.num_workers=1",
    "tracking.model_name=",
)


def write_list(path: Path, videos: Sequence[str]) -> Path:
    path.write_text(
        "".join(f"{name},{'even' if i % 2 else 'odd'}\n" for i, name in enumerate(videos))
    )
    return path


def write_videos(folder: Path) -> tuple[list[str], list[str]]:
    """Write videos of many kinds; the good ones and the bad ones."""
    good = ["a.mp4", "b.mov", "c.mkv", "d.webm", "e.avi", "turned.mp4", "hevc.mp4", "old.mp4"]
    for name in good[:5]:
        write_video(folder / name, width=80, height=64)
    write_video(folder / "turned.mp4", width=96, height=64, rotation=90)
    write_video(folder / "hevc.mp4", width=128, height=96, codec="libx265")
    write_video(folder / "old.mp4", width=72, height=64, codec="mpeg4", fps=25, audio_s=0.4)
    truncate(write_video(folder / "corrupted.mp4"), 0.5)
    write_audio(folder / "sound.mp4")
    return good, ["corrupted.mp4", "sound.mp4", "missing.mp4"]


def index(run_job: RunJob, listing: Path, bad: Sequence[str], tmp_path: Path) -> Path:
    manifest = tmp_path / "manifest.parquet"
    indexed = run_job(
        *("prepare_data.py", "index", "--format", "csv"),
        *("--root", listing, "--out", manifest, "--num-processes", 1),
    )
    assert indexed.code == 0, indexed.err
    assert f"{len(bad)} refused" in indexed.out
    for name in bad:
        assert f"refused {listing.parent / name}: " in indexed.out
    return manifest


def train(run_job: RunJob, manifest: Path, tmp_path: Path, *overrides: str) -> JobResult:
    return run_job(
        *("train.py", *TINY, *SHORT, f"data.manifest={manifest}", "data.val_split=val"),
        *(f"storage.path={tmp_path / 'runs'}", *overrides),
    )


def trained_steps(tmp_path: Path) -> int:
    states = (tmp_path / "runs").glob("*/checkpoints/*/state.json")
    return max(json.loads(path.read_text())["step"] for path in states)


def test_a_list_of_ones_own_videos(run_job: RunJob, tmp_path: Path) -> None:
    """One of which breaks after it was indexed: it is skipped, counted and listed."""
    good, bad = write_videos(tmp_path / "videos")
    listing = write_list(tmp_path / "videos" / "list.csv", [*good, *bad])
    manifest = index(run_job, listing, bad, tmp_path)
    videos = Manifest.read(manifest).split("train").table.to_pylist()
    Path(videos[0]["path"]).write_bytes(b"")
    trained = train(run_job, manifest, tmp_path, "data.max_bad_ratio=0.5")
    assert trained.code == 0, trained.err
    assert trained_steps(tmp_path) == 20
    (path,) = (tmp_path / "runs").glob("*/summary.json")
    summary = json.loads(path.read_text())
    (refused,) = summary["refused"]
    assert refused["video_id"] == videos[0]["video_id"]
    assert videos[0]["path"] in refused["reason"]
    client = connect(summary["tracking_uri"])
    history = client.get_metric_history(summary["mlflow_run_id"], "train/num_refused")
    assert sum(point.value for point in history) >= 20 * 4 // len(videos)


@pytest.mark.skipif(not GIVEN_VIDEOS.is_dir(), reason="needs the given videos")
def test_a_list_of_the_given_videos(run_job: RunJob, tmp_path: Path) -> None:
    names = sorted(path.name for path in GIVEN_VIDEOS.iterdir() if path.suffix != ".md")
    (tmp_path / "videos").symlink_to(GIVEN_VIDEOS)
    listing = write_list(tmp_path / "list.csv", [f"videos/{name}" for name in names])
    manifest = index(run_job, listing, ["videos/corrupted.mp4"], tmp_path)
    trained = train(run_job, manifest, tmp_path)
    assert trained.code == 0, trained.err
    assert trained_steps(tmp_path) == 20


@pytest.mark.exhaustive
def test_the_something_something_layout(run_job: RunJob, tmp_path: Path) -> None:
    trained = run_job(
        *("train.py", *DEMO, *TINY, *SHORT, "data.demo.layout=ssv2", "data.val_split=val"),
        f"storage.path={tmp_path / 'runs'}",
    )
    assert trained.code == 0, trained.err
    assert trained_steps(tmp_path) == 20


def test_a_list_without_a_validation_split_is_refused_by_name(
    run_job: RunJob, tmp_path: Path
) -> None:
    write_video(tmp_path / "one.mp4")
    listing = write_list(tmp_path / "list.csv", ["one.mp4"])
    trained = train(run_job, index(run_job, listing, [], tmp_path), tmp_path)
    assert trained.code == 2
    assert "no video in split 'val'; it has: train; choose others with data.t" in trained.error
    assert not (tmp_path / "runs").exists()
