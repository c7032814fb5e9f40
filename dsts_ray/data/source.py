"""From a manifest's row to what the decoder takes: a file of this machine, or bytes."""

from collections.abc import Mapping
from typing import Any

from dsts_ray.data.decode import name_of
from dsts_ray.data.shards import read_video
from dsts_ray.data.storage import is_url, read_bytes


def video_source(row: Mapping[str, Any]) -> str | bytes:
    """Find a row's video.

    Args:
        row: Its ``shard`` and ``row``, or its ``path``: a local path, a URL, or bytes themselves.

    Returns:
        A local path, or the encoded bytes of what lies in a shard or at a URL.

    Raises:
        DataError: The shard or the object cannot be read. A missing local file shows when it is
            decoded.
    """
    if row.get("shard") is not None:
        return read_video(row["shard"], row["row"])
    path = row["path"]
    return read_bytes(path) if isinstance(path, str) and is_url(path) else path


def video_bytes(row: Mapping[str, Any]) -> bytes:
    """Read a row's encoded bytes.

    Raises:
        DataError: They cannot be read.
    """
    source = video_source(row)
    return source if isinstance(source, bytes) else read_bytes(source)


def video_name(row: Mapping[str, Any]) -> str:
    """Say where a row's video lies, for messages."""
    if row.get("shard") is not None:
        return f"{row['shard']} row {row['row']}"
    return name_of(row["path"])
