"""Ray Train: workers, streams and what their failures mean."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import pyarrow as pa
from ray.train import CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.callback import RayTrainCallback, UserCallback
from ray.train.v2.api.exceptions import TrainingFailedError
from rich.console import Console

from dsts_ray.build import build_clip_spec, build_order, build_plan, build_view_spec
from dsts_ray.config.schema import Config
from dsts_ray.data.checks import REFUSED_SCHEMA
from dsts_ray.data.manifest import Manifest, write_parquet
from dsts_ray.data.storage import replacing
from dsts_ray.errors import (
    CheckpointError,
    ClusterError,
    DivergedError,
    DSTSRayError,
    OutOfMemoryError,
    StoppedError,
)
from dsts_ray.launch.capacity import worker_resources
from dsts_ray.launch.entry import WorkerJob, run_worker
from dsts_ray.launch.failure import out_of_memory, own_error
from dsts_ray.launch.progress import interrupted_by_ctrl_c, shown_progress, stopped_by_sigterm
from dsts_ray.launch.run import CHECKPOINTS, NONFINITE_FILE, REFUSED_FILE, SAMPLES, Run
from dsts_ray.launch.snapshot import latest_state, latest_step
from dsts_ray.launch.streams import RunStreams
from dsts_ray.train.ledger import NonFiniteStep

_RESIZE_S = 20.0
"""Between looks whether more workers fit."""
_HEALTH_CHECK_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"


def fit(
    run: Run,
    manifest: Manifest,
    num_clips: int,
    run_id: str,
    console: Console,
    started: float,
    callbacks: Sequence[RayTrainCallback],
) -> Result:
    """Train with Ray Train from the latest checkpoint on.

    Args:
        run: What to train.
        manifest: The run's.
        num_clips: In the training split.
        run_id: Of MLflow.
        console: Where progress is shown.
        started: Moment on the monotonic clock as if the run had never stopped.
        callbacks: What the controller tells of reports.

    Raises:
        DSTSRayError: What ended the training; the videos refused until then are listed (where
            workers died, until the last checkpoint).
        KeyboardInterrupt: Somebody pressed Ctrl-C.
    """
    config = run.config
    video_ids = manifest.split(config.data.val_split).table["video_id"].to_pylist()
    checkpoints = run.folder / CHECKPOINTS
    first_step = latest_step(checkpoints)
    if first_step:
        console.print(f"continuing from step {first_step}")
    videos = manifest.split(config.data.train_split).table
    with shown_progress(console) as board:
        job = WorkerJob(
            config=config,
            classes=manifest.classes,
            num_clips=num_clips,
            video_ids=tuple(video_ids),
            tracking_uri=run.tracking_uri,
            run_id=run_id,
            weights=run.weights,
            samples=run.folder / SAMPLES if config.data.record_samples else None,
            checkpoints=checkpoints,
            board=board,
            wall_s=time.monotonic() - started,
        )
        os.environ[_HEALTH_CHECK_TIMEOUT] = str(config.scaling.collective_timeout_s)
        streams = RunStreams(
            config,
            manifest=str(run.manifest),
            order=build_order(config, num_clips),
            num_steps=build_plan(config, num_clips).num_steps,
            clip_spec=build_clip_spec(config),
            view_spec=build_view_spec(config),
            board=board,
        )
        trainer = TorchTrainer(
            cast(Callable[[dict[str, Any]], Any], run_worker),
            train_loop_config=dict(job),
            scaling_config=ScalingConfig(
                num_workers=_num_workers(config),
                elastic_resize_monitor_interval_s=_RESIZE_S,
                use_gpu=config.scaling.use_gpu,
                resources_per_worker=worker_resources(config, use_gpu=config.scaling.use_gpu),
                placement_strategy=config.scaling.placement_strategy,
            ),
            torch_config=TorchConfig(timeout_s=math.ceil(config.scaling.collective_timeout_s)),
            run_config=RunConfig(
                name=CHECKPOINTS,
                storage_path=str(run.folder),
                failure_config=FailureConfig(max_failures=config.scaling.max_failures),
                callbacks=cast(list[UserCallback], list(callbacks)),  # it takes others, too
                checkpoint_config=CheckpointConfig(
                    num_to_keep=config.train.keep_checkpoints,
                    checkpoint_score_attribute=config.tracking.metric,
                    checkpoint_score_order="max",
                ),
            ),
            datasets=streams.names(),
            dataset_config=streams,
        )
        try:
            with stopped_by_sigterm(board), interrupted_by_ctrl_c():
                result = trainer.fit()
        except TrainingFailedError as error:
            with suppress(CheckpointError, OSError):  # what ended the training is what is told
                if state := latest_state(checkpoints):
                    _write_refused(run, videos, state.ledger.refused)
                    _write_nonfinite(run, videos, state.ledger.nonfinite)
            raise _first_cause(error) from error
    returned = result.return_value
    assert returned is not None
    _write_refused(run, videos, returned["refused"])
    steps = _write_nonfinite(run, videos, returned["nonfinite"])
    if returned.get("was_stopped"):
        raise StoppedError(
            f"run {run.name} was asked to stop and did so after a checkpoint (step "
            f"{latest_step(checkpoints)}); the same command continues it"
        )
    if "error" in returned:
        raise _explained(run, returned["error"], steps)
    return result


def _num_workers(config: Config) -> int | tuple[int, int]:
    """Workers as Ray Train takes them: a number, or the fewest and the most."""
    fewest, most = config.scaling.fewest_workers, config.scaling.most_workers
    return most if fewest == most else (fewest, most)


def _write_refused(run: Run, videos: pa.Table, refused: dict[int, str]) -> None:
    """List the training videos that could not be decoded."""
    rows = [
        {
            "video_id": videos["video_id"][sample].as_py(),
            "path": videos["path"][sample].as_py() or videos["shard"][sample].as_py(),
            "reason": reason,
        }
        for sample, reason in refused.items()
    ]
    write_parquet(pa.Table.from_pylist(rows, REFUSED_SCHEMA), run.folder / REFUSED_FILE)


def _write_nonfinite(
    run: Run, videos: pa.Table, steps: list[NonFiniteStep]
) -> list[dict[str, Any]]:
    """List the videos of steps whose loss or gradient was not finite."""
    ids = videos["video_id"]
    rows = [
        {
            "step": entry.step + 1,
            "loss": str(entry.loss),
            "train": [ids[sample].as_py() for sample in entry.train],
            "held_out": [ids[sample].as_py() for sample in entry.held_out],
        }
        for entry in steps
    ]
    with replacing(run.folder / NONFINITE_FILE) as partial:
        partial.write_text(json.dumps(rows, indent=2))
    return rows


def _explained(run: Run, error: DSTSRayError, steps: list[dict[str, Any]]) -> DSTSRayError:
    """The error, with the videos of a step that diverged and what to do."""
    if not isinstance(error, DivergedError):
        return error
    return DivergedError(
        f"{error}; nothing was updated by it. Its videos are {', '.join(steps[-1]['train'])}, held "
        f"out were {', '.join(steps[-1]['held_out']) or 'none'} (also in "
        f"{run.folder / NONFINITE_FILE}). Look at them, train with a lower optim.lr, or skip such "
        f"steps: name={run.name} train.on_nonfinite_loss=skip --changed train.on_nonfinite_loss",
        step=error.step,
        loss=error.loss,
    )


def _first_cause(error: TrainingFailedError) -> DSTSRayError:
    """Our own error among the workers' failures, or one that names the failure."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        if own := own_error(failure):
            return own
    if cause := out_of_memory([*failures, error]):
        return OutOfMemoryError(
            f"a worker ran out of memory ({cause}); lower train.micro_batch_size, "
            "evaluation.batch_size or data.prefetch_blocks, or the size of the model"
        )
    return ClusterError(
        f"training failed: {failures[0] if failures else error}; run the same command again to "
        "continue from the last checkpoint"
    )
