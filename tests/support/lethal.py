"""Clips that end or hang the process that decodes them, for real."""

import ctypes
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.reencode import Reencoding
from dsts_ray.data.windows import Window


@dataclass(frozen=True, kw_only=True)
class LethalSpec(ClipSpec):
    """Attributes say at which sample a process is killed once, crashes, or hangs."""

    killed_at: int
    crashes_at: int
    hangs_at: int
    flag: Path  # exists once the killing is done

    def training_clip(self, row: dict[str, Any], *, epoch: int, sample_id: int) -> np.ndarray:
        """Decode, or not."""
        if sample_id == self.killed_at:
            be_killed_once(self.flag)
        if sample_id == self.crashes_at:
            crash()
        if sample_id == self.hangs_at:
            hang()
        return super().training_clip(row, epoch=epoch, sample_id=sample_id)


@dataclass(frozen=True, kw_only=True)
class LethalViewSpec(ViewSpec):
    """Of some videos, by the ends of their names, frame 0 crashes the process or hangs it."""

    crashes: str
    hangs: str

    def views_of(
        self, row: dict[str, Any], windows: Callable[[int], Sequence[Window]]
    ) -> np.ndarray:
        """Decode, or not."""

        def lethal(num_frames: int) -> Sequence[Window]:
            laid = windows(num_frames)
            name = str(row["path"])
            if laid[0][0] == 0 and name.endswith(self.crashes):
                crash()
            if laid[0][0] == 0 and name.endswith(self.hangs):
                hang()
            return laid

        return super().views_of(row, lethal)


@dataclass(frozen=True, kw_only=True)
class LethalReencoding(Reencoding):
    """Some videos, by the ends of their paths, crash the process, hang it, or are killed once."""

    crashes: str
    hangs: str
    killed: str
    flag: Path  # exists once the killing is done

    def apply(self, source: str | bytes) -> bytes:
        """Encode, or not."""
        name = str(source)
        if name.endswith(self.killed):
            be_killed_once(self.flag)
        if name.endswith(self.crashes):
            crash()
        if name.endswith(self.hangs):
            hang()
        return super().apply(source)


def be_killed_once(flag: Path) -> None:
    """Send this process SIGKILL and make the flag; nothing where the flag is there."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """End this process by a segmentation fault."""
    ctypes.string_at(0)


def hang() -> None:
    """Hold the interpreter's lock for five minutes, as a decoder may."""
    ctypes.PyDLL(None).sleep(300)
