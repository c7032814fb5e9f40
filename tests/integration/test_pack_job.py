"""Packing as a job: killed with SIGKILL half way, continued, and trained on."""

from pathlib import Path

import pytest

from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.index import index_dataset
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.pipeline import batches, test_stream
from dsts_ray.data.shards import read_info, read_video
from tests.support.jobs import Home, RunJob, kill_tree, wait_for
from tests.support.videos import write_video

NUM_VIDEOS = 48
VIEWS = ViewSpec(num_frames=2, short_side=48, crop_size=32)
OPTIONS = ("--shard-bytes", "100KiB", "--short-side", "64")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in range(NUM_VIDEOS):
        name = f"{'test' if number < 4 else 'train'}/{'ab'[number % 2]}/{number}.mp4"
        video = folder / "videos" / name
        if number < 4:
            write_video(video, width=320, height=240, num_frames=100 + number)
        else:
            video.parent.mkdir(parents=True, exist_ok=True)
            video.hardlink_to(folder / "videos" / "test" / "ab"[number % 2] / f"{number % 4}.mp4")
    out = folder / "m.parquet"
    index_dataset(format="folder", root=folder / "videos", out=out, num_processes=1)
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def killed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of a packing that was killed after its first shard."""
    home = Home(tmp_path_factory.mktemp("home"))
    out = manifest.parent / "killed"
    arguments = ("pack", "--manifest", str(manifest), "--out", str(out), *OPTIONS)
    process = home.start("prepare_data.py", *arguments)
    wait_for(process, lambda: any(out.glob("shard-*.parquet")))
    kill_tree(process)
    return out


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_packing_continues_to_the_same_files(
    manifest: Path, killed: Path, run_job: RunJob
) -> None:
    out = killed
    left = {path: path.stat() for path in out.glob("shard-*.parquet")}
    for path in left:
        read_info(str(path))
    assert not (out / "manifest.parquet").exists()

    whole = manifest.parent / "whole"
    arguments = ("pack", "--manifest", manifest, *OPTIONS, "--out")
    undisturbed = run_job("prepare_data.py", *arguments, whole)
    assert undisturbed.code == 0, undisturbed.err
    shards = sorted(whole.glob("shard-*.parquet"))
    assert 0 < len(left) < len(shards)

    resumed = run_job("prepare_data.py", *arguments, out)
    assert resumed.code == 0, resumed.err
    kept = f"in {len(shards)} shards ({len(left)} of them were there before)"
    assert f"{NUM_VIDEOS} videos {kept}" in resumed.out
    assert files_of(out) == files_of(whole)
    for path, before in left.items():
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)

    packed = Manifest.read(out / "manifest.parquet").table.to_pylist()
    assert len(packed) == NUM_VIDEOS
    assert all(read_video(row["shard"], row["row"]) for row in packed)

    stream = test_stream(
        manifest=str(out / "manifest.parquet"),
        split="test",
        spec=VIEWS,
        block_size=4,
        num_workers=1,
        decoders=DecoderPool(num_decoders=1, cpus=0.5, timeout_s=60),
    )
    (block,) = batches(stream, batch_size=4, prefetch_blocks=1)
    assert block["reason"].tolist() == [""] * 4
    test_rows = [row for row in packed if row["split"] == "test"]
    for row, views in zip(test_rows, block["clip"], strict=True):
        assert (views == VIEWS.views(row)).all()

    mixed = run_job("prepare_data.py", *arguments, out, "--keyframe-interval", 4)
    assert mixed.code == 2
    assert "keyframe_interval: 12 before, 4 now" in mixed.error
    assert files_of(out) == files_of(whole)
