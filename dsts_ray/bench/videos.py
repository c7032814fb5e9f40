"""The video files that the data bench reads, made by the demo's writers."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dsts_ray.bench.networks import Setting
from dsts_ray.data.demo.diving48 import write_diving48
from dsts_ray.data.demo.ssv2 import write_ssv2
from dsts_ray.data.index import Format, index_dataset
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.packing import (
    MANIFEST,
    Packing,
    claimed,
    missing_shards,
    pack_shard,
    plan_shards,
    write_packed,
)


class Kind(NamedTuple):
    """A sort of video file.

    Attributes:
        name: In words.
        write: Renders ``num_clips`` of them, their frames' height scaled, into a folder.
        format: Of the folder.
        num_clips: Files.
        num_batches: Batches of a stream, at scale 1.
        bound: What the stream's rate over the DataLoader's must reach.
    """

    name: str
    write: Callable[[Path, int, float], None]
    format: Format
    num_clips: int
    num_batches: int
    bound: float


def _write_webm(root: Path, num_clips: int, scale: float) -> None:
    write_ssv2(
        root,
        num_classes=2,
        num_train_clips=num_clips,
        num_validation_clips=2,
        num_test_clips=2,
        size=_even(240 * scale),
        min_frames=30,
        max_frames=60,
    )


def _write_mp4(root: Path, num_clips: int, scale: float) -> None:
    write_diving48(
        root,
        num_classes=2,
        num_train_clips=num_clips,
        num_test_clips=2,
        size=_even(720 * scale),
        min_frames=120,
        max_frames=200,
    )


class Video(NamedTuple):
    """A file, and the size of its frames as displayed."""

    path: str
    width: int
    height: int


class Files(NamedTuple):
    """Files of a kind, their manifest, that of the same in shards, and what they are in words."""

    manifest: Path
    packed: Path
    videos: tuple[Video, ...]
    description: str


def _even(pixels: float) -> int:
    return 2 * round(pixels / 2)


KINDS = (
    Kind("webm", _write_webm, "ssv2", 64, 64, 0.9),
    Kind("H.264", _write_mp4, "diving48", 16, 32, 1.0),
)


def find_files(kind: Kind, setting: Setting) -> Files:
    """Find a kind's files, or render and index them where they are missing."""
    root = setting.folder / f"bench-{kind.format}-{setting.scale:g}"
    manifest = root / "manifest.parquet"
    if not manifest.exists():
        kind.write(root, kind.num_clips, setting.scale)
        index_dataset(format=kind.format, root=root, out=manifest, num_processes=2)
    rows = Manifest.read(manifest).split("train").table.to_pylist()
    videos = tuple(Video(row["path"], row["width"], row["height"]) for row in rows)
    num_frames = statistics.mean(row["num_frames"] for row in rows)
    return Files(
        manifest,
        _pack(manifest, root / "packed"),
        videos,
        f"{len(rows)} {kind.name} files of {videos[0].height} pixels and {num_frames:.0f} frames",
    )


def _pack(manifest: Path, out: Path) -> Path:
    """Pack what is not packed yet."""
    videos, packing = Manifest.read(manifest), Packing()
    plan = plan_shards(videos, packing)
    with claimed(out, plan.record):
        for shard in missing_shards(plan, out):
            for _ in pack_shard(shard, out, packing, plan.key):
                pass
        write_packed(videos, plan, packing, out)
    return out / MANIFEST
