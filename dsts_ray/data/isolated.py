"""Decoding in a process of its own, for a server: a video that ends or hangs it costs one answer.

``watch.py`` does so for streams, whose processes Ray starts again.
"""

import multiprocessing
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from dsts_ray.data.clip import ViewSpec
from dsts_ray.data.decode import name_of, stated_seconds
from dsts_ray.errors import DataError, DSTSRayError, LimitError

_START_S = 120.0


class DecodingProcess:
    """Decodes one video at a time in another process, which starts with the first of them.

    It may be called from several threads.
    """

    def __init__(self, spec: ViewSpec, *, max_seconds: float, timeout_s: float) -> None:
        """Decode as ``spec`` says.

        Args:
            spec: Of the views.
            max_seconds: That a video's file may state as its length.
            timeout_s: That a video may take, above 0.
        """
        self.spec, self.max_seconds, self.timeout_s = spec, max_seconds, timeout_s
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection[Any, Any] | None = None

    def views(self, row: Mapping[str, Any]) -> np.ndarray:
        """All views of a video, see ``ViewSpec.views``.

        Raises:
            DataError: It cannot be decoded, or the process died or took too long over it.
            LimitError: It is too long.
        """
        with self._lock:
            connection = self._connection or self._start()
            try:
                connection.send(dict(row))
                if not connection.poll(self.timeout_s):
                    self.close()
                    raise DataError(f"the video did not decode within {self.timeout_s:g} s")
                answer = connection.recv()
            except (EOFError, OSError) as error:
                self.close()
                raise DataError("the process that decoded the video died at it") from error
        if isinstance(answer, DSTSRayError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process; the next video starts another."""
        if self._process and self._connection:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None

    def _start(self) -> "Connection[Any, Any]":
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_decode, args=(theirs, self.spec, self.max_seconds), daemon=True
        )
        self._process.start()
        theirs.close()
        self._connection = connection
        if not connection.poll(_START_S) or connection.recv() is not None:
            self.close()
            raise OSError("the process that decodes did not start")
        return connection


def _decode(connection: "Connection[Any, Any]", spec: ViewSpec, max_seconds: float) -> None:
    """Answer rows with views, or with the error why there are none."""
    import dsts_ray.data.geometry  # noqa: F401 - torch, before a video's time is counted

    connection.send(None)
    while True:
        try:
            row = connection.recv()
        except EOFError:
            return
        try:
            _check_length(row["path"], max_seconds)
            answer = spec.views(row)
        except DSTSRayError as error:
            answer = error
        connection.send(answer)


def _check_length(source: str | bytes, max_seconds: float) -> None:
    seconds = stated_seconds(source)
    if seconds > max_seconds:
        raise LimitError(
            f"{name_of(source)} lasts {seconds:.1f} s; {max_seconds:g} s are allowed here"
        )
