"""Export a registered model, checked on clips of its data set."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from dsts_ray.build import build_view_spec
from dsts_ray.errors import ConfigError, DataError
from dsts_ray.export import Exported, Format, export_model
from dsts_ray.launch.evaluator import EvaluationTask, evaluation_task
from dsts_ray.launch.home import output_path

NUM_VIDEOS = 8


def export(
    model: str,
    *,
    uri: str | None,
    data: Path | None,
    split: str | None,
    format: Format,
    path: Path,
) -> Exported:
    """Write a model as one file.

    Args:
        model: As in ``fetch_model``.
        uri: Tracking server.
        data: Manifest of the videos that the file is checked on; None is the model's.
        split: Of the manifest; None is the model's validation split.
        format: Of the file.
        path: Of the file, as in ``output_path``.

    Raises:
        TrackingError: There is no such model.
        DataError: The manifest is missing or has no such split.
        ConfigError: The manifest's classes are not the model's, none of its videos is readable, or
            ``path`` is a folder.
        ExportError: A package is missing, or the file computes something else.
    """
    path = output_path(path)
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder: name a file in it")
    task = evaluation_task(model, uri=uri, data=data, split=split, num_workers=1, overrides=())
    classes = task.videos.classes
    return export_model(task.model, _clips(task), classes=classes, format=format, path=path)


def _clips(task: EvaluationTask) -> list[np.ndarray]:
    """All views of some videos, spread over the split; what cannot be decoded is left out."""
    spec = build_view_spec(task.config)
    places = np.unique(np.linspace(0, len(task.videos) - 1, NUM_VIDEOS).astype(int))
    clips: list[np.ndarray] = []
    for row in task.videos.table.take(places).to_pylist():
        with suppress(DataError):
            clips += list(spec.views(row))
    return clips
