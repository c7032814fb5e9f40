"""What every reader of a data set's annotations returns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from dsts_ray.data.storage import read_bytes
from dsts_ray.errors import DataError

ANNOTATION_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train, val or test
        pa.field("label", pa.int64(), nullable=False),  # -1 where it is unknown or at fault
        pa.field("group", pa.string(), nullable=False),  # source video
        pa.field("path", pa.string(), nullable=False),  # absolute, or a URL
        pa.field("start_frame", pa.int64(), nullable=False),
        pa.field("end_frame", pa.int64()),  # exclusive; null is the video's end
        pa.field("fault", pa.string()),  # why the annotation itself cannot be used
    ]
)

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv")


class Annotations(NamedTuple):
    """All that a data set's annotations say.

    Attributes:
        table: One row an annotated video, columns of ``ANNOTATION_SCHEMA``, in the order read.
        classes: Class names; a label is an index into them.
        lists: The files read.
        folder: Whose files must all be annotated; None where the annotations name no folder.
    """

    table: pa.Table
    classes: tuple[str, ...]
    lists: tuple[str, ...]
    folder: str | None = None


def annotation_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Make the table of annotations; parts are whole videos and nothing is at fault by default."""
    num_rows = len(columns["video_id"])
    default = {"start_frame": [0] * num_rows, "end_frame": [None] * num_rows}
    default["fault"] = [None] * num_rows
    return pa.table({**default, **columns}, schema=ANNOTATION_SCHEMA)


def read_json(path: str) -> object:
    """Read one annotation file.

    Raises:
        DataError: It is missing or no JSON.
    """
    try:
        content = read_bytes(path)
    except DataError as error:
        raise DataError(
            f"annotation file {error}; --root must name the release's folder"
        ) from error
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"annotation file {path} is not valid JSON: {error}") from error


def read_items(path: str, keys: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """Read an annotation file that holds a list of objects.

    Args:
        path: The file.
        keys: What each object must have, with its type.

    Raises:
        DataError: It is missing, no JSON, no list, or an item lacks a key or has another type.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise DataError(f"annotation file {path} must hold a list of videos")
    for index, item in enumerate(items):
        given = item if isinstance(item, dict) else {}
        wrong = [
            key
            for key, kind in keys.items()
            if key not in given or not isinstance(given[key], kind)
        ]
        if wrong:
            shown = (
                f"a proper {key} (not {given[key]!r})" if key in given else key for key in wrong
            )
            raise DataError(f"annotation file {path}: item {index} lacks {', '.join(shown)}")
    return items
