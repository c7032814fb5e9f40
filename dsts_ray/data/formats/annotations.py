"""What every reader of a release's annotation files returns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dsts_ray.errors import DataError


class VideoRow(NamedTuple):
    """One annotated video.

    Attributes:
        video_id: Unique name within the data set.
        split: "train", "val" or "test".
        label: Index into the classes, -1 where the release keeps it secret.
        group: Source video; videos of one group must not be split.
        path: Where the file should lie.
        start_frame: First frame of the annotated part.
        end_frame: End of the annotated part, exclusive; None is the video's end.
    """

    video_id: str
    split: str
    label: int
    group: str
    path: Path
    start_frame: int = 0
    end_frame: int | None = None


class Annotations(NamedTuple):
    """All videos of a release and the names of its classes."""

    rows: list[VideoRow]
    classes: tuple[str, ...]


def read_json(path: Path) -> object:
    """Read one annotation file.

    Raises:
        DataError: It is missing or no JSON.
    """
    if not path.is_file():
        raise DataError(f"annotation file {path} is missing; --root must name the release's folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"annotation file {path} is not valid JSON: {error}") from error


def read_items(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Read an annotation file that holds a list of objects, each with the given keys.

    Raises:
        DataError: It is missing, no JSON, no list, or an item lacks a key.
    """
    items = read_json(path)
    if not isinstance(items, list):
        raise DataError(f"annotation file {path} must hold a list of videos")
    for index, item in enumerate(items):
        missing = [key for key in keys if not isinstance(item, dict) or key not in item]
        if missing:
            raise DataError(f"annotation file {path}: item {index} lacks {', '.join(missing)}")
    return items
