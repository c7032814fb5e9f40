"""What Ray Train ships to its processes.

Its controller unpickles the function too and never trains: importing ``worker`` there would cost
some seconds of CPU and 0.7 GB of memory at each start.
"""

from pathlib import Path
from typing import Any, TypedDict

from ray.actor import ActorHandle

from dsts_ray.config.schema import Config


class WorkerJob(TypedDict):
    """What the driver tells every worker; ``wall_s`` is the ledger's when the workers start.

    ``samples`` is the folder of the record of which clips each step was trained on, None without.
    ``video_ids`` are those of the validation split; ``checkpoints`` is Ray Train's folder.
    """

    config: Config
    classes: tuple[str, ...]
    num_clips: int
    video_ids: tuple[str, ...]
    tracking_uri: str
    run_id: str
    weights: Path | None
    samples: Path | None
    checkpoints: Path
    board: ActorHandle[Any]
    wall_s: float


def run_worker(job: WorkerJob) -> dict[str, Any]:
    """Run :func:`~dsts_ray.launch.worker.train_worker`."""
    from dsts_ray.launch.worker import train_worker

    return train_worker(job)
