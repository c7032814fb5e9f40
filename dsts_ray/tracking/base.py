"""What the training loop sees of tracking: a place to leave metrics that never makes it wait."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Point(NamedTuple):
    """One value of one metric.

    Attributes:
        key: ``phase/thing_unit``.
        value: NaN and infinities included.
        timestamp: Milliseconds since 1970.
        step: Of the optimizer.
    """

    key: str
    value: float
    timestamp: int
    step: int


class Tracker(Protocol):
    """Takes the metrics of one run; implemented by ``MLflowTracker`` and ``NullTracker``."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> int:
        """Take metrics (name to value, NaN and infinities included) of one step; return at once.

        Args:
            metrics: values by name, ``phase/thing_unit``.
            step: number of finished optimizer steps, 0 or more, never falling within a process.

        Returns:
            The timestamp that all points of this step get, by which a point sent again is told.
        """
        ...

    def undelivered(self) -> list[Point]:
        """Return what was taken but not delivered yet, for a checkpoint to keep."""
        ...

    def close(self) -> None:
        """Deliver everything taken so far, then return.

        Raises:
            TrackingError: some points could not be delivered.
        """
        ...


class NullTracker:
    """A tracker that keeps nothing: for every rank but the first, and for tests."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> int:
        """Drop the metrics."""
        return 0

    def undelivered(self) -> list[Point]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""


class Prediction(NamedTuple):
    """What a predictor says of one video."""

    classes: list[str]  # the most probable first, at most top_k
    probabilities: list[float]  # of these classes
    neurons: list[int]  # the active neuron of each DSTS layer
    error: str | None  # why the video was not read; the lists are then empty


class Predictor(Protocol):
    """A loaded model that classifies videos."""

    def predict(self, sources: Sequence[str | bytes], *, top_k: int) -> list[Prediction]:
        """Classify each source, the path of a video file or its content; one prediction each.

        Raises:
            LimitError: A video is longer than a served model takes.
        """
        ...
