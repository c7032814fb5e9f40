"""A training run and what lies in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train import Result

from dsts_ray.config.load import FREE_KEYS, config_from_yaml, flatten
from dsts_ray.config.schema import Config
from dsts_ray.errors import ConfigError
from dsts_ray.train.checkpoint import CONFIG_FILE, TrainingState, read_state

DATA_FILE, REFUSED_FILE = "data.json", "refused.parquet"
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


def check_same_config(config: Config, folder: Path) -> None:
    """Refuse to go on with a run of another configuration.

    Raises:
        ConfigError: Says what changed.
    """
    if not (folder / CONFIG_FILE).exists():
        return
    before, now = flatten(config_from_yaml(folder / CONFIG_FILE)), flatten(config)
    changed = [
        f"{key}: {before.get(key)!r} before, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in FREE_KEYS
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds a run of another configuration ({'; '.join(changed)}); "
            "choose another name=..., or the same configuration to continue it"
        )


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that Ray Train's snapshot calls the latest; None without one."""
    if not (checkpoints / "checkpoint_manager_snapshot.json").exists():
        return None
    latest = Result.from_path(str(checkpoints)).checkpoint
    return Path(latest.path) if latest else None


def latest_state(checkpoints: Path) -> TrainingState | None:
    """State of the latest checkpoint; None without one."""
    latest = latest_checkpoint(checkpoints)
    return read_state(latest) if latest else None


def latest_step(checkpoints: Path) -> int:
    """Next step after the latest checkpoint; 0 without one."""
    state = latest_state(checkpoints)
    return state.step if state else 0
