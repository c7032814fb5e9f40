"""Weights a run starts from: where they are, and what they fill of the model."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dsts_ray.build import build_model
from dsts_ray.config.schema import Config
from dsts_ray.config.sweep import Values
from dsts_ray.config.trials import SweepPlan, plan_sweep
from dsts_ray.errors import CheckpointError
from dsts_ray.models.weights import WeightsReport, load_starting_weights
from dsts_ray.tracking.registry import pinned_model, resolve_model
from dsts_ray.train.checkpoint import WEIGHTS_FILE

_MODEL_PARTS = 2
_KEY = "model.weights"


def locate_weights(weights: str, *, uri: str, cache: Path) -> Path | None:
    """Resolve ``model.weights``: a file, a checkpoint folder of ours or a registered model.

    The path must be the same on every node of the cluster.

    Args:
        weights: Path, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; empty for none.
        uri: Tracking server with the registered models.
        cache: Folder for what is fetched from there.

    Returns:
        A file, or None.

    Raises:
        CheckpointError: There is no such file.
        TrackingError: There is no such registered model.
    """
    if not weights:
        return None
    if weights.startswith("models:"):
        return resolve_model(uri=uri, model=weights, cache_dir=cache).directory / WEIGHTS_FILE
    path = Path(weights).expanduser().absolute()
    path = path / WEIGHTS_FILE if path.is_dir() else path
    if not path.is_file():
        raise CheckpointError(
            f"model.weights = {weights}: there is no file {path}; give a file, or a checkpoint "
            "folder, that every node can read"
        )
    return path


def pinned_weights(plan: SweepPlan, *, uri: str) -> SweepPlan:
    """The plan with the versions that aliases of registered models in ``model.weights`` mean now.

    A run is known by its configuration, in which an alias would stand for other weights later.

    Raises:
        TrackingError: There is no such registered model.
    """

    def pinned(values: Values) -> dict[str, Any]:
        return {
            key: pinned_model(uri=uri, model=value) if key == _KEY else value
            for key, value in values.items()
        }

    sweep = plan.sweep
    rows = {row: pinned(values) for row, values in sweep.rows.items()}
    space = {
        key: [pinned({key: value})[key] for value in entry] if isinstance(entry, list) else entry
        for key, entry in sweep.space.items()
    }
    given: list[str] = []
    for override in plan.overrides:
        key, _, value = override.partition("=")
        given.append(f"{key}={pinned({key: value})[key]}")
    if (rows, space, given) == (dict(sweep.rows), dict(sweep.space), list(plan.overrides)):
        return plan
    return plan_sweep(replace(sweep, rows=rows, space=space), given)


def check_weights(config: Config, num_classes: int, file: Path) -> WeightsReport:
    """Fit a file to the model's shapes without building it.

    Raises:
        CheckpointError: As in ``load_starting_weights``.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes)
    return load_starting_weights(model, file)


def print_weights(report: WeightsReport, console: Console) -> None:
    """Print what was loaded, reshaped, inflated, skipped and is missing, by part of the model."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for entry in report.entries:
        part = ".".join(entry.name.split(".")[:_MODEL_PARTS])
        groups[entry.outcome, part, entry.note].append(entry.size)
    table = Table(title=f"{report.file}: {report.layout}")
    for heading in ("outcome", "part", "tensors", "values", "note"):
        number = heading in ("tensors", "values")
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for (outcome, part, note), sizes in groups.items():
        table.add_row(outcome, part, f"{len(sizes)}", f"{sum(sizes):,}", note)
    console.print(table)
    for remark in report.remarks:
        console.print(f"[yellow]{remark}[/yellow]", soft_wrap=True, highlight=False)
