"""What runs in every Ray Train worker: wiring between Ray and the training loop."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch

from dsts_ray.build import (
    build_augmentation,
    build_loop,
    build_model,
    build_order,
    build_plan,
    build_setup,
    build_step,
    build_view_predictor,
    build_view_spec,
)
from dsts_ray.config.load import config_to_yaml, run_name
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import ClipBatch, pixels_to_device
from dsts_ray.data.pipeline import batches, videos_per_block
from dsts_ray.errors import DataError, DivergedError
from dsts_ray.launch.context import RayContext
from dsts_ray.launch.entry import WorkerJob
from dsts_ray.launch.figures import FigureLog
from dsts_ray.launch.snapshot import delete_superseded, newest_sound
from dsts_ray.launch.streams import TRAIN, VAL
from dsts_ray.models.weights import load_starting_weights
from dsts_ray.tracking.base import NullTracker, Tracker
from dsts_ray.tracking.mlflow import MLflowTracker
from dsts_ray.train.checkpoint import (
    TrainingState,
    collect_optimizer_state,
    copy_weights,
    load_optimizer_state,
    load_weights,
    read_state,
    save_copied_weights,
    save_training_state,
)
from dsts_ray.train.collective import average_buffers, gather_objects
from dsts_ray.train.evaluate import Predictions, TimedPredictor, gate_metrics, predict_split, score
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.predictions import PREDICTIONS_FILE, SavedPredictions, write_predictions
from dsts_ray.train.samples import SampleRecord
from dsts_ray.train.step import TrainingStep


def train_worker(job: WorkerJob) -> dict[str, Any]:
    """Train from the latest checkpoint; rank 0's return value goes to the driver.

    Returns:
        Metrics of the last step and evaluation, speed, and reasons of refused videos by sample id;
        or the ``error`` in the data that ended the training, and these.
    """
    started = time.monotonic()
    warnings.filterwarnings("ignore", category=FutureWarning)
    context = RayContext(job["board"], job["checkpoints"])
    config, classes = job["config"].with_workers(context.num_workers), job["classes"]
    model = build_model(config, len(classes)).to(context.device).train()
    checkpoint = _chosen_checkpoint(job, context)
    if checkpoint is None:
        if job["weights"]:
            load_starting_weights(model, job["weights"])
        step, state = build_step(config, model), TrainingState(0, {}, (), Ledger())
    else:
        load_weights(checkpoint, model)
        step, state = build_step(config, model), read_state(checkpoint)
        load_optimizer_state(checkpoint, _engines(step))
    tracker: Tracker = NullTracker()
    figures: FigureLog | None = None
    if context.rank == 0:
        figures = FigureLog(
            uri=job["tracking_uri"],
            run_id=job["run_id"],
            plan=build_plan(config, job["num_clips"]),
            every=config.tracking.figures_every,
        )
        ray.get(job["board"].start.remote(state.step, context.num_workers))
        tracker = MLflowTracker(
            uri=job["tracking_uri"],
            run_id=job["run_id"],
            undelivered=state.undelivered,
            system_metrics=True,
        )

    record = SampleRecord(job["samples"]) if job["samples"] else None
    if record and context.rank == 0:
        record.forget_from(state.step)
    evaluated: list[SavedPredictions] = []
    text = config_to_yaml(job["config"])

    def evaluate() -> dict[str, float]:
        average_buffers(model)
        blocks = batches(
            ray.train.get_dataset_shard(VAL),
            batch_size=videos_per_block(build_view_spec(config), config.evaluation.batch_size),
            prefetch_blocks=1,
        )
        predict = TimedPredictor(build_view_predictor(config, model, context.device))
        predictions = predict_split(predict, blocks, len(job["video_ids"]))
        evaluated[:] = [_saved(job, predictions)]
        scores = score(predictions, classes=classes, num_neurons=config.dsts.num_neurons)
        return scores | predict.metrics | gate_metrics(model)

    def write(next_step: int, metrics: dict[str, float]) -> Callable[[Path], None]:
        average_buffers(model)  # as a run that continues from here will have them
        optimizer_state = collect_optimizer_state(_engines(step))
        samples = record.gathered() if record else None
        wall_s = job["wall_s"] + time.monotonic() - started
        ledger = replace(loop.ledger, wall_s=wall_s, refused=loop.all_refused())
        predictions = evaluated.pop() if evaluated else None
        if figures and predictions:
            dsts = model.classifier.dsts
            ratios = dsts.spatial_ratios() if dsts else []
            figures.add(predictions, ratios, next_step=next_step)
        state = TrainingState(next_step, metrics, tuple(tracker.undelivered()), ledger)
        weights = copy_weights(model) if context.rank == 0 else {}

        def write_files(folder: Path) -> None:
            if record and samples:
                record.write(samples)
            save_copied_weights(folder, weights, classes=classes, config=text)
            if predictions is not None:
                write_predictions(predictions, folder / PREDICTIONS_FILE)
            save_training_state(folder, optimizer_state, state)

        return write_files

    loop = build_loop(
        config,
        num_clips=job["num_clips"],
        context=context,
        step=step,
        stream=_stream(config, job["num_clips"], state.step, context.device),
        evaluate=evaluate,
        write=write,
        tracker=tracker,
        ledger=state.ledger,
        record=record,
    )
    try:
        metrics = loop.run(state.step, state.metrics)
        refused = loop.all_refused()  # before rank 0 waits for MLflow and the others for it
    except (DataError, DivergedError) as error:  # all meet it alike, as they would after a restart
        return {
            "error": error,
            "refused": loop.all_refused(),
            "nonfinite": loop.ledger.nonfinite,
        }
    finally:
        figures_lost = figures.close() if figures else []
        tracker.close()
    return {
        "metrics": metrics,
        "figures_lost": figures_lost,
        "clips_per_s": loop.ledger.clips_per_s,
        "data_wait_ratio": loop.ledger.data_wait_ratio,
        "checkpoint_ratio": loop.ledger.checkpoint_ratio,
        "tracking_ratio": loop.ledger.tracking_ratio,
        "refused": refused,
        "nonfinite": loop.ledger.nonfinite,
        "was_stopped": loop.was_stopped,
    }


def _chosen_checkpoint(job: WorkerJob, context: RayContext) -> Path | None:
    """The newest sound checkpoint; rank 0 chooses for all."""
    chosen = None
    if context.rank == 0:
        delete_superseded(job["checkpoints"])
        chosen = newest_sound(job["checkpoints"], job["board"].tell.remote)
    return gather_objects(chosen)[0]


def _saved(job: WorkerJob, predictions: Predictions) -> SavedPredictions:
    """Predictions of the validation split, with what they hold for."""
    config, video_ids = job["config"], job["video_ids"]
    split = config.data.val_split
    return SavedPredictions(
        setup=build_setup(config, model=run_name(config), split=split, num_videos=len(video_ids)),
        classes=job["classes"],
        num_neurons=config.dsts.num_neurons,
        video_ids=video_ids,
        predictions=predictions,
    )


def _engines(step: TrainingStep) -> dict[str, Any]:
    return {"downstream": step.downstream, "upstream": step.upstream}


def _stream(
    config: Config, num_clips: int, first_step: int, device: torch.device
) -> Iterator[ClipBatch]:
    """This worker's micro-batches, augmented: held-out clips are the next step's training clips."""
    order = build_order(config, num_clips)
    augmentation = build_augmentation(config)
    shard = ray.train.get_dataset_shard(TRAIN)
    blocks = batches(
        shard, batch_size=order.micro_batch_size, prefetch_blocks=config.data.prefetch_blocks
    )
    for index, rows in enumerate(blocks):
        step = first_step + index // order.accumulation_steps
        yield augmentation(pixels_to_device(rows, device), step=step)
