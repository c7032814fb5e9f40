"""Explain a registered model on a split: predictions and key frames on Ray, the page here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayTaskError

from dsts_ray.build import build_view_spec
from dsts_ray.config.schema import Config
from dsts_ray.data.clip import ViewSpec
from dsts_ray.explain.clips import key_frames
from dsts_ray.explain.course import History, drawn_metrics
from dsts_ray.explain.drawing import Clip
from dsts_ray.explain.values import explain_predictions
from dsts_ray.explain.write import check_folder, write_explanation
from dsts_ray.launch.cluster import connected
from dsts_ray.launch.evaluator import EvaluationTask, evaluation_task, run_evaluation
from dsts_ray.launch.failure import own_error
from dsts_ray.launch.home import given_or_default_uri, output_path, storage_folder
from dsts_ray.tracking.mlflow import log_artifacts
from dsts_ray.tracking.search import get_run, metric_history

ARTIFACT = "explanation"
"""Artifact folder of the run that trained the model."""
_CLIPS_A_TASK = 16


class WrittenExplanation(NamedTuple):
    """The page, and the MLflow run that has it, too; None for a plain folder."""

    page: Path
    run_id: str | None


def explain(
    model: str,
    *,
    uri: str | None,
    data: Path | None,
    split: str | None,
    baseline: str | None,
    num_workers: int,
    out: Path | None,
) -> WrittenExplanation:
    """Evaluate a model and write what its neurons learned.

    Args:
        model: As in ``fetch_model``.
        uri: Tracking server.
        data: Manifest; None is the one the model was trained on.
        split: Of the manifest; None is the model's validation split.
        baseline: Another model, to compare with on the same videos.
        num_workers: Actors with a copy of the model.
        out: Folder, as in ``output_path``; None is one beside the runs.

    Raises:
        TrackingError: There is no such model, or MLflow does not take the files.
        DataError: The manifest is missing or has no such split.
        ConfigError: The manifest's classes are not the models', or ``out`` holds something else.
        ClusterError: The cluster is too small.
    """
    common = {"uri": uri, "num_workers": num_workers, "overrides": ()}
    task = evaluation_task(model, data=data, split=split, **common)
    folder = output_path(out) if out else _default_folder(task)
    check_folder(folder)
    other = None
    if baseline:
        other = evaluation_task(baseline, data=task.manifest, split=task.split, **common)
    store = given_or_default_uri(uri)
    run_id = task.resolved.run_id
    history = _history(store, run_id) if run_id else {}
    dsts = task.model.classifier.dsts
    with connected():
        explanation = explain_predictions(
            run_evaluation(task),
            spatial_ratios=dsts.spatial_ratios() if dsts else [],
            history=history,
            baseline=run_evaluation(other) if other else None,
        )
        strips = _strips(task, explanation.clips)
    page = write_explanation(explanation, strips, folder)
    if run_id:
        log_artifacts(uri=store, run_id=run_id, directory=folder, artifact_path=ARTIFACT)
    return WrittenExplanation(page, run_id)


def _default_folder(task: EvaluationTask) -> Path:
    resolved = task.resolved
    name = f"{resolved.name}-{resolved.version}" if resolved.name else resolved.directory.name
    return storage_folder(Config()) / "explanations" / f"{name}-{task.split}"


def _history(uri: str, run_id: str) -> History:
    names = drawn_metrics(list(get_run(uri=uri, run_id=run_id).metrics))
    return {name: metric_history(uri=uri, run_id=run_id, key=name) for name in names}


def _strips(task: EvaluationTask, clips: Sequence[Clip]) -> list[bytes]:
    """Key frames of the clips, as the model saw them, decoded on the cluster."""
    spec = replace(build_view_spec(task.config), num_clips=1, num_crops=1)
    rows = task.videos.table.take([clip.row for clip in clips]).to_pylist()
    decode = ray.remote(num_cpus=task.config.data.cpus_per_decoder)(_decoded)
    starts = range(0, len(rows), _CLIPS_A_TASK)
    parts = [decode.remote(spec, rows[start : start + _CLIPS_A_TASK]) for start in starts]
    try:
        return [strip for part in ray.get(parts) for strip in part]
    except RayTaskError as error:
        raise own_error(error) or error from error


def _decoded(spec: ViewSpec, rows: list[dict[str, Any]]) -> list[bytes]:
    return [key_frames(spec.views(row)[0]) for row in rows]
