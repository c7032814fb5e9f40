"""From a run's best checkpoint to a version of the registered model."""

import hashlib
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dsts_ray
from dsts_ray.build import build_view_spec
from dsts_ray.config.schema import Config
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.source import video_bytes
from dsts_ray.errors import DataError
from dsts_ray.launch.dataset import manifest_path
from dsts_ray.launch.home import storage_folder
from dsts_ray.launch.measurement import CHECKPOINT_ARTIFACT, MEASURED_ON, setup_tags
from dsts_ray.tracking.mlflow import log_artifacts
from dsts_ray.tracking.registry import find_version, promote_if_better, register_model
from dsts_ray.train.checkpoint import CONFIG_FILE, WEIGHTS_FILE, read_state
from dsts_ray.train.predictions import EvaluationSetup

_PACKAGE = Path(dsts_ray.__file__).parent
_SERVING_REQUIREMENTS = (
    "annotated-types",
    "av",
    "decord",
    "einops",
    "fsspec",
    "jaxtyping",
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
    "torchmetrics",
    "torchvision",
)

MANIFEST_TAG = "manifest"
"""Tag with the path of the manifest that a version was trained on."""


def register_best(
    config: Config,
    uri: str,
    run_id: str,
    manifest: Manifest,
    checkpoint: Path,
    setup: EvaluationSetup,
) -> dict[str, Any]:
    """Log a run's best checkpoint, register it, and move the alias if it beats the champion.

    Returns:
        Entries for the run's summary.

    Raises:
        TrackingError: The registry cannot be reached or refuses.
    """
    name = config.tracking.model_name
    log_artifacts(uri=uri, run_id=run_id, directory=checkpoint, artifact_path=CHECKPOINT_ARTIFACT)
    entries: dict[str, Any] = {
        "best_checkpoint": str(checkpoint),
        **{f"best/{key}": value for key, value in _measured(checkpoint).items()},
    }
    if not name:
        return entries
    number = register_checkpoint(
        name, checkpoint, config=config, uri=uri, run_id=run_id, manifest=manifest, setup=setup
    )
    decided = promote_if_better(
        uri=uri,
        name=name,
        version=number,
        metric=config.tracking.metric,
        mode="max",
        alike=MEASURED_ON,
    )
    return entries | {
        "registered_model": name,
        "registered_version": decided.version,
        "is_champion": decided.is_champion,
        "incomparable": decided.incomparable,
    }


def register_checkpoint(
    name: str,
    checkpoint: Path,
    *,
    config: Config,
    uri: str,
    run_id: str,
    manifest: Manifest,
    setup: EvaluationSetup,
) -> str:
    """Make a checkpoint folder a version of a registered model.

    The version's tags say what its metrics hold for. What the run has registered before, with the
    same weights, is not registered again.

    Returns:
        The version.

    Raises:
        TrackingError: The registry cannot be reached or refuses.
    """
    tags = setup_tags(setup, manifest.split(setup.split))
    tags[MANIFEST_TAG] = str(manifest_path(config, storage_folder(config)))
    with (checkpoint / WEIGHTS_FILE).open("rb") as weights:
        tags["weights"] = hashlib.file_digest(weights, "sha256").hexdigest()
    # An earlier session of the run may have ended between the registration and the summary.
    return find_version(uri=uri, name=name, run_id=run_id, tags=tags) or register_model(
        uri=uri,
        run_id=run_id,
        name=name,
        model_script=_PACKAGE / "registered_model.py",
        artifacts={"config": checkpoint / CONFIG_FILE, "weights": checkpoint / WEIGHTS_FILE},
        code_paths=[_PACKAGE],
        example=input_example(config, manifest),
        pip_requirements=[f"{package}=={version(package)}" for package in _SERVING_REQUIREMENTS],
        metrics=_measured(checkpoint),
        tags=tags,
    )


def _measured(checkpoint: Path) -> dict[str, float]:
    """Metrics of the evaluation at a checkpoint."""
    metrics = read_state(checkpoint).metrics
    return {key: value for key, value in metrics.items() if key.startswith(("val/", "dsts/"))}


def input_example(config: Config, manifest: Manifest) -> bytes:
    """Content of the first validation video that can be decoded; empty where none can."""
    spec = build_view_spec(config)
    for video in manifest.split(config.data.val_split).table.to_pylist():
        with suppress(DataError):
            spec.views(video)
            return video_bytes(video)
    return b""
