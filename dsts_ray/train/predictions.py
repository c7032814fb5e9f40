"""Predictions of a split as a Parquet file: write, read, fuse."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dsts_ray.data.manifest import write_parquet
from dsts_ray.errors import DataError
from dsts_ray.train.evaluate import Predictions

SCHEMA_VERSION = 1
PREDICTIONS_FILE = "predictions.parquet"
"""Of a checkpoint: what its evaluation predicted."""

_METADATA_KEY = b"dsts_ray.predictions"
_COLUMNS = ("video_id", "label", "probabilities", "views_expected", "views_seen", "refused")


@dataclass(frozen=True, kw_only=True)
class EvaluationSetup:
    """What a result holds for; part of every result that is shown or stored.

    Attributes:
        model: Name and version, or folder.
        split: Of the manifest.
        num_videos: In the split.
        protocol: num_clips x num_crops.
        average: What was averaged over the views of a video.
        frames: Of a clip, and how they are sampled.
        size: Of a view and of the decoded frames' short side, pixels.
        refused: What a video that cannot be decoded does.
    """

    model: str
    split: str
    num_videos: int
    protocol: str
    average: str
    frames: str
    size: str
    refused: str

    def __str__(self) -> str:
        """Say all but the model in a line."""
        return (
            f"{self.split}, {self.num_videos} videos, protocol {self.protocol} ({self.average} "
            f"averaged), frames {self.frames}, crop {self.size}"
        )


@dataclass(frozen=True, kw_only=True)
class SavedPredictions:
    """Predictions with all that scoring them needs.

    Attributes:
        setup: How they came about.
        classes: Class names.
        num_neurons: In each DSTS layer.
        video_ids: Of the predictions' rows.
        predictions: The rows.
    """

    setup: EvaluationSetup
    classes: tuple[str, ...]
    num_neurons: int
    video_ids: tuple[str, ...]
    predictions: Predictions


def write_predictions(saved: SavedPredictions, path: Path) -> None:
    """Write predictions; a reader sees either the old file or the whole new one.

    Columns: ``video_id``, ``label``, ``probabilities`` (float32, one a class), ``views_expected``,
    ``views_seen``, ``neurons_layer0`` and so on (one a view, -1 for a view not averaged) and
    ``refused``, the reason, null for a video with a prediction. The metadata hold the rest.
    """
    rows = saved.predictions
    num_videos = len(rows.labels)
    columns: dict[str, Any] = {
        "video_id": pa.array(saved.video_ids, pa.string()),
        "label": rows.labels.numpy(),
        "probabilities": _lists(rows.probabilities.numpy()),
        "views_expected": np.full(num_videos, rows.num_views),
        "views_seen": rows.views_seen.numpy(),
    }
    for layer in range(rows.chosen.shape[2]):
        columns[f"neurons_layer{layer}"] = _lists(rows.chosen[:, :, layer].numpy())
    reasons = [rows.refused.get(row) for row in range(num_videos)]
    columns["refused"] = pa.array(reasons, pa.string())
    content = {
        "schema_version": SCHEMA_VERSION,
        "setup": asdict(saved.setup),
        "classes": list(saved.classes),
        "num_neurons": saved.num_neurons,
    }
    table = pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps(content)})
    write_parquet(table, path)


def read_predictions(path: Path) -> SavedPredictions:
    """Read what ``write_predictions`` wrote.

    Raises:
        DataError: The file is missing, damaged, no prediction file, of another schema version, or
            its rows contradict its classes.
    """
    if not path.is_file():
        raise DataError(f"there is no prediction file at {path}; write one with --save")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    metadata = table.schema.metadata or {}
    if _METADATA_KEY not in metadata:
        raise DataError(f"{path} is a Parquet file but holds no predictions: write one with --save")
    content = json.loads(metadata[_METADATA_KEY])
    if content["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {content['schema_version']}, this program reads "
            f"{SCHEMA_VERSION}; save the predictions again"
        )
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing or len(table) == 0:
        raise DataError(f"{path} lacks {'columns ' + ', '.join(missing) if missing else 'rows'}")
    saved = SavedPredictions(
        setup=EvaluationSetup(**content["setup"]),
        classes=tuple(content["classes"]),
        num_neurons=content["num_neurons"],
        video_ids=tuple(table["video_id"].to_pylist()),
        predictions=_rows(table, path),
    )
    _check(saved, path)
    return saved


def fuse(one: SavedPredictions, other: SavedPredictions) -> SavedPredictions:
    """Average the probabilities of two predictions of the same videos, each with the same weight.

    A video that one of them refused is refused. Neurons are left out.

    Raises:
        DataError: Classes, split, videos or labels differ.
    """
    if one.classes != other.classes:
        raise DataError(
            f"the classes differ: {len(one.classes)} ({', '.join(one.classes[:3])}, ...) and "
            f"{len(other.classes)} ({', '.join(other.classes[:3])}, ...)"
        )
    if one.setup.split != other.setup.split:
        raise DataError(f"the splits differ: {one.setup.split!r} and {other.setup.split!r}")
    only = set(one.video_ids) ^ set(other.video_ids)
    if only:
        raise DataError(
            f"the videos differ: {len(only)} are in one file only, as {sorted(only)[0]!r}"
        )
    row_of = {video_id: row for row, video_id in enumerate(other.video_ids)}
    order = [row_of[video_id] for video_id in one.video_ids]
    first, second = one.predictions, other.predictions
    changed = (first.labels != second.labels[order]).nonzero().flatten().tolist()
    if changed:
        raise DataError(
            f"the labels of {len(changed)} videos differ, as of {one.video_ids[changed[0]]!r}"
        )
    back = {old: new for new, old in enumerate(order)}
    refused = {back[row]: reason for row, reason in second.refused.items()} | dict(first.refused)
    mean = (first.probabilities + second.probabilities[order]) / 2
    mean[list(refused)] = 0.0
    views_seen = first.views_seen + second.views_seen[order]
    views_seen[list(refused)] = 0
    num_views = first.num_views + second.num_views
    none = torch.zeros(len(order), num_views, 0, dtype=torch.int64)
    return replace(
        one,
        setup=_fused_setup(one.setup, other.setup),
        predictions=Predictions(first.labels, mean, views_seen, none, refused),
    )


def _fused_setup(one: EvaluationSetup, other: EvaluationSetup) -> EvaluationSetup:
    """Join what differs with a plus."""
    joined: dict[str, Any] = {}
    for name, value in asdict(one).items():
        also = asdict(other)[name]
        joined[name] = value if value == also and name != "model" else f"{value} + {also}"
    return EvaluationSetup(**joined)


def _rows(table: pa.Table, path: Path) -> Predictions:
    layers = sum(name.startswith("neurons_layer") for name in table.column_names)
    try:
        (num_views,) = table["views_expected"].unique().to_pylist()
        lists = [table[f"neurons_layer{layer}"].to_pylist() for layer in range(layers)]
        chosen = np.array(lists, np.int64).reshape(layers, len(table), num_views)
        return Predictions(
            labels=torch.from_numpy(np.array(table["label"].to_pylist(), np.int64)),
            probabilities=torch.from_numpy(
                np.array(table["probabilities"].to_pylist(), np.float32)
            ),
            views_seen=torch.from_numpy(np.array(table["views_seen"].to_pylist(), np.int64)),
            chosen=torch.from_numpy(np.ascontiguousarray(chosen.transpose(1, 2, 0))),
            refused={row: text for row, text in enumerate(table["refused"].to_pylist()) if text},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} has columns of other types or lengths: {error}") from error


def _check(saved: SavedPredictions, path: Path) -> None:
    rows, num_classes = saved.predictions, len(saved.classes)
    if rows.probabilities.shape != (len(rows.labels), num_classes):
        raise DataError(
            f"{path} holds probabilities of shape {tuple(rows.probabilities.shape)} for "
            f"{len(rows.labels)} videos and {num_classes} classes"
        )
    outside = (rows.labels < 0) | (rows.labels >= num_classes)
    if outside.any():
        raise DataError(
            f"{path} holds label {int(rows.labels[outside][0])}, allowed are 0 to {num_classes - 1}"
        )
    if len(set(saved.video_ids)) != len(saved.video_ids):
        raise DataError(f"{path} lists a video more than once")
    expected = torch.ones(len(rows.labels))
    expected[list(rows.refused)] = 0.0
    if not torch.allclose(rows.probabilities.sum(1), expected, atol=1e-3):
        raise DataError(
            f"{path} holds probabilities that do not sum to 1, or to 0 for a refused video"
        )


def _lists(values: np.ndarray) -> pa.FixedSizeListArray:
    """Rows of a matrix as one list each."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
