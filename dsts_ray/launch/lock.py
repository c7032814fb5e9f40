"""One process at a time, by a locked file."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsts_ray.errors import ConfigError


@contextmanager
def locked(path: Path, refusal: str = "") -> Iterator[None]:
    """Wait until no other process, on any node that shares the file system, is in this block.

    The operating system frees the lock of a process that dies.

    Args:
        path: Of the lock, an empty file that is made and stays.
        refusal: What to say instead of waiting.

    Raises:
        ConfigError: Another process is in the block, and there is a refusal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError as error:
            raise ConfigError(refusal) from error
        yield
