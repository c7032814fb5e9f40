"""Shards: Parquet files that hold the encoded bytes of many videos.

A shard has one column, ``video``, and a row group for each row, so reading a video reads little
else: it costs a look into the footer, which stays in memory, and the video's own bytes. Nothing in
it tells when or where it was written, so that the same videos give the same file.
"""

import json
from collections.abc import Generator, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from dsts_ray.data.storage import open_file, replacing
from dsts_ray.errors import DataError

SHARD_SCHEMA = pa.schema([pa.field("video", pa.binary())])  # null where the video was refused

_METADATA_KEY = b"dsts_ray.shard"
_LAYOUT: dict[str, Any] = {
    "compression": "none",  # videos are compressed
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
}
_MAX_OPEN_SHARDS = 32  # a footer of 5600 videos takes 5 MB of memory


class ShardInfo(NamedTuple):
    """What a shard says about itself.

    Attributes:
        packing: Stands for all that decided its content.
        video_ids: Of every row.
        refused: Reasons by row, of videos that are not in it.
    """

    packing: str
    video_ids: tuple[str, ...]
    refused: dict[int, str]


def write_shard(
    path: Path, *, packing: str, video_ids: Iterable[str], contents: Iterable[bytes | DataError]
) -> Generator[int, None, None]:
    """Write a shard, video by video; it appears under its name when it is complete.

    Args:
        path: The shard.
        packing: Stands for all that decides its content.
        video_ids: Of every row.
        contents: Encoded bytes of every row, or why there are none.

    Yields:
        The row that was written last.
    """
    refused: dict[int, str] = {}
    with replacing(path) as partial, pq.ParquetWriter(partial, SHARD_SCHEMA, **_LAYOUT) as writer:
        for row, content in enumerate(contents):
            if isinstance(content, DataError):
                refused[row], content = str(content), None
            writer.write_table(pa.table([[content]], schema=SHARD_SCHEMA))
            yield row
        info = {"packing": packing, "video_ids": list(video_ids), "refused": refused}
        writer.add_key_value_metadata({_METADATA_KEY: json.dumps(info).encode()})


def read_info(path: str) -> ShardInfo:
    """Read what a shard says about itself.

    Raises:
        DataError: It is missing or no shard.
    """
    with _reader(path) as reader:
        metadata = reader.metadata.metadata or {}
    if _METADATA_KEY not in metadata:
        raise DataError(f"{path} is a Parquet file but no shard")
    info = json.loads(metadata[_METADATA_KEY])
    refused = {int(row): reason for row, reason in info["refused"].items()}
    return ShardInfo(info["packing"], tuple(info["video_ids"]), refused)


def read_video(path: str, row: int) -> bytes:
    """Read one video's encoded bytes.

    The shard stays open in this process until some others have been read after it.

    Args:
        path: Local path or URL of the shard.
        row: In the shard.

    Raises:
        DataError: The shard is missing or damaged, or has no such video.
    """
    reader = _kept_reader(path)
    if not 0 <= row < reader.num_row_groups:
        raise DataError(f"{path}: has {reader.num_row_groups} videos, there is no row {row}")
    try:
        content = reader.read_row_group(row, use_threads=False)["video"][0].as_py()
    except (pa.ArrowException, OSError) as error:
        _kept_reader.cache_clear()  # it may be mended by the time of another try
        raise DataError(f"{path}: row {row} cannot be read: {error}") from error
    if content is None:
        raise DataError(f"{path}: row {row} holds no video, it was refused when it was packed")
    return content


@lru_cache(maxsize=_MAX_OPEN_SHARDS)
def _kept_reader(path: str) -> pq.ParquetFile:
    return _reader(path)


def _reader(path: str) -> pq.ParquetFile:
    file = open_file(path)
    try:
        reader = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        file.close()
        raise DataError(f"{path}: is no readable Parquet file: {error}") from error
    if reader.schema_arrow.names != SHARD_SCHEMA.names:
        reader.close(force=True)
        raise DataError(f"{path}: is a Parquet file but no shard")
    return reader
