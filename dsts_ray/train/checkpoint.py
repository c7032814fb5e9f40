"""Checkpoints: safetensors and JSON, independent of the number of workers and of the ZeRO stage.

Layout: ``model.safetensors`` (all parameters and buffers; class names in its metadata),
``optimizer.safetensors`` (one entry per engine, parameter and state), ``config.yaml``,
``state.json`` (format version, next step, metrics, metric points not delivered yet, the ledger),
``checksums.json`` (size and SHA-256 of the others; see :mod:`~dsts_ray.train.checksums`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsts_ray.errors import CheckpointError
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.tracking.base import Point
from dsts_ray.train.engine import ParameterEngine
from dsts_ray.train.ledger import Ledger

FORMAT_VERSION = 3
WEIGHTS_FILE, OPTIMIZER_FILE, CONFIG_FILE, STATE_FILE = (
    "model.safetensors",
    "optimizer.safetensors",
    "config.yaml",
    "state.json",
)


class TrainingState(NamedTuple):
    """Where a run stands.

    Attributes:
        step: Next optimizer step.
        metrics: Of the last step and of the evaluation at this checkpoint.
        undelivered: Metric points the tracker had not delivered yet.
        ledger: What the run has done so far.
    """

    step: int
    metrics: dict[str, float]
    undelivered: tuple[Point, ...]
    ledger: Ledger


def save_weights(
    directory: Path, model: Recognizer, *, classes: Sequence[str], config: str
) -> None:
    """Write the two files a model is used from: weights and configuration."""
    save_copied_weights(directory, copy_weights(model), classes=classes, config=config)


def copy_weights(model: Recognizer) -> dict[str, Tensor]:
    """Copy weights into memory, so that they can be written while training goes on."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }


def save_copied_weights(
    directory: Path, weights: Mapping[str, Tensor], *, classes: Sequence[str], config: str
) -> None:
    """Write what :func:`copy_weights` gave, and the configuration."""
    metadata = {"classes": json.dumps(list(classes))}
    save_file(dict(weights), directory / WEIGHTS_FILE, metadata=metadata)
    (directory / CONFIG_FILE).write_text(config)


def save_training_state(
    directory: Path, optimizer_state: Mapping[str, Tensor], state: TrainingState
) -> None:
    """Write what continuing needs beyond the weights."""
    save_file(dict(optimizer_state), directory / OPTIMIZER_FILE)
    content = {"format_version": FORMAT_VERSION, **state._asdict()}
    content["ledger"] = state.ledger.to_json()
    (directory / STATE_FILE).write_text(json.dumps(content, indent=2))


def collect_optimizer_state(engines: Mapping[str, ParameterEngine | None]) -> dict[str, Tensor]:
    """Gather the state of named engines, on all workers, as ``engine/parameter/entry``."""
    return {
        f"{name}/{key}": value
        for name, engine in engines.items()
        if engine is not None
        for key, value in engine.state().items()
    }


def load_optimizer_state(directory: Path, engines: Mapping[str, ParameterEngine | None]) -> None:
    """Restore what :func:`collect_optimizer_state` gathered.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    state = _load(directory / OPTIMIZER_FILE)
    for name, engine in engines.items():
        if engine is not None:
            prefix = f"{name}/"
            engine.load_state(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )


def read_state(directory: Path) -> TrainingState:
    """Read where the run stood.

    Raises:
        CheckpointError: The file is missing, not JSON or of another format version.
    """
    content = read_json(directory / STATE_FILE)
    if content.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{directory / STATE_FILE}: format version {content.get('format_version')}, "
            f"this release reads {FORMAT_VERSION}; use the release that wrote it"
        )
    undelivered = tuple(Point(*point) for point in content["undelivered"])
    ledger = Ledger.from_json(content["ledger"])
    return TrainingState(content["step"], content["metrics"], undelivered, ledger)


def load_weights(directory: Path, model: Recognizer) -> None:
    """Load weights into a model of the same configuration.

    Raises:
        CheckpointError: The file is missing or damaged, or its names or shapes are not the model's.
    """
    path = directory / WEIGHTS_FILE
    weights, own = _load(path), model.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = sorted(
        name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
    )
    if missing or extra or reshaped:
        raise CheckpointError(
            f"{path} does not fit the model: missing {_some(missing)}, unknown {_some(extra)}, "
            f"other shape {_some(reshaped)}; use the configuration the checkpoint was trained with"
        )
    model.load_state_dict(weights)


def read_classes(directory: Path) -> tuple[str, ...]:
    """Read the class names a model was trained on.

    Raises:
        CheckpointError: The weights file is missing, damaged or names no classes.
    """
    path = directory / WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            return tuple(json.loads((file.metadata() or {})["classes"]))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"{path}: cannot read the class names ({error}); is it a dsts_ray checkpoint?"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing or no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot read it ({error}); use another checkpoint"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds no JSON object; use another checkpoint")
    return content


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot read it ({error}); use another checkpoint"
        ) from error


def _some(names: Sequence[str]) -> str:
    return (
        f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        if names
        else "none"
    )
