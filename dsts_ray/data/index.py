"""From a release folder or a list to a manifest: read the annotations, open every video, write."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.progress import track

from dsts_ray.data.decode import MIN_FRAMES, VideoInfo, probe
from dsts_ray.data.formats import csv, diving48, ssv2
from dsts_ray.data.formats.annotations import Annotations, VideoRow
from dsts_ray.data.manifest import SCHEMA, UNKNOWN_LABEL, Manifest, write_parquet
from dsts_ray.errors import ConfigError, DataError

Format = Literal["diving48", "ssv2", "csv"]

READERS: dict[str, Callable[[Path], Annotations]] = {
    "diving48": diving48.read_annotations,
    "ssv2": ssv2.read_annotations,
    "csv": csv.read_annotations,
}
REFUSED_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("video_id", "path", "reason")]
)

_CHUNK_SIZE = 16
_NUM_REASONS_SHOWN = 3


class RefusedVideo(NamedTuple):
    """A video that the manifest leaves out, and why."""

    video_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class IndexReport:
    """What an indexing found.

    Attributes:
        num_videos: Videos in the manifest.
        num_refused: Videos left out.
        refused: Each of these with its reason.
        counts: Videos per split and class name ("unknown" for label -1), only those above zero.
    """

    num_videos: int
    num_refused: int
    refused: list[RefusedVideo]
    counts: dict[str, dict[str, int]]


def index_dataset(*, format: Format, root: Path, out: Path, num_processes: int = 2) -> IndexReport:
    """Write the manifest of a data set, with every video decoded once to see that it can be.

    Writes ``out`` and, beside it, ``<stem of out>.refused.parquet`` with the videos left out. A
    video that is missing, unreadable or shorter than 2 frames is left out; one that ends before
    its annotation does is clipped. Paths in the manifest are absolute.

    Args:
        format: Which release, or "csv" for a list of one's own.
        root: The release's folder; the list itself for "csv".
        out: The manifest to write.
        num_processes: Processes that decode; 1 decodes in this one. A script that asks for more
            needs the ``__name__ == "__main__"`` guard.

    Raises:
        ConfigError: Unknown format.
        DataError: ``root`` is missing, lists no video, the same video twice or a label outside
            its classes, or not one video can be read. Nothing is written then.
    """
    if format not in READERS:
        raise ConfigError(f"unknown data format {format!r}: choose one of {', '.join(READERS)}")
    if not root.exists():
        raise DataError(f"there is no data set at {root}; --root must name what you downloaded")
    annotations = READERS[format](root.resolve())
    _check(annotations, root)
    refused: list[RefusedVideo] = []
    records: list[dict[str, Any]] = []
    for row, found in zip(annotations.rows, _probe_all(annotations, num_processes), strict=True):
        reason = found if isinstance(found, str) else _refuse_part(row, found)
        if reason is None and isinstance(found, VideoInfo):
            records.append(_record(row, found))
        else:
            refused.append(RefusedVideo(row.video_id, str(row.path), str(reason)))
    if not records:
        shown = "; ".join(f"{video.path}: {video.reason}" for video in refused[:_NUM_REASONS_SHOWN])
        raise DataError(f"none of the {len(refused)} videos of {root} can be read: {shown}")
    manifest = Manifest(pa.Table.from_pylist(records, SCHEMA), annotations.classes)
    refused_rows = [video._asdict() for video in refused]
    write_parquet(
        pa.Table.from_pylist(refused_rows, REFUSED_SCHEMA),
        out.with_name(f"{out.stem}.refused.parquet"),
    )
    manifest.write(out)
    return IndexReport(len(records), len(refused), refused, _count(manifest))


def _check(annotations: Annotations, root: Path) -> None:
    """Refuse what no single video is to blame for, before any is opened."""
    rows, num_classes = annotations.rows, len(annotations.classes)
    if not rows:
        raise DataError(f"the annotations of {root} list no video")
    for row in rows:
        if row.label >= num_classes or row.label < UNKNOWN_LABEL:
            raise DataError(
                f"label {row.label} of video {row.video_id!r} is outside the {num_classes} classes"
            )
    for what, values in {
        "video": (row.video_id for row in rows),
        "file": (str(row.path.resolve()) for row in rows),
    }.items():
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise DataError(
                f"the annotations of {root} list {len(twice)} {what}(s) more than once, "
                f"the first is {twice[0]!r}"
            )


def _probe_all(annotations: Annotations, num_processes: int) -> Iterator[VideoInfo | str]:
    """Probe every video in order; a string is the reason why one cannot be used."""
    paths = [str(row.path) for row in annotations.rows]
    if num_processes == 1:
        yield from _tracked(map(_probe_or_reason, paths), len(paths))
        return
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        results = pool.map(_probe_or_reason, paths, chunksize=_CHUNK_SIZE)
        try:
            yield from _tracked(results, len(paths))
        except BrokenProcessPool as error:
            raise DataError(
                "a process that decodes videos died; was it killed for memory, or does the script "
                "that calls this lack its __main__ guard?"
            ) from error


def _probe_or_reason(path: str) -> VideoInfo | str:
    try:
        return probe(path)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def _tracked(results: Iterable[VideoInfo | str], total: int) -> Iterable[VideoInfo | str]:
    return track(
        results,
        total=total,
        description="Decoding every video once",
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _refuse_part(row: VideoRow, info: VideoInfo) -> str | None:
    length = _end_frame(row, info) - row.start_frame
    if row.start_frame >= 0 and length >= MIN_FRAMES:
        return None
    return (
        f"annotated frames {row.start_frame} to {row.end_frame} leave {max(length, 0)} of the "
        f"{info.num_frames} that decode, {MIN_FRAMES} or more are needed"
    )


def _end_frame(row: VideoRow, info: VideoInfo) -> int:
    return info.num_frames if row.end_frame is None else min(row.end_frame, info.num_frames)


def _record(row: VideoRow, info: VideoInfo) -> dict[str, Any]:
    return {
        **row._asdict(),
        "path": str(row.path),
        "shard": None,
        "row": None,
        "end_frame": _end_frame(row, info),
        **info._asdict(),
    }


def _count(manifest: Manifest) -> dict[str, dict[str, int]]:
    splits = manifest.table["split"].to_pylist()
    labels = manifest.table["label"].to_pylist()
    counts: dict[str, dict[str, int]] = {}
    for (split, label), count in sorted(Counter(zip(splits, labels, strict=True)).items()):
        name = "unknown" if label == UNKNOWN_LABEL else manifest.classes[label]
        counts.setdefault(split, {})[name] = count
    return counts
