"""A training run and what lies in its folder."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsts_ray.config.fields import config_fields
from dsts_ray.config.load import FREE_KEYS, config_from_yaml, flatten
from dsts_ray.config.schema import Config
from dsts_ray.errors import ConfigError
from dsts_ray.train.checkpoint import CONFIG_FILE

DATA_FILE, REFUSED_FILE, NONFINITE_FILE = "data.json", "refused.parquet", "nonfinite.json"
CHECKPOINTS, SAMPLES = "checkpoints", "samples"


@dataclass(frozen=True)
class Run:
    """A run and its places.

    Attributes:
        config: Resolved configuration.
        name: Of the run and its folder.
        folder: Run folder.
        tracking_uri: MLflow store.
        manifest: Parquet file.
        weights: File to start from, or None.
    """

    config: Config
    name: str
    folder: Path
    tracking_uri: str
    manifest: Path
    weights: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run ended with.

    Attributes:
        run: The run.
        summary: Content of ``summary.json``.
        was_finished: True when an earlier call had finished it and nothing was done now.
    """

    run: Run
    summary: dict[str, Any]
    was_finished: bool


def check_same_config(config: Config, folder: Path, allowed: Collection[str] = ()) -> None:
    """Refuse to go on with a run of another configuration.

    Args:
        config: As it is now.
        folder: Of the run.
        allowed: Keys that may differ.

    Raises:
        ConfigError: Says what changed, and how to go on nevertheless.
    """
    unknown = sorted(set(allowed) - config_fields().keys())
    if unknown:
        raise ConfigError(
            f"--changed names {', '.join(unknown)}, which is no key of the configuration; --help "
            "lists them"
        )
    if not (folder / CONFIG_FILE).exists():
        return
    before, now = flatten(config_from_yaml(folder / CONFIG_FILE)), flatten(config)
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in (*FREE_KEYS, *allowed)
    ]
    if changed:
        values = [f"{key}: {before.get(key)!r} before, {now.get(key)!r} now" for key in changed]
        raise ConfigError(
            f"{folder} holds a run of another configuration ({'; '.join(values)}); choose another "
            "name=..., the same configuration to continue it, or continue it with these changes: "
            f"--changed {','.join(sorted({*changed, *allowed}))}"
        )
