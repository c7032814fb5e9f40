"""Versions of registered models, written by hand, and their promotion in other processes."""

import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier

from dsts_ray.errors import TrackingError
from dsts_ray.launch.promote import judge, promote
from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.mlflow import log_artifacts, open_run
from dsts_ray.train.predictions import PREDICTIONS_FILE, write_predictions
from tests.support.sweeps import predictions

NUM_VIDEOS = 200
MEASURED = {"protocol": "1x1", "split": "test", "num_videos": "200", "manifest_digest": "abc"}


def add_version(uri: str, name: str, top1: float, predicted: bool = True, **tags: str) -> str:
    """A version of a model whose run's checkpoint recognized the first videos; its number."""
    run_id = open_run(
        uri=uri,
        experiment="e",
        run_name=f"{name} {top1} {predicted} {tags}",
        artifact_root=None,
        params={},
        tags={},
    )
    if predicted:
        right = [video < top1 * NUM_VIDEOS for video in range(NUM_VIDEOS)]
        with tempfile.TemporaryDirectory() as folder:
            write_predictions(predictions(right), Path(folder) / PREDICTIONS_FILE)
            log_artifacts(
                uri=uri, run_id=run_id, directory=Path(folder), artifact_path="checkpoint"
            )
    version = connect(uri).create_model_version(
        name,
        source=connect(uri).get_run(run_id).info.artifact_uri or "",
        run_id=run_id,
        tags={**MEASURED, **tags, "val/top1": repr(top1)},
        await_creation_for=0,
    )
    return str(version.version)


def promoted_at_once(uri: str, name: str, numbers: Sequence[str]) -> dict[str, str]:
    """Promote versions in a process each, after all have been compared with the champion.

    Returns:
        By version what the process was told; nothing where the alias moved.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])  # the libraries are imported once for all
    with (
        processes.Manager() as manager,
        ProcessPoolExecutor(len(numbers), mp_context=processes) as pool,
    ):
        together = manager.Barrier(len(numbers))
        told = [pool.submit(_promoted, uri, name, number, together) for number in numbers]
        return {number: one.result(60) for number, one in zip(numbers, told, strict=True)}


def _promoted(uri: str, name: str, number: str, together: Barrier) -> str:
    verdict = judge(name, number, uri=uri, metric="val/top1", protocol=None, split=None)
    together.wait(60)
    try:
        moved = promote(verdict, uri=uri, why=f"{number} is better", force=False)
    except TrackingError as error:
        return str(error)
    return "" if moved else "; ".join(verdict.objections)
