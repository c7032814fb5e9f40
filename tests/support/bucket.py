"""An object store in memory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import fsspec


@contextlib.contextmanager
def bucket_with(folder: Path) -> Iterator[str]:
    """Put a folder into a bucket that is there for the context; yields the folder's URL there."""
    system = fsspec.filesystem("memory")
    system.put(str(folder), f"/bucket/{folder.name}", recursive=True)
    try:
        yield f"memory://bucket/{folder.name}"
    finally:
        system.rm("/bucket", recursive=True)
