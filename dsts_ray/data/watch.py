"""Clips that end their decoding process, or hang it, cost one clip instead of the run.

A process notes which clip it is at before it decodes it. Its successors on the same machine find
the notes of the dead: a clip that two processes died at is refused, the first death may have had
another cause. A clip that takes longer than the time limit ends its process, and is refused at
once. Ray starts a dead process again and gives it the same block.
"""

import faulthandler
import fcntl
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dsts_ray.errors import DataError

DEATHS_TO_REFUSE = 2

_NOTE_BYTES = 8
_NOTHING = (-1).to_bytes(_NOTE_BYTES, "little", signed=True)
_KEPT_S = 24 * 3600.0


class Watch:
    """Watches over a process that decodes a stream's clips one at a time."""

    def __init__(self, stream: str, timeout_s: float) -> None:
        """Read what dead processes of the stream left behind, and begin a note of one's own.

        Args:
            stream: Names the stream, alike in all its processes.
            timeout_s: A clip may take, above 0.
        """
        self.timeout_s = timeout_s
        folder = Path(tempfile.gettempdir()) / f"dsts_ray-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._died_at: Counter[int] = Counter()
        self._hung_at: set[int] = set()
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another process removes old notes, too
                if path.name.startswith(f"{stream}-"):
                    self._read(path)
                elif time.time() - path.stat().st_mtime > _KEPT_S:
                    path.unlink()
        self._note = (folder / f"{stream}-{os.getpid()}-{time.time_ns()}").open("wb", buffering=0)
        fcntl.flock(self._note, fcntl.LOCK_EX)
        self._note.write(_NOTHING)

    @contextmanager
    def over(self, sample_id: int) -> Iterator[None]:
        """Watch while one clip is decoded.

        Raises:
            DataError: Processes died at this clip, or it has exceeded the time limit, before.
        """
        if sample_id in self._hung_at:
            raise DataError(
                f"did not decode within {self.timeout_s:g} s (data.decode_timeout_s), which ended "
                "the decoding process"
            )
        if self._died_at[sample_id] >= DEATHS_TO_REFUSE:
            raise DataError(f"{self._died_at[sample_id]} decoding processes died at it")
        self._write(sample_id.to_bytes(_NOTE_BYTES, "little", signed=True))
        faulthandler.dump_traceback_later(self.timeout_s, exit=True, file=self._note)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._write(_NOTHING)

    def _write(self, note: bytes) -> None:
        os.pwrite(self._note.fileno(), note, 0)

    def _read(self, path: Path) -> None:
        """Count a note whose process is dead: it holds no lock any more."""
        with path.open("rb") as note:
            try:
                fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            content = note.read()
        if len(content) < _NOTE_BYTES:
            return
        sample_id = int.from_bytes(content[:_NOTE_BYTES], "little", signed=True)
        if sample_id >= 0:
            self._died_at[sample_id] += 1
        if len(content) > _NOTE_BYTES:  # the time limit's traceback
            self._hung_at.add(sample_id)
