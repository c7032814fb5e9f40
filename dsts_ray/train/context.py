"""What a training worker knows of the world around it."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Protocol

import torch


class Notice(IntEnum):
    """What the world asks of a run."""

    NONE = 0
    SAVE = 1
    """A worker's node is about to be taken away."""
    STOP = 2
    """The run is to end."""


class RunContext(Protocol):
    """The launcher's side of a worker; the loop behind it knows no Ray.

    Attributes:
        rank: Of this worker, from 0.
        num_workers: Workers of the run.
        device: Where this worker computes.
    """

    rank: int
    num_workers: int
    device: torch.device

    def report(self, metrics: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """Hand over a checkpoint with its metrics.

        Called on all workers; ``write`` runs on rank 0, in the background. Returns once the
        checkpoint before this one is written.

        Raises:
            CheckpointError: That one could not be written.
        """
        ...

    def notice(self) -> Notice:
        """Tell what the world asks of the run, the same on all workers, which call it together."""
        ...

    def show(self, progress: Mapping[str, float]) -> None:
        """Show where the run stands; returns at once."""
        ...
