"""What registered versions were measured on: as they were registered, and by evaluations since."""

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from dsts_ray.data.manifest import Manifest
from dsts_ray.tracking.mlflow import log_artifacts
from dsts_ray.tracking.promotion import Version
from dsts_ray.tracking.registry import ResolvedModel, tag_version
from dsts_ray.train.evaluate import score
from dsts_ray.train.predictions import (
    PREDICTIONS_FILE,
    EvaluationSetup,
    SavedPredictions,
    write_predictions,
)

MEASURED_ON = ("split", "num_videos", "protocol", "manifest_digest")
"""Tags of a version that must be the champion's for their metrics to be compared."""

CHECKPOINT_ARTIFACT = "checkpoint"
"""Artifact folder of a run's best checkpoint."""

_EVALUATION = "evaluation."
_PREDICTIONS = "predictions"


def setup_tags(setup: EvaluationSetup, videos: Manifest) -> dict[str, str]:
    """Tags that say what metrics hold for."""
    tags = {name: str(value) for name, value in asdict(setup).items() if name != "model"}
    return tags | {"manifest_digest": videos.digest}


def record_evaluation(
    resolved: ResolvedModel,
    saved: SavedPredictions,
    *,
    videos: Manifest,
    uri: str,
) -> None:
    """Keep an evaluation with the version that was evaluated, for promotions to go by.

    It takes the place of an earlier one of the same setup.

    Args:
        resolved: A registered version.
        saved: What it predicted.
        videos: That were predicted.
        uri: Tracking server or store.

    Raises:
        TrackingError: The registry cannot be reached or refuses.
    """
    assert resolved.name
    assert resolved.version
    assert resolved.run_id
    tags = setup_tags(saved.setup, videos)
    digest = hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()[:16]
    artifacts = f"evaluations/version-{resolved.version}-{digest}"
    with tempfile.TemporaryDirectory() as folder:
        write_predictions(saved, Path(folder) / PREDICTIONS_FILE)
        log_artifacts(
            uri=uri, run_id=resolved.run_id, directory=Path(folder), artifact_path=artifacts
        )
    metrics = score(saved.predictions, classes=saved.classes, num_neurons=saved.num_neurons)
    measured = {key: repr(float(value)) for key, value in metrics.items()}
    content = tags | measured | {_PREDICTIONS: f"{artifacts}/{PREDICTIONS_FILE}"}
    tag_version(
        uri=uri,
        name=resolved.name,
        version=resolved.version,
        tags={f"{_EVALUATION}{digest}": json.dumps(content)},
    )


def measurements(version: Version) -> list[Version]:
    """A version with the tags of each of its evaluations, the one it was registered with first."""
    recorded = [text for key, text in version.tags.items() if key.startswith(_EVALUATION)]
    own = {key: text for key, text in version.tags.items() if not key.startswith(_EVALUATION)}
    return [version._replace(tags=tags) for tags in (own, *map(json.loads, sorted(recorded)))]


def predictions_artifact(version: Version) -> str:
    """Where the run's artifacts have what one of a version's ``measurements`` predicted."""
    return version.tags.get(_PREDICTIONS, f"{CHECKPOINT_ARTIFACT}/{PREDICTIONS_FILE}")
