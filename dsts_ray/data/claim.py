"""A folder that one piece of work fills, in one process or in several after each other."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsts_ray.data.storage import replacing
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
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.glob("[!.]*"))):
            raise DataError(f"{folder} is not empty and holds no {work}: choose another --out")
        with replacing(path) as partial:
            partial.write_text(json.dumps(record, indent=1))
    with path.open("r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process writes into {folder}: wait for it") from error
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
