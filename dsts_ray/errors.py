"""Errors that a user can cause: each says what was given, what is allowed, and what to change."""

from functools import partial
from typing import Any


class DSTSRayError(Exception):
    """Base of every error a job reports as one message without a traceback."""


class ConfigError(DSTSRayError):
    """The configuration holds an unknown key, an impossible value or combination."""


class DataError(DSTSRayError):
    """A data set, an annotation or a video is missing, malformed or unreadable."""


class CheckpointError(DSTSRayError):
    """A checkpoint is missing, damaged or belongs to another configuration."""


class ClusterError(DSTSRayError):
    """The Ray cluster cannot run what was asked for."""


class DivergedError(DSTSRayError):
    """The training loss, or its gradient, is NaN or infinite.

    Attributes:
        step: Optimizer step, from 0.
        loss: Of that step.
    """

    def __init__(self, message: str, *, step: int, loss: float) -> None:
        """Say what happened at a step."""
        super().__init__(message)
        self.step, self.loss = step, loss

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the attributes on the way between processes."""
        return (partial(DivergedError, step=self.step, loss=self.loss), self.args)


class StoppedError(DSTSRayError):
    """The run was asked to stop (SIGTERM), and did so after a checkpoint."""


class OutOfMemoryError(DSTSRayError):
    """A worker asked for more memory than its node or GPU has."""


class TrackingError(DSTSRayError):
    """The MLflow server or its registry cannot be reached or refuses what was asked for."""


class ExportError(DSTSRayError):
    """An exported file does not compute what its model does, or its format lacks a package."""


class LimitError(DSTSRayError):
    """A request asks for more than a served model gives."""
