"""Where a run keeps its files."""

import os
from pathlib import Path

from dsts_ray.config.schema import Config


def is_ray_job() -> bool:
    """Tell whether ``ray job submit`` started this process, in a temporary working directory."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def storage_folder(config: Config) -> Path:
    """Folder of run folders.

    ``storage.path``, or ``$DSTS_HOME/runs``, or inside a Ray job ``~/dsts_ray/runs``, or ``runs``.
    """
    if config.storage.path:
        return Path(config.storage.path).expanduser().resolve()
    home = os.environ.get("DSTS_HOME") or ("~/dsts_ray" if is_ray_job() else ".")
    return Path(home).expanduser().resolve() / "runs"


def output_path(out: Path) -> Path:
    """Where a file or folder lies that a command writes, without links.

    Inside a Ray job, whose working directory is a temporary copy, a relative one is in the storage
    folder.
    """
    start = storage_folder(Config()) if is_ray_job() else Path()
    return (start / out.expanduser()).resolve()


def tracking_uri(config: Config, storage: Path) -> str:
    """``tracking.uri``, or an SQLite store in the storage folder."""
    return config.tracking.uri or f"sqlite:///{storage / 'mlflow.db'}"


def given_or_default_uri(uri: str | None) -> str:
    """``uri``, or the SQLite store of the default storage folder."""
    return uri or tracking_uri(Config(), storage_folder(Config()))
