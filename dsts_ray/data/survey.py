"""Every distinct file of a data set probed once, in several processes."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from dsts_ray.data.decode import VideoInfo, probe
from dsts_ray.data.storage import is_url, read_bytes
from dsts_ray.errors import DataError

NO_FILE = -1

_CHUNK_SIZE = 16


class Survey(NamedTuple):
    """What there is behind the paths of a data set.

    Attributes:
        files: Number of the file behind each path, int64 [paths]; ``NO_FILE`` where there is none.
            A file has one number under all its names: local files by device and inode.
        found: What each file delivers, or why it cannot be used.
    """

    files: np.ndarray
    found: list[VideoInfo | str]


def survey(paths: Sequence[str], num_processes: int) -> Survey:
    """Probe every distinct file behind these paths.

    A file at a URL is fetched whole; whether it is there shows then.

    Args:
        paths: Absolute paths or URLs.
        num_processes: Processes that decode; 1 decodes in this one.

    Raises:
        DataError: A process died.
    """
    numbers: dict[object, int] = {}
    files = np.full(len(paths), NO_FILE, np.int64)
    distinct: list[str] = []
    for row, path in enumerate(paths):
        identity = path if is_url(path) else _identity(path)
        if identity is None:
            continue
        files[row] = numbers.setdefault(identity, len(numbers))
        if len(numbers) > len(distinct):
            distinct.append(path)
    return Survey(files, list(_probe_all(distinct, num_processes)))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of 220,000 names takes seconds
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _probe_all(paths: Sequence[str], num_processes: int) -> Iterator[VideoInfo | str]:
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
        return probe(read_bytes(path) if is_url(path) else path)
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
