"""A training run from configuration to registered model: the driver's side."""

import json
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ray.train import Result
from ray.train.v2.api.callback import RayTrainCallback
from rich.console import Console

from dsts_ray.build import build_model, build_setup, scaled_lr
from dsts_ray.config.load import config_to_yaml, flatten, run_name
from dsts_ray.config.schema import Config
from dsts_ray.data.augment import check_flip_labels
from dsts_ray.data.manifest import Manifest
from dsts_ray.errors import StoppedError
from dsts_ray.launch.cluster import check_resources, connected
from dsts_ray.launch.dataset import (
    check_held_out,
    check_same_data,
    describe,
    labelled_split,
    locate_manifest,
    manifest_path,
)
from dsts_ray.launch.fit import fit
from dsts_ray.launch.home import storage_folder, tracking_uri
from dsts_ray.launch.register import register_best
from dsts_ray.launch.run import (
    CHECKPOINTS,
    DATA_FILE,
    REFUSED_FILE,
    Outcome,
    Run,
    check_same_config,
)
from dsts_ray.launch.snapshot import latest_checkpoint, latest_state, recover
from dsts_ray.launch.weights import check_weights, locate_weights, print_weights
from dsts_ray.report.results import RUN_ARTIFACT, SUMMARY_FILE
from dsts_ray.tracking.mlflow import environment_versions, finish_run, log_artifacts, open_run
from dsts_ray.train.checkpoint import CONFIG_FILE, read_json
from dsts_ray.train.checksums import verify
from dsts_ray.train.predictions import PREDICTIONS_FILE


def train(
    config: Config,
    console: Console,
    *,
    tags: Mapping[str, str] | None = None,
    callbacks: Sequence[RayTrainCallback] = (),
    changed: Collection[str] = (),
) -> Outcome:
    """Train, evaluate, register; continues an interrupted run of the same name.

    Args:
        config: Resolved configuration.
        console: Where progress is shown.
        tags: Of the MLflow run, beside the versions of the environment.
        callbacks: What Ray Train's controller tells of reports.
        changed: Keys that may differ from those the run began with.

    Raises:
        DSTSRayError: Bad configuration, data, cluster or tracking server; what was trained until
            then is kept.
    """
    started = time.monotonic()
    storage = storage_folder(config)
    name = run_name(config)
    folder = storage / name
    check_same_config(config, folder, changed)
    uri = tracking_uri(config, storage)
    if (folder / SUMMARY_FILE).exists():
        path = manifest_path(config, storage)
        if path.exists():
            check_same_data(Manifest.read(path), folder / DATA_FILE)
        run = Run(config, name, folder, uri, path)
        return Outcome(run, read_json(folder / SUMMARY_FILE), was_finished=True)
    say = partial(console.print, markup=False)
    say(f"run {name} in {folder}")
    if config.optim.base_batch_size not in (0, config.train.batch_size):
        say(
            f"learning rate {config.optim.lr:g} is stated for a batch of "
            f"{config.optim.base_batch_size}: scaled to {scaled_lr(config):g} for "
            f"{config.train.batch_size}"
        )
    with console.status("preparing data"):
        weights = locate_weights(config.model.weights, uri=uri, cache=storage / "models")
        run = Run(config, name, folder, uri, locate_manifest(config, storage), weights)
        manifest = Manifest.read(run.manifest)
        check_same_data(manifest, folder / DATA_FILE)
        check_flip_labels(config.augment.flip_labels, len(manifest.classes))
        labelled_split(manifest, config.data.val_split)
        num_clips = len(labelled_split(manifest, config.data.train_split))
        check_held_out(config, num_clips)
    recover(folder / CHECKPOINTS, config.tracking.metric, say)
    earlier = latest_state(folder / CHECKPOINTS)
    if run.weights and not earlier:
        print_weights(check_weights(config, len(manifest.classes), run.weights), console)
    run_id = open_run(
        uri=uri,
        experiment=config.tracking.experiment,
        run_name=name,
        artifact_root=str(storage / "artifacts"),
        params=flatten(config),
        tags=environment_versions() | dict(tags or {}),
    )
    status = "FAILED"
    try:
        with connected():
            check_resources(config, console)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CONFIG_FILE).write_text(config_to_yaml(config))
            (folder / DATA_FILE).write_text(json.dumps(describe(manifest), indent=2))
            started -= earlier.ledger.wall_s if earlier else 0.0  # as if it had not stopped
            try:
                result = fit(run, manifest, num_clips, run_id, console, started, callbacks)
            finally:
                _log_refused(run, run_id)
        summary = _summarize(run, manifest, result, run_id, time.monotonic() - started)
        _record(run, summary, run_id)
        status = "FINISHED"
    except (KeyboardInterrupt, StoppedError):
        status = "KILLED"
        raise
    finally:
        finish_run(uri=uri, run_id=run_id, status=status, tags={"run_folder": str(folder)})
    return Outcome(run, summary, was_finished=False)


def _log_refused(run: Run, run_id: str) -> None:
    """Log which videos were refused, however the training ended."""
    if (run.folder / REFUSED_FILE).exists():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(run.folder / REFUSED_FILE, folder)
            _log(run, run_id, folder)


def _log(run: Run, run_id: str, folder: str) -> None:
    log_artifacts(
        uri=run.tracking_uri, run_id=run_id, directory=Path(folder), artifact_path=RUN_ARTIFACT
    )


def _record(run: Run, summary: dict[str, Any], run_id: str) -> None:
    """Write ``summary.json``, which marks the run as finished, and log it.

    Beside it in MLflow: the configuration, and what the last evaluation predicted.
    """
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        written = Path(folder) / SUMMARY_FILE
        written.write_text(json.dumps(summary, indent=2))
        shutil.copy(run.folder / CONFIG_FILE, folder)
        latest = latest_checkpoint(run.folder / CHECKPOINTS)
        if latest and (latest / PREDICTIONS_FILE).exists():
            shutil.copy(latest / PREDICTIONS_FILE, folder)
        _log(run, run_id, folder)
        written.replace(run.folder / SUMMARY_FILE)


def _summarize(
    run: Run, manifest: Manifest, result: Result, run_id: str, wall_s: float
) -> dict[str, Any]:
    returned = result.return_value
    assert returned is not None
    model = build_model(run.config, len(manifest.classes))
    dsts = model.classifier.dsts
    metrics = returned["metrics"]
    video_ids = manifest.split(run.config.data.train_split).table["video_id"]
    split = run.config.data.val_split
    setup = build_setup(
        run.config, model=run.name, split=split, num_videos=len(manifest.split(split))
    )
    best = result.get_best_checkpoint(run.config.tracking.metric, "max")
    assert best is not None
    verify(Path(best.path))
    registration = register_best(
        run.config, run.tracking_uri, run_id, manifest, Path(best.path), setup
    )
    return {
        "name": run.name,
        "num_classes": len(manifest.classes),
        "train/loss_last": metrics.get("train/loss"),
        "evaluation": asdict(setup),
        **{
            key: value
            for key, value in metrics.items()
            if key.startswith(("val/", "dsts/", "udl/", "time/inference"))
        },
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_auxiliary_parameters": sum(
            p.numel() for name, p in model.named_parameters() if "auxiliary_head." in name
        ),
        "num_dsts_parameters": sum(p.numel() for p in dsts.parameters()) if dsts else 0,
        "wall_s": wall_s,
        "clips_per_s": returned["clips_per_s"],
        "data_wait_ratio": returned["data_wait_ratio"],
        "checkpoint_ratio": returned["checkpoint_ratio"],
        "tracking_ratio": returned["tracking_ratio"],
        "num_skipped_steps": len(returned["nonfinite"]),
        "refused": [
            {"video_id": video_ids[sample].as_py(), "reason": reason}
            for sample, reason in returned["refused"].items()
        ],
        "figures_lost": returned["figures_lost"],
        "mlflow_run_id": run_id,
        "tracking_uri": run.tracking_uri,
        **registration,
    }
