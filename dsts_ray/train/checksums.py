"""Folders that are whole or not there: sizes and SHA-256 of all files, written last."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dsts_ray.errors import CheckpointError

CHECKSUMS_FILE = "checksums.json"
PARTIAL_SUFFIX = ".partial"


def write_sealed(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder that appears under its name when all of it is on the disk.

    A writer that dies leaves the folder's name with ``.partial`` at most.

    Args:
        folder: New folder.
        write: Writes the files into the folder it is given.

    Raises:
        CheckpointError: The files cannot be written; nothing is left of them.
    """
    partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
    try:
        partial.mkdir(parents=True)
        write(partial)
        _seal(partial)
        partial.rename(folder)
        _flush(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"{folder}: cannot write it ({error}); the checkpoint before stays: make room or mend "
            "the folder, and run the same command again to continue from there"
        ) from error


def verify(folder: Path) -> None:
    """Read every file of a sealed folder and compare size and SHA-256.

    Raises:
        CheckpointError: Names the first file that is missing or not as it was written.
    """
    path = folder / CHECKSUMS_FILE
    try:
        expected: dict[str, dict[str, Any]] = json.loads(path.read_text())["files"]
        for name, entry in sorted(expected.items()):
            found = _describe(folder / name)
            if found != entry:
                raise CheckpointError(
                    f"{folder / name} is damaged: {found['bytes']} bytes with SHA-256 "
                    f"{found['sha256'][:12]}, written were {entry['bytes']} with "
                    f"{entry['sha256'][:12]}; use another checkpoint"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} is damaged: cannot compare its files with {CHECKSUMS_FILE} ({error}); "
            "use another checkpoint"
        ) from error


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {"files": {path.relative_to(folder).as_posix(): _describe(path) for path in files}}
    (folder / CHECKSUMS_FILE).write_text(json.dumps(content, indent=2))
    for path in (*files, folder / CHECKSUMS_FILE, folder):
        _flush(path)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _flush(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
