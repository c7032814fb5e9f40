"""The manifest: one Parquet table of the videos there are, what they show and where they lie."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsts_ray.data.storage import absolute, is_url, join, opened, parent, replacing
from dsts_ray.errors import DataError

SCHEMA_VERSION = 1
UNKNOWN_LABEL = -1

SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),  # index into the classes, -1 = unknown
        pa.field("group", pa.string(), nullable=False),  # source video
        pa.field("path", pa.string()),  # absolute or a URL; null when the bytes lie in a shard
        pa.field("shard", pa.string()),  # in the file it may be relative to the manifest's folder
        pa.field("row", pa.int64()),
        pa.field("start_frame", pa.int64(), nullable=False),
        pa.field("end_frame", pa.int64(), nullable=False),  # exclusive
        pa.field("num_frames", pa.int64(), nullable=False),  # that the whole file delivers
        pa.field("fps", pa.float64(), nullable=False),  # 0 = the file does not say
        pa.field("width", pa.int64(), nullable=False),  # as displayed, after rotation
        pa.field("height", pa.int64(), nullable=False),
        pa.field("rotation", pa.int64(), nullable=False),  # degrees clockwise: 0, 90, 180, 270
    ]
)

_IDENTITY = ["video_id", "split", "label", "start_frame", "end_frame", "num_frames"]
_METADATA_KEY = b"dsts_ray.manifest"


@dataclass(frozen=True)
class Manifest:
    """Videos of a data set, schema version 1.

    Attributes:
        table: One row a video, columns of ``SCHEMA``.
        classes: Class names; a label is an index into them, or -1 where the class is unknown.
    """

    table: pa.Table
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse labels that no class stands for."""
        label = pc.field("label")
        outside = self.table.filter((label < UNKNOWN_LABEL) | (label >= len(self.classes)))
        if len(outside):
            row = outside.slice(0, 1).to_pylist()[0]
            raise DataError(
                f"label {row['label']} of video {row['video_id']!r} is outside the "
                f"{len(self.classes)} classes ({len(outside)} such videos); "
                f"allowed are 0 to {len(self.classes) - 1}, and -1 for unknown"
            )

    def __len__(self) -> int:
        """Count the videos."""
        return self.table.num_rows

    @cached_property
    def digest(self) -> str:
        """Stands for classes and videos, in their order, wherever the files lie."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for name in _IDENTITY:
            digest.update(_hash_column(self.table[name]))
        return digest.hexdigest()[:16]

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """Read a manifest; shards that it names relative to its folder get their absolute path.

        Args:
            path: Local path or URL.

        Raises:
            DataError: The file is missing, no Parquet, no manifest, of another schema version,
                lacks columns, holds no video, or a label outside its classes.
        """
        folder, path = absolute(parent(str(path))), absolute(path)
        if not is_url(path) and not Path(path).is_file():
            raise DataError(
                f"there is no manifest at {path}; write one with jobs/prepare_data.py index, or "
                "name another (data.manifest=FILE in a configuration, --data FILE for other jobs)"
            )
        with opened(path) as file:
            try:
                table = pq.read_table(file)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{path} is not a readable Parquet file: {error}") from error
        classes = _read_classes(path, table.schema.metadata or {})
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise DataError(f"manifest {path} lacks the columns {', '.join(missing)}; index again")
        if table.num_rows == 0:
            raise DataError(f"manifest {path} is empty: it lists no video; index again")
        try:
            table = table.select(SCHEMA.names).cast(SCHEMA)
        except (pa.ArrowInvalid, ValueError) as error:
            raise DataError(f"manifest {path} has columns of other types: {error}") from error
        try:
            return cls(table=_with_absolute_shards(table, folder), classes=classes)
        except DataError as error:
            raise DataError(f"manifest {path}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write the manifest; a reader sees either the old file or the whole new one."""
        content = json.dumps({"schema_version": SCHEMA_VERSION, "classes": list(self.classes)})
        write_parquet(self.table.replace_schema_metadata({_METADATA_KEY: content}), path)

    def split(self, name: str) -> "Manifest":
        """Select the videos of one split, in the manifest's order.

        Raises:
            DataError: No video belongs to it.
        """
        part = self.table.filter(pc.field("split") == name)
        if len(part) == 0:
            present = ", ".join(sorted(self.table["split"].unique().to_pylist()))
            raise DataError(f"the manifest has no video in split {name!r}; it has: {present}")
        return Manifest(table=part, classes=self.classes)


def read_videos(path: str | Path, split: str, columns: Sequence[str]) -> pa.Table:
    """Read some columns of one split of a manifest that has been read before.

    Nothing else is held in memory on the way.
    """
    table = pq.read_table(path, columns=list(columns), filters=pc.field("split") == split)
    return _with_absolute_shards(table, absolute(parent(str(path))))


def write_parquet(table: pa.Table, path: str | Path) -> None:
    """Write a table; a reader sees either the old file or the whole new one."""
    with replacing(path) as partial:
        pq.write_table(table, partial)


def _with_absolute_shards(table: pa.Table, folder: str) -> pa.Table:
    if table["shard"].null_count == len(table):
        return table
    chunks = []
    for chunk in table["shard"].chunks:
        codes = chunk.dictionary_encode()
        names = [join(folder, name) for name in codes.dictionary.to_pylist()]
        chunks.append(pa.array(names, pa.string()).take(codes.indices))
    shards = pa.chunked_array(chunks, pa.string())
    return table.set_column(table.schema.get_field_index("shard"), SCHEMA.field("shard"), shards)


def _hash_column(column: pa.ChunkedArray) -> bytes:
    """Hash the values of a column without nulls; how it is cut into chunks does not matter."""
    values, lengths = hashlib.sha256(), hashlib.sha256()
    for chunk in column.chunks:
        if not pa.types.is_string(chunk.type):
            values.update(chunk.to_numpy())
        elif len(chunk):
            _, offsets, letters = chunk.buffers()
            ends = np.frombuffer(offsets, np.int32)[chunk.offset :][: len(chunk) + 1]
            lengths.update(np.diff(ends).tobytes())
            values.update(memoryview(letters or b"")[ends[0] : ends[-1]])
    return values.digest() + lengths.digest()


def _read_classes(path: str, metadata: Mapping[bytes, bytes]) -> tuple[str, ...]:
    if _METADATA_KEY not in metadata:
        raise DataError(f"{path} is a Parquet file but no manifest: write one with index")
    content = json.loads(metadata[_METADATA_KEY])
    version = content["schema_version"]
    if version != SCHEMA_VERSION:
        raise DataError(
            f"manifest {path} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "index again with this version"
        )
    return tuple(content["classes"])
