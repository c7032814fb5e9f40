"""The folder of a prediction: parts while it goes on, two Parquet files when it is complete.

``predictions.parquet`` has a row for every window with a prediction, ``refused.parquet`` one for
every window or video without. A part holds both kinds, of some videos; it appears under its name
when it is complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsts_ray.data.checks import REFUSED_SCHEMA
from dsts_ray.data.manifest import write_parquet
from dsts_ray.data.source import video_name
from dsts_ray.data.storage import replacing
from dsts_ray.data.window_decoder import NOT_SEEN

RECORD = "predict.json"
PREDICTIONS = "predictions.parquet"
REFUSED = "refused.parquet"

_PARTS = "parts"
_WINDOW = [
    pa.field("start_frame", pa.int64()),  # of the file
    pa.field("end_frame", pa.int64()),  # exclusive
    pa.field("start_s", pa.float64()),  # null where the file does not state its frame rate
    pa.field("end_s", pa.float64()),
]
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        *_WINDOW,
        pa.field("classes", pa.list_(pa.string())),  # most probable first
        pa.field("probabilities", pa.list_(pa.float32())),  # of these
        pa.field("neurons", pa.list_(pa.int64())),  # activated in each DSTS layer
    ]
)
REFUSED_WINDOW_SCHEMA = pa.schema([*REFUSED_SCHEMA, *_WINDOW])
"""The window is null where a whole video is refused."""
_PART_SCHEMA = PREDICTION_SCHEMA.append(pa.field("reason", pa.string()))


class Counts(NamedTuple):
    """What a folder holds."""

    num_videos: int
    num_predicted: int
    num_windows: int
    num_refused: int
    num_refused_windows: int


def part_table(
    blocks: Sequence[Mapping[str, np.ndarray]], videos: pa.Table, classes: Sequence[str]
) -> pa.Table:
    """Make the table of a part from its predicted blocks.

    Args:
        blocks: In order, as the forward passes return them.
        videos: All of them.
        classes: Names.
    """
    rows = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    listed = videos.take(pa.array(rows["sample_id"])).to_pylist()
    refused = rows["reason"].astype(bool)
    whole = rows["start_frame"] == NOT_SEEN[0]
    names = np.array(classes, dtype=object)[rows["labels"]]
    columns = {
        "video_id": pa.array([video["video_id"] for video in listed], pa.string()),
        "path": pa.array([video_name(video) for video in listed], pa.string()),
    }
    unknown = whole | (rows["fps"] <= 0)
    fps = np.where(unknown, 1.0, rows["fps"])
    for name in ("start", "end"):
        frames = rows[f"{name}_frame"]
        columns[f"{name}_frame"] = pa.array(frames, pa.int64(), mask=whole)
        columns[f"{name}_s"] = pa.array(frames / fps, pa.float64(), mask=unknown)
    told = {"classes": names, "probabilities": rows["probabilities"], "neurons": rows["neurons"]}
    for name, values in told.items():
        kind = PREDICTION_SCHEMA.field(name).type
        lists = [None if no else list(value) for no, value in zip(refused, values, strict=True)]
        columns[name] = pa.array(lists, kind)
    reasons = [reason or None for reason in rows["reason"].tolist()]
    columns["reason"] = pa.array(reasons, pa.string())
    return pa.table([columns[name] for name in _PART_SCHEMA.names], schema=_PART_SCHEMA)


def part_path(out: Path, part: int) -> Path:
    """Where a part lies."""
    return out / _PARTS / f"part-{part:07d}.parquet"


def missing_parts(out: Path, num_parts: int) -> list[int]:
    """Numbers of the parts that are not there yet; none once the folder is complete."""
    if (out / REFUSED).exists():
        return []
    return [part for part in range(num_parts) if not part_path(out, part).exists()]


def complete(out: Path, num_parts: int, num_videos: int) -> Counts:
    """Join all parts to the two files, unless that has been done, and count.

    Refused ones come last, so that the folder is complete where they are.
    """
    if not (out / REFUSED).exists():
        refusals = []
        with (
            replacing(out / PREDICTIONS) as partial,
            pq.ParquetWriter(partial, PREDICTION_SCHEMA) as writer,
        ):
            for table in _parts(out, num_parts):
                predicted = table.filter(pc.field("reason").is_null())
                writer.write_table(predicted.select(PREDICTION_SCHEMA.names))
                refused = table.filter(pc.field("reason").is_valid())
                refusals.append(refused.select(REFUSED_WINDOW_SCHEMA.names))
        write_parquet(pa.concat_tables(refusals).cast(REFUSED_WINDOW_SCHEMA), out / REFUSED)
    for part in range(num_parts):
        part_path(out, part).unlink(missing_ok=True)
    if (out / _PARTS).exists():
        (out / _PARTS).rmdir()
    return _count(out, num_videos)


def _parts(out: Path, num_parts: int) -> Iterator[pa.Table]:
    """All rows in order, some parts at a time."""
    for first in range(0, num_parts, 1000):
        parts = range(first, min(first + 1000, num_parts))
        yield pa.concat_tables([pq.read_table(part_path(out, part)) for part in parts])


def _count(out: Path, num_videos: int) -> Counts:
    predicted = pq.read_table(out / PREDICTIONS, columns=["video_id", "path"])
    refused = pq.read_table(out / REFUSED, columns=["video_id", "path"])
    return Counts(
        num_videos,
        _num_videos(predicted),
        len(predicted),
        num_videos - _num_videos(predicted),
        len(refused),
    )


def _num_videos(rows: pa.Table) -> int:
    return len(rows.group_by(["video_id", "path"]).aggregate([]))
