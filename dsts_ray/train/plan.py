"""Length of a run in steps, and where it is evaluated."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps and epochs of a run over a continuous stream of ``num_clips`` clips an epoch.

    Attributes:
        num_clips: Clips in an epoch.
        batch_size: Clips in a joined batch.
        num_epochs: Epochs.
        max_steps: Optimizer steps at the most; 0 for no such limit.
        evaluate_every_epochs: Epochs between evaluations.
        checkpoint_every_steps: Steps between checkpoints without an evaluation; 0 for none.
    """

    num_clips: int
    batch_size: int
    num_epochs: int
    max_steps: int = 0
    evaluate_every_epochs: int = 1
    checkpoint_every_steps: int = 0

    @property
    def num_steps(self) -> int:
        """Whole batches of ``num_epochs`` epochs, at least one; ``max_steps`` at most."""
        steps = max(1, self.num_clips * self.num_epochs // self.batch_size)
        return min(steps, self.max_steps) if self.max_steps else steps

    def epoch_after(self, step: int) -> int:
        """Epochs completed once ``step`` (from 0) is done."""
        return (step + 1) * self.batch_size // self.num_clips

    def ends_epoch(self, step: int) -> bool:
        """Tell whether an epoch is completed by this step."""
        return self.epoch_after(step) > self.epoch_after(step - 1)

    def evaluates_after(self, step: int) -> bool:
        """Tell whether the model is evaluated and saved after this step."""
        period = self.evaluate_every_epochs
        crossed = self.epoch_after(step) // period > self.epoch_after(step - 1) // period
        return crossed or step == self.num_steps - 1

    def saves_after(self, step: int) -> bool:
        """Tell whether a checkpoint is due after this step, besides those of evaluations."""
        period = self.checkpoint_every_steps
        return bool(period) and (step + 1) % period == 0
