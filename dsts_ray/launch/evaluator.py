"""Evaluation of a saved model on a split."""

from dataclasses import dataclass, replace
from pathlib import Path

import ray
import torch

from dsts_ray.build import build_clip_spec, load_model
from dsts_ray.config.schema import Config
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.pipeline import batches, test_stream
from dsts_ray.errors import ConfigError
from dsts_ray.launch.cluster import connected
from dsts_ray.launch.dataset import labelled_split, locate_manifest
from dsts_ray.launch.home import storage_folder, tracking_uri
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.tracking.registry import ResolvedModel, resolve_model
from dsts_ray.train.evaluate import Predictions, joined, predict, score

_CPUS_FOR_MODEL = 0.5


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        model: Where the model came from.
        manifest: Manifest it was evaluated on.
        split: Of the manifest.
        metrics: Under the names of the design.
        refused: (video id, reason) of the videos that could not be decoded; they count as errors.
    """

    model: ResolvedModel
    manifest: Path
    split: str
    metrics: dict[str, float]
    refused: tuple[tuple[str, str], ...]


def fetch_model(model: str, uri: str | None) -> ResolvedModel:
    """Bring a registered model or a checkpoint folder to this machine.

    Args:
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder.
        uri: Tracking server; None means the SQLite store of the default storage folder.

    Raises:
        TrackingError: There is no such model.
    """
    storage = storage_folder(Config())
    return resolve_model(
        uri=uri or tracking_uri(Config(), storage), model=model, cache_dir=storage / "models"
    )


def evaluate(model: str, *, uri: str | None, data: Path | None, split: str | None) -> Evaluation:
    """Evaluate a model on its own validation split, or on ``split`` of the manifest ``data``.

    Raises:
        TrackingError: There is no such model.
        DataError: The manifest is missing or has no such split.
        ConfigError: The manifest's classes are not the model's.
    """
    resolved = fetch_model(model, uri)
    config, recognizer, classes = load_model(resolved.directory)
    if data is not None:
        config = replace(config, data=replace(config.data, manifest=str(data)))
    path = locate_manifest(config, storage_folder(Config()))
    manifest = Manifest.read(path)
    if manifest.classes != classes:
        raise ConfigError(
            f"{path} has {len(manifest.classes)} classes ({', '.join(manifest.classes[:3])}, ...), "
            f"the model was trained on {len(classes)} ({', '.join(classes[:3])}, ...); give --data "
            "a manifest of the same classes"
        )
    split = split or config.data.val_split
    videos = labelled_split(manifest, split)
    with connected():
        task = ray.remote(num_cpus=_CPUS_FOR_MODEL)(_predict_split)
        predictions: Predictions = ray.get(
            task.remote(config, recognizer, str(path), split, len(videos))
        )
    ids = videos.table["video_id"]
    refused = tuple((ids[sample].as_py(), reason) for sample, reason in predictions.refused)
    metrics = score(predictions, config.dsts.num_neurons)
    return Evaluation(resolved, path, split, metrics, refused)


def _predict_split(
    config: Config, model: Recognizer, manifest: str, split: str, num_videos: int
) -> Predictions:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stream = test_stream(
        manifest=manifest,
        split=split,
        num_videos=num_videos,
        spec=build_clip_spec(config),
        batch_size=config.evaluation.batch_size,
        num_workers=1,
        num_decoders=config.data.num_decoders,
        cpus_per_decoder=config.data.cpus_per_decoder,
    )
    blocks = batches(stream, batch_size=config.evaluation.batch_size, prefetch_batches=1)
    return joined(predict(model.to(device), blocks, device))
