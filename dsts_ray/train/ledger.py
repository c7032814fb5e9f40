"""What a run has done so far, in all its sessions."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class NonFiniteStep(NamedTuple):
    """A step whose loss or gradient was NaN or infinite.

    Attributes:
        step: Optimizer step, from 0.
        loss: Of the joined batch; NaN where Eq. 10's gradient was not finite.
        train: Sample ids of D_train, of all workers.
        held_out: Sample ids of D_val.
    """

    step: int
    loss: float
    train: list[int]
    held_out: list[int]


@dataclass
class Ledger:
    """What a run has done until a checkpoint, and goes on counting from there.

    Attributes:
        wall_s: Since the run began, without the time between sessions and what was lost with one.
        training_s: Of a worker in steps, waiting for data included, evaluation excluded.
        waiting_s: Waiting for data.
        checkpoint_s: Of training held up by checkpoints, until each is copied into memory and the
            one before it is written.
        tracking_s: Of the training loop held up by the tracker.
        num_clips: Clips trained on, of all workers.
        num_refused: Clips refused in the epoch under way, of all workers.
        nonfinite: Steps whose loss or gradient was NaN or infinite.
        refused: Videos refused in any epoch, by sample id, with the first reason; this worker's,
            and all workers' of earlier sessions.
    """

    wall_s: float = 0.0
    training_s: float = 0.0
    waiting_s: float = 0.0
    checkpoint_s: float = 0.0
    tracking_s: float = 0.0
    num_clips: int = 0
    num_refused: int = 0
    nonfinite: list[NonFiniteStep] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def clips_per_s(self) -> float:
        """Training speed over all workers."""
        return self.num_clips / self.training_s if self.training_s else 0.0

    @property
    def data_wait_ratio(self) -> float:
        """Share of the training time spent waiting for data."""
        return self.waiting_s / self.training_s if self.training_s else 0.0

    @property
    def checkpoint_ratio(self) -> float:
        """Share of the time of training and checkpoints that checkpoints take."""
        spent = self.training_s + self.checkpoint_s
        return self.checkpoint_s / spent if spent else 0.0

    @property
    def tracking_ratio(self) -> float:
        """Time that the tracker holds the training loop up over the training time."""
        return self.tracking_s / self.training_s if self.training_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "refused": list(self.refused.items())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Ledger":
        """Read what ``to_json`` gave, through JSON."""
        refused = {int(sample): str(reason) for sample, reason in content["refused"]}
        nonfinite = [NonFiniteStep(*step) for step in content["nonfinite"]]
        return cls(**{**content, "refused": refused, "nonfinite": nonfinite})
