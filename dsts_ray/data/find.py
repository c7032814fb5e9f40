"""Videos by the names of a command line: files, folders, globs, manifests, here or at URLs."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.utils import glob_translate

from dsts_ray.data.formats.annotations import VIDEO_SUFFIXES
from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.data.storage import absolute, file_exists, is_url, join, list_files, without_options
from dsts_ray.errors import DataError

MANIFEST_SUFFIX = ".parquet"

VIDEO_SCHEMA = pa.schema(
    [
        SCHEMA.field(name).with_nullable(True)
        for name in (
            *("video_id", "path", "shard", "row", "start_frame", "end_frame"),
            *("fps", "width", "height", "rotation"),
        )
    ]
)
"""What is known of a video to predict; of a file only its path, which is its id, too."""


def find_videos(names: Sequence[str], *, split: str | None) -> pa.Table:
    """List the videos that names stand for, each once, in the order of the names.

    A name is a video file (it may be missing: that shows when it is decoded), a folder (all files
    in and below it that end as videos do, sorted), a glob (``*``, ``[a-z]``, ``**`` for folders,
    ``?`` but in URLs) or a manifest (``.parquet``). All of them may be URLs; a manifest's
    videos may lie at URLs or in shards.

    Args:
        names: As given.
        split: Of manifests; None takes all.

    Returns:
        Columns of ``VIDEO_SCHEMA``.

    Raises:
        DataError: A folder, a glob or a split has no video, a manifest cannot be read, or there is
            a split and no manifest.
    """
    if split and not any(map(_is_manifest, names)):
        raise DataError(
            f"--split {split} chooses from manifests, and no {MANIFEST_SUFFIX} is given"
        )
    tables = [_videos_of(name, split) for name in names]
    videos = pa.concat_tables(tables)
    first = (
        videos.append_column("number", pa.array(range(len(videos))))
        .group_by(VIDEO_SCHEMA.names)
        .aggregate([("number", "min")])["number_min"]
    )
    return videos.take(first.combine_chunks().sort())


def _videos_of(name: str, split: str | None) -> pa.Table:
    if _is_manifest(name):
        manifest = Manifest.read(name)
        table = manifest.split(split).table if split else manifest.table
        return table.select(VIDEO_SCHEMA.names).cast(VIDEO_SCHEMA)
    name = absolute(name)
    paths = _matching(name) if _is_glob(name) else _in_folder(name) if _is_folder(name) else [name]
    if not paths:
        raise DataError(f"{name}: no file there ends in {', '.join(VIDEO_SUFFIXES)}")
    rows: list[dict[str, Any]] = [
        {"video_id": path, "path": path, "start_frame": 0} for path in paths
    ]
    return pa.Table.from_pylist(rows, VIDEO_SCHEMA)


def _is_manifest(name: str) -> bool:
    return without_options(name).endswith(MANIFEST_SUFFIX)


def _is_glob(name: str) -> bool:
    if is_url(name):
        return bool(re.search(r"[*\[]", without_options(name)))
    return glob.has_magic(name) and not Path(name).exists()


def _is_folder(name: str) -> bool:
    if not is_url(name):
        return Path(name).is_dir()
    path = without_options(name)
    return not path.lower().endswith(VIDEO_SUFFIXES) and not file_exists(name)


def _in_folder(folder: str) -> list[str]:
    return [join(folder, name) for name in list_files(folder) if _is_video(name)]


def _matching(pattern: str) -> list[str]:
    """Files of a glob, sorted."""
    if not is_url(pattern):
        found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob wants a folder first
        return sorted(path for path in found if _is_video(path))
    path, mark, options = pattern.partition("?")
    folder = re.split(r"[*\[]", path)[0].rpartition("/")[0]
    wanted = re.compile(glob_translate(path.removeprefix(f"{folder}/")))
    found = list_files(f"{folder}{mark}{options}")
    return [
        join(f"{folder}{mark}{options}", name)
        for name in found
        if wanted.match(name) and _is_video(name)
    ]


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)
