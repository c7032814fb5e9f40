"""Checkpoints are written behind the training's back, one at a time."""

import errno
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from dsts_ray.errors import CheckpointError
from dsts_ray.launch.context import RayContext
from dsts_ray.launch.failure import own_error
from dsts_ray.launch.progress import ProgressBoard
from dsts_ray.launch.snapshot import newest_sound, recover
from dsts_ray.train.checkpoint import TrainingState, read_state, save_training_state
from dsts_ray.train.ledger import Ledger

WRITING_S = 3.0


def work(job: dict[str, Any]) -> None:
    """Three reports, the disk full during the second; takes down how long each holds it up."""
    context = RayContext(job["board"], job["checkpoints"])

    def write(folder: Path, step: int) -> None:
        time.sleep(WRITING_S)
        if step == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_training_state(folder, {}, TrainingState(step, {}, (), Ledger()))

    for step in (1, 2, 3):
        started = time.monotonic()
        context.report({"step": step}, lambda folder, step=step: write(folder, step))
        (job["checkpoints"] / f"report_{step}").write_text(str(time.monotonic() - started))


@pytest.mark.usefixtures("ray_cluster")
def test_training_goes_on_while_a_checkpoint_is_written_and_a_full_disk_is_told(
    tmp_path: Path,
) -> None:
    checkpoints = tmp_path / "checkpoints"
    trainer = TorchTrainer(
        work,
        train_loop_config={
            "checkpoints": checkpoints,
            "board": ray.remote(num_cpus=0)(ProgressBoard).remote(),
        },
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="checkpoints", storage_path=str(tmp_path)),
    )
    with pytest.raises(TrainingFailedError) as failure:
        trainer.fit()
    causes = [own_error(error) for error in failure.value.worker_failures.values()]  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(causes[0], CheckpointError)
    assert "No space left on device" in str(causes[0])
    first, second = (float((checkpoints / f"report_{step}").read_text()) for step in (1, 2))
    assert first < WRITING_S / 3
    assert second > WRITING_S / 2, "the second report waits until the first checkpoint is written"
    assert not (checkpoints / "report_3").exists(), "the next report raises what the writing met"
    recover(checkpoints, "val/top1", print)
    newest = newest_sound(checkpoints, print)
    assert newest
    assert read_state(newest).step == 1
    assert [path for path in checkpoints.glob("checkpoint_*") if path.is_dir()] == [newest]
