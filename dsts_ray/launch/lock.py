"""One process at a time, by a locked file."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process, on any node that shares the file system, is in this block.

    The operating system frees the lock of a process that dies.

    Args:
        path: Of the lock, an empty file that is made and stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
