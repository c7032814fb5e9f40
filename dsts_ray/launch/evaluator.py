"""Evaluation of a saved model on a split: decoders and forward passes are pools of Ray actors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.data
import torch
from ray.exceptions import RayTaskError

from dsts_ray.build import (
    build_decoder_pool,
    build_setup,
    build_view_predictor,
    build_view_spec,
    load_model,
)
from dsts_ray.config.load import changed_config
from dsts_ray.config.schema import Config
from dsts_ray.data.decoders import Rows
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.pipeline import (
    batches,
    packed,
    test_stream,
    unpacked,
    videos_per_block,
)
from dsts_ray.errors import ConfigError
from dsts_ray.launch.cluster import check_evaluation_resources, connected
from dsts_ray.launch.dataset import labelled_split, locate_manifest
from dsts_ray.launch.failure import own_error
from dsts_ray.launch.home import given_or_default_uri, storage_folder
from dsts_ray.launch.measurement import record_evaluation
from dsts_ray.launch.register import MANIFEST_TAG
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.tracking.registry import ResolvedModel, resolve_model
from dsts_ray.train.evaluate import collect
from dsts_ray.train.predictions import SavedPredictions

CHANGEABLE = ("evaluation.", "data.", "scaling.cpus_per_worker")
"""Beginnings of the keys that an evaluation may change in a trained model's configuration."""
_DATA_SET = ("manifest", "demo")


class EvaluationTask(NamedTuple):
    """A model and the videos to evaluate it on.

    Attributes:
        name: Of the model, with its version.
        resolved: Where the model came from.
        config: The model's, with what the evaluation changes.
        model: The recognizer.
        manifest: With the videos.
        split: Of the manifest.
        videos: Of the split, with labels.
        num_workers: Actors with a copy of the model.
    """

    name: str
    resolved: ResolvedModel
    config: Config
    model: Recognizer
    manifest: Path
    split: str
    videos: Manifest
    num_workers: int


class ForwardPass:
    """Actor that predicts decoded blocks."""

    def __init__(self, *, config: Config, model: ray.ObjectRef) -> None:
        """Take the model to the GPU, where the actor was given one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        recognizer: Recognizer = ray.get(model)
        self.predict = build_view_predictor(config, recognizer.to(device), device)

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """Predict a block."""
        return packed(self.predict(unpacked(rows)))


def fetch_model(model: str, uri: str | None) -> ResolvedModel:
    """Bring a registered model or a checkpoint folder to this machine.

    Args:
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder.
        uri: Tracking server; None means the SQLite store of the default storage folder.

    Raises:
        TrackingError: There is no such model.
    """
    cache = storage_folder(Config()) / "models"
    return resolve_model(uri=given_or_default_uri(uri), model=model, cache_dir=cache)


def evaluation_task(
    model: str,
    *,
    uri: str | None,
    data: Path | None,
    split: str | None,
    num_workers: int,
    overrides: Sequence[str],
) -> EvaluationTask:
    """Fetch a model and find its own validation videos, or ``split`` of the manifest ``data``.

    Args:
        model: As in ``fetch_model``.
        uri: Tracking server.
        data: Manifest; None is the one the model was trained on.
        split: Of the manifest; None is the model's validation split.
        num_workers: Actors with a copy of the model, a GPU each where the cluster has any.
        overrides: ``key=value`` over the model's configuration, those that begin as ``CHANGEABLE``.

    Raises:
        TrackingError: There is no such model.
        DataError: The manifest is missing or has no such split.
        ConfigError: A bad override, or the manifest's classes are not the model's.
    """
    if num_workers < 1:
        raise ConfigError(f"--num-workers is {num_workers}: must be 1 or more")
    resolved = fetch_model(model, uri)
    trained, recognizer, classes = load_model(resolved.directory)
    config = changed_config(trained, overrides, CHANGEABLE)
    if data is not None:
        config = replace(config, data=replace(config.data, manifest=str(data)))
    path = manifest_to_evaluate(config, trained, resolved.tags)
    manifest = Manifest.read(path)
    if manifest.classes != classes:
        raise ConfigError(
            f"{path} has {len(manifest.classes)} classes ({', '.join(manifest.classes[:3])}, ...), "
            f"the model's head has {len(classes)} ({', '.join(classes[:3])}, ...); give --data a "
            "manifest of the same classes"
        )
    split = split or config.data.val_split
    version = f" (version {resolved.version})" if resolved.version else ""
    return EvaluationTask(
        name=model + version,
        resolved=resolved,
        config=config,
        model=recognizer,
        manifest=path,
        split=split,
        videos=labelled_split(manifest, split),
        num_workers=num_workers,
    )


def evaluate_model(model: str, *, uri: str | None, record: bool, **how: Any) -> SavedPredictions:  # noqa: ANN401 - of evaluation_task
    """Make an :func:`evaluation_task` and run it.

    Args:
        model: As there.
        uri: As there.
        record: Whether the version keeps the evaluation, see :func:`record_evaluation`.
        how: Further arguments.

    Raises:
        ConfigError: A folder is to keep it.
    """
    if record and not model.startswith("models:"):
        raise ConfigError(
            f"--record is for registered versions (models:/NAME@ALIAS or models:/NAME/VERSION), "
            f"{model} is none: --save keeps its predictions in a file"
        )
    task = evaluation_task(model, uri=uri, **how)
    saved = run_evaluation(task)
    if record:
        store = given_or_default_uri(uri)
        record_evaluation(task.resolved, saved, videos=task.videos, uri=store)
    return saved


def run_evaluation(task: EvaluationTask) -> SavedPredictions:
    """Predict the videos of a task.

    The predictions are the same, to the last bit, for any number of workers of one kind.

    Raises:
        DataError: A video cannot be decoded and ``evaluation.refused`` is ``stop``.
        ClusterError: The cluster is too small.
    """
    config, num_videos = task.config, len(task.videos)
    with connected():
        check_evaluation_resources(config, task.num_workers)
        # A process of its own keeps Ray Data's log lines; it ends with the task, its actors too.
        predict = ray.remote(num_cpus=0, max_calls=1)(_predicted_blocks)
        worker = {"config": config, "model": ray.put(task.model)}
        try:
            blocks = ray.get(
                predict.remote(worker, str(task.manifest), task.split, num_videos, task.num_workers)
            )
        except RayTaskError as error:
            raise own_error(error) or error from error
    return SavedPredictions(
        setup=build_setup(config, model=task.name, split=task.split, num_videos=num_videos),
        classes=task.videos.classes,
        num_neurons=config.dsts.num_neurons,
        video_ids=tuple(task.videos.table["video_id"].to_pylist()),
        predictions=collect(blocks, num_videos),
    )


def manifest_to_evaluate(config: Config, trained: Config, tags: Mapping[str, str]) -> Path:
    """The manifest that the version's tags name, unless the configuration asks for another.

    A run may have kept its data in a folder that is not the default one here.
    """
    same = all(getattr(config.data, key) == getattr(trained.data, key) for key in _DATA_SET)
    known = Path(tags.get(MANIFEST_TAG, ""))
    if same and known.is_file():
        return known
    return locate_manifest(config, storage_folder(config))


def _predicted_blocks(
    worker: dict[str, Any], manifest: str, split: str, num_videos: int, num_workers: int
) -> list[Rows]:
    """Predict with actors made from ``worker``, whose model is a reference and not fetched here."""
    config: Config = worker["config"]
    spec = build_view_spec(config)
    block_size = videos_per_block(spec, config.evaluation.batch_size)
    decoded = test_stream(
        manifest=manifest,
        split=split,
        spec=spec,
        block_size=block_size,
        num_workers=1,
        decoders=build_decoder_pool(config),
    )
    predicted = forward_passes(decoded, ForwardPass, worker, num_workers)
    return list(batches(predicted, batch_size=block_size, prefetch_blocks=1))


def forward_passes(
    decoded: ray.data.Dataset, actor: type, worker: dict[str, Any], num_workers: int
) -> ray.data.Dataset:
    """Predict decoded blocks by actors, each with a GPU where the cluster has any.

    Args:
        decoded: The blocks.
        actor: Its class, such as :class:`ForwardPass`.
        worker: What it is made from: ``config``, a reference to the ``model``, and so on.
        num_workers: Actors.
    """
    config: Config = worker["config"]
    predicted = decoded.map_batches(
        actor,
        fn_constructor_kwargs=worker,
        compute=ray.data.ActorPoolStrategy(size=num_workers),
        num_cpus=config.scaling.cpus_per_worker,
        num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        batch_size=None,
    )
    predicted.context.raise_original_map_exception = True  # so that our own errors arrive as such
    return predicted
