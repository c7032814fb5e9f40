"""Packing a data set's videos into shards: one Ray task a shard."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dsts_ray.data.manifest import Manifest
from dsts_ray.data.packing import (
    MANIFEST,
    Packing,
    Plan,
    Shard,
    claimed,
    missing_shards,
    pack_shard,
    plan_shards,
    write_packed,
)
from dsts_ray.errors import ClusterError
from dsts_ray.launch.cluster import connected
from dsts_ray.launch.failure import own_error
from dsts_ray.launch.index_report import print_next_step

_TELL_EVERY_S = 0.5


class PackReport(NamedTuple):
    """What a packing did.

    Attributes:
        manifest: Of the packed videos.
        num_videos: In it.
        num_shards: All of them.
        num_kept: Those that were there before.
        refused: Reasons why videos were left out, by path.
    """

    manifest: Path
    num_videos: int
    num_shards: int
    num_kept: int
    refused: dict[str, str]


def pack(manifest: Path, out: Path, packing: Packing) -> PackReport:
    """Pack the videos of a manifest into shards, and write the manifest of these.

    The content of every file in ``out`` is a function of the videos, the manifest and ``packing``.
    A shard appears under its name when it is complete, the manifest after all shards; what is there
    is kept, so the same command continues after any end.

    Args:
        manifest: Manifest of files.
        out: Folder of the shards, the same for all nodes; made if missing.
        packing: How.

    Raises:
        DataError: The manifest cannot be read or is packed already, ``out`` holds something else,
            or no video can be packed.
        ClusterError: A task died again and again.
    """
    out = out.expanduser().resolve()
    videos = Manifest.read(manifest)
    plan = plan_shards(videos, packing)
    with claimed(out, plan.record):
        missing = missing_shards(plan, out)
        if missing:
            with connected():
                _pack_all(plan, missing, out, packing)
        refused = write_packed(videos, plan, packing, out)
    return PackReport(
        out / MANIFEST,
        len(videos) - len(refused),
        len(plan.shards),
        len(plan.shards) - len(missing),
        dict(zip(refused["path"].to_pylist(), refused["reason"].to_pylist(), strict=True)),
    )


def print_pack_report(report: PackReport) -> None:
    """Print the counts, and what was left out with its reason."""
    console = Console()
    kept = f" ({report.num_kept} of them were there before)" if report.num_kept else ""
    console.print(f"{report.num_videos} videos in {report.num_shards} shards{kept}")
    for path, reason in report.refused.items():
        console.print(f"refused {path}: {reason}", markup=False, soft_wrap=True)
    print_next_step(report.manifest)


def _pack_all(plan: Plan, missing: Sequence[Shard], out: Path, packing: Packing) -> None:
    task: Any = ray.remote(num_cpus=1, num_returns="streaming")(_pack_shard)
    running: dict[Any, Shard] = {
        task.remote(shard, out, packing, plan.key): shard for shard in missing
    }
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    total = sum(shard.num_bytes for shard in plan.shards)
    with Progress(TextColumn("packing"), *columns, console=console, transient=True) as bars:
        done = total - sum(shard.num_bytes for shard in missing)
        bar = bars.add_task("", total=total, completed=done)
        while running:
            ready: list[Any] = ray.wait(list(running), fetch_local=False)[0]
            (stream,) = ready
            try:
                num_bytes: Any = ray.get(next(stream))
                bars.advance(bar, num_bytes)
            except StopIteration:
                shard = running.pop(stream)
                if not console.is_terminal:
                    left = f"{len(running)} of {len(plan.shards)} shards left"
                    console.print(f"{out / shard.name} is complete, {left}", soft_wrap=True)
            except RayError as error:
                raise own_error(error) or ClusterError(
                    f"{running[stream].name} could not be packed: {error}; the same command "
                    "continues"
                ) from error


def _pack_shard(shard: Shard, out: Path, packing: Packing, key: str) -> Iterator[int]:
    """Pack, and tell the driver now and then how many bytes are done."""
    done, told_at = 0, time.monotonic()
    for num_bytes in pack_shard(shard, out, packing, key):
        done += num_bytes
        if time.monotonic() - told_at > _TELL_EVERY_S:
            yield done
            done, told_at = 0, time.monotonic()
    yield done
