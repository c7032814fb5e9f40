"""Prediction of any number of videos: decoders and forward passes are pools of Ray actors."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dsts_ray.build import build_decoder_pool, build_view_spec, load_model
from dsts_ray.config.load import changed_config
from dsts_ray.config.schema import Config
from dsts_ray.data.claim import claimed_folder
from dsts_ray.data.decoders import Rows
from dsts_ray.data.find import find_videos
from dsts_ray.data.isolated import DecodingProcess, limited_views
from dsts_ray.data.manifest import write_parquet
from dsts_ray.data.pipeline import blocks, packed, unpacked, videos_per_block, window_stream
from dsts_ray.data.windows import SlidingWindows
from dsts_ray.errors import ClusterError, ConfigError
from dsts_ray.launch.cluster import check_evaluation_resources, connected
from dsts_ray.launch.evaluator import CHANGEABLE, ForwardPass, fetch_model, forward_passes
from dsts_ray.launch.failure import own_error
from dsts_ray.launch.prediction_files import (
    RECORD,
    Counts,
    complete,
    missing_parts,
    part_path,
    part_table,
)
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.predictor import VideoPredictor, most_probable
from dsts_ray.tracking.base import Prediction
from dsts_ray.tracking.registry import ResolvedModel
from dsts_ray.train.checkpoint import WEIGHTS_FILE

MOST_WITHOUT_FOLDER = 32
"""Videos that are predicted without Ray, where no folder is named."""

_KEPT = ("sample_id", "start_frame", "end_frame", "fps", "part", "block", "last")


class PredictionTask(NamedTuple):
    """A model and videos to predict.

    Attributes:
        resolved: Where the model came from.
        config: The model's, with what the prediction changes.
        model: The recognizer.
        classes: Names.
        videos: Columns of ``find.VIDEO_SCHEMA``.
        top_k: Classes a window.
    """

    resolved: ResolvedModel
    config: Config
    model: Recognizer
    classes: tuple[str, ...]
    videos: pa.Table
    top_k: int


class WindowForwardPass(ForwardPass):
    """Actor that predicts decoded windows and keeps the most probable classes."""

    def __init__(self, *, config: Config, model: ray.ObjectRef, top_k: int) -> None:
        """Take the model, as its parent does."""
        super().__init__(config=config, model=model)
        self.top_k = top_k

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """Predict a block."""
        block = unpacked(rows)
        predicted = self.predict(block)
        told = most_probable(predicted, self.top_k)._asdict() | {"reason": predicted["reason"]}
        return packed(told | {name: block[name] for name in _KEPT})


def prediction_task(
    model: str,
    names: Sequence[str],
    *,
    uri: str | None,
    split: str | None,
    top_k: int,
    overrides: Sequence[str],
) -> PredictionTask:
    """Fetch a model and find the videos.

    Args:
        model: As in ``fetch_model``.
        names: As in ``find_videos``.
        uri: Tracking server.
        split: Of manifests among the names.
        top_k: Classes told of a window, 1 or more; no more than there are.
        overrides: ``key=value`` over the model's configuration, those that begin as ``CHANGEABLE``.

    Raises:
        TrackingError: There is no such model.
        DataError: A name stands for no video.
        ConfigError: A bad override.
    """
    if top_k < 1:
        raise ConfigError(f"--top is {top_k}: must be 1 or more")
    videos = find_videos(names, split=split)
    resolved = fetch_model(model, uri)
    trained, recognizer, classes = load_model(resolved.directory)
    config = changed_config(trained, overrides, CHANGEABLE)
    config = replace(config, evaluation=replace(config.evaluation, refused="wrong"))
    return PredictionTask(resolved, config, recognizer, classes, videos, top_k)


def predict_few(task: PredictionTask) -> Iterator[tuple[dict[str, Any], Prediction]]:
    """Predict a few videos without Ray; yields each one's row and prediction.

    Their decoder is a process of its own: a video that ends or hangs it costs its own row.

    Raises:
        ConfigError: There are too many.
    """
    if len(task.videos) > MOST_WITHOUT_FOLDER:
        raise ConfigError(
            f"{len(task.videos)} videos are too many to show ({MOST_WITHOUT_FOLDER} at the most): "
            "name a folder for their predictions, --out FOLDER"
        )
    predictor = VideoPredictor(task.config, task.model, task.classes)
    views = partial(limited_views, predictor.spec, None)
    predictor.views = decoding = DecodingProcess(views, timeout_s=task.config.data.decode_timeout_s)
    try:
        for row in task.videos.to_pylist():
            yield row, predictor.predict_row(row, top_k=task.top_k)
    finally:
        decoding.close()


def predict_all(
    task: PredictionTask, out: Path, *, sliding: SlidingWindows | None, num_workers: int
) -> Counts:
    """Predict videos on Ray into a folder, or go on with what is missing there.

    Args:
        task: Model and videos.
        out: Folder, as ``output_path`` tells it; made where there is none.
        sliding: Windows over each video; None sees it whole.
        num_workers: Actors with a copy of the model, a GPU each where the cluster has any.

    Raises:
        DataError: The folder holds something else, or predictions of another model, of other
            videos or with other options.
        ConfigError: ``num_workers`` is below 1.
        ClusterError: The cluster is too small, or an actor died again and again.
    """
    if num_workers < 1:
        raise ConfigError(f"--num-workers is {num_workers}: must be 1 or more")
    config, num_videos = task.config, len(task.videos)
    videos_per_part = videos_per_block(build_view_spec(config), config.evaluation.batch_size)
    num_parts = -(-num_videos // videos_per_part)
    with claimed_folder(out, _record(task, sliding), file=RECORD, work="prediction"):
        parts = missing_parts(out, num_parts)
        if parts:
            with connected():
                check_evaluation_resources(config, num_workers)
                stream = _stream(task, sliding, parts, videos_per_part, num_workers)
                _write_parts(task, stream, out, parts, num_parts)
        return complete(out, num_parts, num_videos)


def _record(task: PredictionTask, sliding: SlidingWindows | None) -> dict[str, Any]:
    """What decides the predictions."""
    with (task.resolved.directory / WEIGHTS_FILE).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    videos = json.dumps(task.videos.to_pylist())
    return {
        "model": weights,
        "num_videos": len(task.videos),
        "videos": hashlib.sha256(videos.encode()).hexdigest()[:16],
        "views": asdict(build_view_spec(task.config)),
        "evaluation": asdict(task.config.evaluation),
        "windows": asdict(sliding) if sliding else None,
        "top": task.top_k,
    }


def _stream(
    task: PredictionTask,
    sliding: SlidingWindows | None,
    parts: Sequence[int],
    videos_per_part: int,
    num_workers: int,
) -> Iterator[Rows]:
    """Predicted blocks, in any order, as they come from the cluster."""
    # A process of its own keeps Ray Data's log lines; it ends with the task, its actors too.
    run: Any = ray.remote(num_cpus=0, max_calls=1, num_returns="streaming")(_predicted_blocks)
    worker = {"config": task.config, "model": ray.put(task.model), "top_k": task.top_k}
    try:
        stream: Any = run.remote(worker, task.videos, sliding, parts, videos_per_part, num_workers)
        for reference in stream:
            rows: Any = ray.get(reference)
            yield rows
    except RayError as error:
        raise own_error(error) or ClusterError(
            f"the prediction stopped: {error}; the same command goes on with what is missing"
        ) from error


def _predicted_blocks(
    worker: dict[str, Any],
    videos: pa.Table,
    sliding: SlidingWindows | None,
    parts: Sequence[int],
    videos_per_part: int,
    num_workers: int,
) -> Iterator[Rows]:
    config: Config = worker["config"]
    spec = build_view_spec(config)
    decoded = window_stream(
        videos=videos,
        spec=spec,
        sliding=sliding,
        parts=parts,
        videos_per_part=videos_per_part,
        windows_per_block=videos_per_block(spec, config.evaluation.batch_size),
        decoders=build_decoder_pool(config),
    )
    predicted = forward_passes(decoded, WindowForwardPass, worker, num_workers)
    yield from blocks(predicted)


def _write_parts(
    task: PredictionTask, stream: Iterable[Rows], out: Path, parts: Sequence[int], num_parts: int
) -> None:
    """Write every part when its last block has come."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(TextColumn("predicting"), *columns, console=console, transient=True) as bars:
        bar = bars.add_task("", total=num_parts, completed=num_parts - len(parts))
        for part, predicted in whole_parts(stream):
            write_parquet(part_table(predicted, task.videos, task.classes), part_path(out, part))
            bars.advance(bar)


def whole_parts(stream: Iterable[Rows]) -> Iterator[tuple[int, list[Rows]]]:
    """Collect the blocks of parts that come mixed; each part's blocks are in order."""
    waiting: defaultdict[int, dict[int, Rows]] = defaultdict(dict)
    num_blocks: dict[int, int] = {}
    for rows in stream:
        part, block = int(rows["part"][0]), int(rows["block"][0])
        waiting[part][block] = rows
        if rows["last"][0]:
            num_blocks[part] = block + 1
        if len(waiting[part]) == num_blocks.get(part):
            whole = waiting.pop(part)
            yield part, [whole[number] for number in sorted(whole)]
