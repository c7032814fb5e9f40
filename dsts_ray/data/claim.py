"""A folder that one piece of work fills, in one process or in several after each other."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsts_ray.errors import DataError


@contextmanager
def claimed_folder(folder: Path, record: dict[str, Any], *, file: str, work: str) -> Iterator[None]:
    """Hold a folder for one piece of work; what a dead process left half-written is removed.

    Args:
        folder: Made where there is none.
        record: Decides what the work writes; plain JSON.
        file: Keeps the record, in the folder.
        work: What it is, as in "a packing".

    Raises:
        DataError: The folder holds something else, such work with another record, or work that is
            going on.
    """
    path = folder / file
    is_taken = folder.exists() and (not folder.is_dir() or any(folder.glob("[!.]*")))
    if is_taken and not path.exists():
        raise DataError(f"{folder} is not empty and holds no {work}: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as held:  # one file for all who come at once; a replaced one has two locks
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process writes into {folder}: wait for it") from error
        if held.seek(0, os.SEEK_END) == 0:
            held.write(json.dumps(record, indent=1))
            held.flush()
        held.seek(0)
        before = json.load(held)
        changed = [
            f"{name}: {before.get(name)} before, {record.get(name)} now"
            for name in before | record
            if before.get(name) != record.get(name)
        ]
        if changed:
            raise DataError(
                f"{folder} holds another {work} ({'; '.join(changed)}): choose another --out, or "
                "delete the folder to begin anew"
            )
        for partial in folder.rglob(".*.tmp"):
            partial.unlink()
        yield
