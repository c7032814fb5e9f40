"""Explain a registered model on a split: predictions and key frames on Ray, the page here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.exceptions import RayError

from dsts_ray.build import build_view_spec
from dsts_ray.config.schema import Config
from dsts_ray.data.clip import ViewSpec
from dsts_ray.errors import DataError
from dsts_ray.explain.clips import blank_strip, key_frames
from dsts_ray.explain.course import History, drawn_metrics
from dsts_ray.explain.values import explain_predictions
from dsts_ray.explain.write import check_folder, write_explanation
from dsts_ray.launch.cluster import connected
from dsts_ray.launch.evaluator import EvaluationTask, evaluation_task, run_evaluation
from dsts_ray.launch.home import given_or_default_uri, output_path, storage_folder
from dsts_ray.tracking.mlflow import log_artifacts
from dsts_ray.tracking.search import get_run, metric_history

ARTIFACT = "explanation"
"""Artifact folder of the run that trained the model; a folder a split in it."""
_CLIPS_A_TASK = 16


class WrittenExplanation(NamedTuple):
    """A page, and where its folder belongs in MLflow.

    Attributes:
        page: HTML file.
        run_id: Run that trained the model; None for a plain folder.
        artifact: Artifact folder of that run.
    """

    page: Path
    run_id: str | None
    artifact: str


def explain(
    model: str,
    *,
    uri: str | None,
    data: Path | None,
    split: str | None,
    baseline: str | None,
    num_workers: int,
    overrides: Sequence[str],
    out: Path | None,
) -> WrittenExplanation:
    """Evaluate a model and write what its neurons learned into a folder.

    Args:
        model: As in ``fetch_model``.
        uri: Tracking server.
        data: Manifest; None is the one the model was trained on.
        split: Of the manifest; None is the model's validation split.
        baseline: Another model, to compare with on the same videos.
        num_workers: Actors with a copy of the model.
        overrides: ``key=value`` over the configuration of both models, those that begin as
            ``CHANGEABLE``.
        out: Folder, as in ``output_path``; None is one beside the runs.

    Raises:
        TrackingError: There is no such model.
        DataError: The manifest is missing or has no such split.
        ConfigError: A bad override, the manifest's classes are not the models', or ``out`` holds
            something else.
        ClusterError: The cluster is too small.
    """
    common = {"uri": uri, "num_workers": num_workers, "overrides": overrides}
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
        rows = pa.array([clip.row for clip in explanation.clips], pa.int64())
        strips = strips_of(
            replace(build_view_spec(task.config), num_clips=1, num_crops=1),
            task.videos.table.take(rows).to_pylist(),
            num_cpus=task.config.data.cpus_per_decoder,
        )
    page = write_explanation(explanation, strips, folder)
    return WrittenExplanation(page, run_id, f"{ARTIFACT}/{task.split}")


def log_explanation(written: WrittenExplanation, uri: str | None) -> None:
    """Log an explanation as artifacts of the run that trained the model.

    Raises:
        TrackingError: MLflow does not take the files.
    """
    if written.run_id:
        log_artifacts(
            uri=given_or_default_uri(uri),
            run_id=written.run_id,
            directory=written.page.parent,
            artifact_path=written.artifact,
        )


def _default_folder(task: EvaluationTask) -> Path:
    resolved = task.resolved
    name = f"{resolved.name}-{resolved.version}" if resolved.name else resolved.directory.name
    return storage_folder(Config()) / "explanations" / f"{name}-{task.split}"


def _history(uri: str, run_id: str) -> History:
    names = drawn_metrics(list(get_run(uri=uri, run_id=run_id).metrics))
    return {name: metric_history(uri=uri, run_id=run_id, key=name) for name in names}


def strips_of(spec: ViewSpec, videos: list[dict[str, Any]], *, num_cpus: float) -> list[bytes]:
    """Decode key frames of videos on the cluster, as the model saw them.

    A video that does not decode, or ends the process that decodes it, has a strip that says so: it
    must not cost an evaluation.

    Args:
        spec: Of one view.
        videos: Rows of a manifest.
        num_cpus: Of a task.
    """
    decode = ray.remote(num_cpus=num_cpus)(_decoded)
    starts = range(0, len(videos), _CLIPS_A_TASK)
    parts = [videos[start : start + _CLIPS_A_TASK] for start in starts]
    fetched = zip(parts, [decode.remote(spec, part) for part in parts], strict=True)
    return [strip for part, strips in fetched for strip in _fetched(strips, len(part))]


def _fetched(strips: ray.ObjectRef, num_videos: int) -> list[bytes]:
    try:
        return ray.get(strips)
    except RayError as error:
        return [blank_strip(f"not decoded again: {error}")] * num_videos


def _decoded(spec: ViewSpec, videos: list[dict[str, Any]]) -> list[bytes]:
    strips = []
    for video in videos:
        try:
            strips.append(key_frames(spec.views(video)[0]))
        except DataError as error:
            strips.append(blank_strip(f"not decoded again: {error}"))
    return strips
