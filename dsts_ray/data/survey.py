"""Every distinct file of a data set probed once, in several processes."""

import faulthandler
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from dsts_ray.data.decode import VideoInfo, probe
from dsts_ray.data.storage import is_url, read_bytes
from dsts_ray.data.watch import DEATHS_TO_REFUSE
from dsts_ray.errors import DataError

NO_FILE = -1

_CHUNK_SIZE = 16
_ROUND = 1024
_TIMEOUT_S = 600.0


class Survey(NamedTuple):
    """What there is behind the paths of a data set.

    Attributes:
        files: Number of the file behind each path, int64 [paths]; ``NO_FILE`` where there is none.
            A file has one number under all its names: local files by device and inode.
        found: What each file delivers, or why it cannot be used.
    """

    files: np.ndarray
    found: list[VideoInfo | str]


def survey(paths: Sequence[str], num_processes: int, *, timeout_s: float = _TIMEOUT_S) -> Survey:
    """Probe every distinct file behind these paths.

    A file at a URL is fetched whole; whether it is there shows then. A file at which two processes
    died, or exceeded the time limit, cannot be used.

    Args:
        paths: Absolute paths or URLs.
        num_processes: Processes that decode; 1 decodes in this one, and whatever ends it ends all.
        timeout_s: A file may take, with several processes.

    Raises:
        DataError: No process starts.
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
    found = _probe_all(distinct, num_processes, timeout_s)
    return Survey(files, list(_tracked(found, len(distinct))))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of 220,000 names takes seconds
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _probe_all(
    paths: Sequence[str], num_processes: int, timeout_s: float
) -> Iterator[VideoInfo | str]:
    """Probe in rounds; a round in which a process died is probed again by one process at a time."""
    if num_processes == 1:
        yield from map(_probe_or_reason, paths)
        return
    probe_one = partial(_probe_within, timeout_s=timeout_s)
    pool = _processes(num_processes)
    try:
        for first in range(0, len(paths), _ROUND):
            batch = paths[first : first + _ROUND]
            try:
                yield from list(pool.map(probe_one, batch, chunksize=_CHUNK_SIZE))
            except BrokenProcessPool:
                yield from _probe_with_care(batch, probe_one)
                pool = _processes(num_processes)
    finally:
        pool.shutdown(cancel_futures=True)


def _probe_with_care(
    paths: Sequence[str], probe_one: Callable[[str], VideoInfo | str]
) -> Iterator[VideoInfo | str]:
    """Probe file after file in one process, which tells at which file it died."""
    done, deaths = 0, 0
    while done < len(paths):
        with _processes(1) as pool:
            try:
                for result in pool.map(probe_one, paths[done:]):
                    yield result
                    done, deaths = done + 1, 0
            except BrokenProcessPool:
                deaths += 1
        if deaths == DEATHS_TO_REFUSE:
            yield f"{deaths} processes died or hung while they decoded it"
            done, deaths = done + 1, 0


def _processes(number: int) -> ProcessPoolExecutor:
    """Start processes, and see that they do.

    Raises:
        DataError: They do not.
    """
    pool = ProcessPoolExecutor(number, mp_context=get_context("spawn"))
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that is to decode videos died before the first; was it killed for memory, "
            "or does the script that calls this lack its __main__ guard?"
        ) from error
    return pool


def _probe_within(path: str, timeout_s: float) -> VideoInfo | str:
    """Probe a file, or end the process."""
    faulthandler.dump_traceback_later(timeout_s, exit=True)
    try:
        return _probe_or_reason(path)
    finally:
        faulthandler.cancel_dump_traceback_later()


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
