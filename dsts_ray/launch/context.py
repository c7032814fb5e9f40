"""The training loop's view of Ray Train."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.actor import ActorHandle
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2.api.preemption import PreemptionInfo

from dsts_ray.train.checksums import write_sealed
from dsts_ray.train.collective import largest_over_workers
from dsts_ray.train.context import Notice

_SHOW_PERIOD_S = 0.3


class RayContext:
    """Rank, size and device of a worker, and where it reports to.

    Rank 0 writes checkpoints in Ray Train's background thread, straight into their place, while
    training goes on. One is written at a time: the next report waits for it.
    """

    def __init__(self, board: ActorHandle[Any], checkpoints: Path) -> None:
        """Read rank, size and device from Ray Train.

        Args:
            board: Where progress is posted.
            checkpoints: Folder of Ray Train's run.
        """
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.num_workers = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._board = board
        self._checkpoints = checkpoints
        self._written: Future[None] | None = None
        self._asked_to_stop: ray.ObjectRef | None = None
        self._preemption: PreemptionInfo | None = None
        self._last_shown = 0.0

    def report(self, metrics: Mapping[str, float], write: Callable[[Path], None]) -> None:
        """See :class:`~dsts_ray.train.context.RunContext`."""
        if self._written:
            self._written.result()
        written: Future[None] = Future()

        def write_into_place(checkpoint: Checkpoint, name: str) -> Checkpoint:
            del checkpoint
            folder = self._checkpoints / name
            try:
                write_sealed(folder, write)
            except BaseException as error:
                written.set_exception(error)
                raise
            written.set_result(None)
            return Checkpoint.from_directory(folder)

        self._written = written if self.rank == 0 else None
        ray.train.report(
            dict(metrics),
            checkpoint=Checkpoint.from_directory(self._checkpoints) if self.rank == 0 else None,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=write_into_place,
        )

    def notice(self) -> Notice:
        """See :class:`~dsts_ray.train.context.RunContext`."""
        notice, preemption = Notice.NONE, get_train_context().preemption_context.preemption_info
        if preemption and preemption != self._preemption:
            self._preemption, notice = preemption, Notice.SAVE
        if self._asked_to_stop and ray.wait([self._asked_to_stop], timeout=0)[0]:
            asked, self._asked_to_stop = ray.get(self._asked_to_stop), None
            notice = Notice.STOP if asked else notice
        return Notice(largest_over_workers(notice, self.device))

    def show(self, progress: Mapping[str, float]) -> None:
        """See :class:`~dsts_ray.train.context.RunContext`."""
        last = progress["step"] == progress["num_steps"]
        if self.rank == 0 and (last or time.monotonic() - self._last_shown > _SHOW_PERIOD_S):
            self._last_shown = time.monotonic()
            self._asked_to_stop = self._board.post.remote(dict(progress))
