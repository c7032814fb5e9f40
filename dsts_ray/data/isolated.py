"""Decoding in a process of its own: a video that ends or hangs it costs its own answer alone.

``watch.py`` does so for streams, whose processes Ray starts again.
"""

import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.decode import name_of, stated_seconds
from dsts_ray.data.watch import DEATHS_TO_REFUSE
from dsts_ray.errors import DataError, DSTSRayError, LimitError

_START_S = 120.0

Decode = Callable[[Any], Any]
"""From a video to what is made of it; both are pickled on the way."""


class DecodingProcess:
    """Decodes one video at a time in another process, which starts with the first of them.

    It may be called from several threads.
    """

    def __init__(self, prepare: Callable[[], Decode], *, timeout_s: float) -> None:
        """Decode in some way.

        Args:
            prepare: Is called in the process when it starts; what it returns decodes there.
            timeout_s: That a video may take, above 0.
        """
        self.prepare, self.timeout_s = prepare, timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def __call__(self, video: Any) -> Any:  # noqa: ANN401
        """Return what is made of a video.

        Raises:
            DSTSRayError: What decoding raised; a DataError, too, where two processes died at the
                video (the first death may have had another cause), or one took too long over it;
                and where no process starts.
        """
        with self._lock:
            for _ in range(DEATHS_TO_REFUSE):
                connection = self._connection or self._start()
                try:
                    connection.send(video)
                    if not connection.poll(self.timeout_s):
                        self.close()
                        raise DataError(f"did not decode within {self.timeout_s:g} s")
                    answer = connection.recv()
                    break
                except (EOFError, OSError):
                    self.close()
            else:
                raise DataError(f"{DEATHS_TO_REFUSE} decoding processes died at it")
        if isinstance(answer, DSTSRayError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process; the next video starts another."""
        if self._process and self._connection:
            self._process.kill()
            self._process.wait()
            self._connection.close()
        self._process = self._connection = None

    def _start(self) -> "Connection[Any, Any]":
        """Start a process of this file.

        Those of ``multiprocessing`` run the main script again, which may have no guard.
        """
        connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
        variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
        weakref.finalize(self, self._process.kill)
        theirs.close()
        self._connection = connection
        try:
            connection.send(self.prepare)
            started = connection.poll(_START_S) and connection.recv() is None
        except (EOFError, OSError):
            started = False
        if not started:
            self.close()
            raise DSTSRayError(
                "the process that decodes videos did not start; what it said stands above. Is "
                "there memory for another process of about 1 GiB?"
            )
        return connection


def _decode(connection: "Connection[Any, Any]", prepare: Callable[[], Decode]) -> None:
    """Answer videos with what is made of them, or with the error why there is nothing."""
    decode = prepare()
    connection.send(None)
    while True:
        try:
            video = connection.recv()
        except EOFError:
            return
        try:
            answer = decode(video)
        except DSTSRayError as error:
            answer = error
        connection.send(answer)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    _decode(connection, connection.recv())


def limited_views(
    spec: ViewSpec, max_seconds: float | None
) -> Callable[[dict[str, Any]], np.ndarray]:
    """Prepare to decode rows to all their views, see ``ViewSpec.views``.

    Args:
        spec: Of the views.
        max_seconds: That a video's file may state as its length; a LimitError beyond. None takes
            any.
    """
    import dsts_ray.data.geometry  # noqa: F401 - torch, before a video's time is counted

    return partial(_views, spec, max_seconds)


def _views(spec: ViewSpec, max_seconds: float | None, row: dict[str, Any]) -> np.ndarray:
    if max_seconds is not None:
        _check_length(row["path"], max_seconds)
    return spec.views(row)


def _check_length(source: str | bytes, max_seconds: float) -> None:
    seconds = stated_seconds(source)
    if seconds > max_seconds:
        raise LimitError(
            f"{name_of(source)} lasts {seconds:.1f} s; {max_seconds:g} s are allowed here"
        )


if __name__ == "__main__":
    _main()
