"""A training run from configuration to registered model: the driver's side of Ray Train."""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from ray.data import Dataset
from ray.train import CheckpointConfig, DataConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.exceptions import TrainingFailedError
from rich.console import Console

from dsts_ray.build import (
    build_clip_spec,
    build_model,
    build_order,
    build_plan,
    build_setup,
    build_view_spec,
    scaled_lr,
)
from dsts_ray.config.load import config_from_yaml, config_to_yaml, flatten, run_name
from dsts_ray.config.schema import Config
from dsts_ray.data.augment import check_flip_labels
from dsts_ray.data.checks import REFUSED_SCHEMA
from dsts_ray.data.manifest import Manifest, write_parquet
from dsts_ray.data.pipeline import (
    execution_options,
    test_stream,
    training_stream,
    videos_per_block,
)
from dsts_ray.errors import ClusterError, ConfigError, DSTSRayError, OutOfMemoryError
from dsts_ray.launch.cluster import check_resources, connected
from dsts_ray.launch.dataset import (
    check_held_out,
    check_same_data,
    describe,
    labelled_split,
    locate_manifest,
    manifest_path,
)
from dsts_ray.launch.entry import WorkerJob, run_worker
from dsts_ray.launch.failure import out_of_memory, own_error
from dsts_ray.launch.home import storage_folder, tracking_uri
from dsts_ray.launch.progress import shown_progress
from dsts_ray.launch.register import register_best
from dsts_ray.launch.weights import check_weights, locate_weights, print_weights
from dsts_ray.report.results import RUN_ARTIFACT, SUMMARY_FILE
from dsts_ray.tracking.mlflow import environment_versions, finish_run, log_artifacts, open_run
from dsts_ray.train.checkpoint import CONFIG_FILE, TrainingState, read_json, read_state
from dsts_ray.train.predictions import PREDICTIONS_FILE

DATA_FILE, REFUSED_FILE = "data.json", "refused.parquet"
CHECKPOINTS, SAMPLES = "checkpoints", "samples"
_FREE_KEYS = ("name", "storage.path", "tracking.uri")


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


def train(
    config: Config,
    console: Console,
    *,
    tags: Mapping[str, str] | None = None,
    callbacks: Sequence[UserCallback] = (),
) -> Outcome:
    """Train, evaluate, register; continues an interrupted run of the same name.

    Args:
        config: Resolved configuration.
        console: Where progress is shown.
        tags: Of the MLflow run, beside the versions of the environment.
        callbacks: What Ray Train's controller tells of reports.

    Raises:
        DSTSRayError: Bad configuration, data, cluster or tracking server; what was trained until
            then is kept.
    """
    started = time.monotonic()
    storage = storage_folder(config)
    name = run_name(config)
    folder = storage / name
    _check_same_config(config, folder)
    uri = tracking_uri(config, storage)
    if (folder / SUMMARY_FILE).exists():
        path = manifest_path(config, storage)
        if path.exists():
            check_same_data(Manifest.read(path), folder / DATA_FILE)
        run = Run(config, name, folder, uri, path)
        return Outcome(run, read_json(folder / SUMMARY_FILE), was_finished=True)
    console.print(f"run {name} in {folder}")
    if config.optim.base_batch_size not in (0, config.train.batch_size):
        console.print(
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
    if run.weights and not latest_step(folder / CHECKPOINTS):
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
            check_resources(config)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CONFIG_FILE).write_text(config_to_yaml(config))
            (folder / DATA_FILE).write_text(json.dumps(describe(manifest), indent=2))
            earlier = latest_state(folder / CHECKPOINTS)
            started -= earlier.ledger.wall_s if earlier else 0.0  # as if it had not stopped
            result = _fit(run, manifest, num_clips, run_id, console, started, callbacks)
        summary = _summarize(run, manifest, result, run_id, time.monotonic() - started)
        _record(run, summary, run_id)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        finish_run(uri=uri, run_id=run_id, status=status, tags={"run_folder": str(folder)})
    return Outcome(run, summary, was_finished=False)


def _record(run: Run, summary: dict[str, Any], run_id: str) -> None:
    """Write ``summary.json``, which marks the run as finished, and log it.

    Beside it in MLflow: the other small files, and what the last evaluation predicted.
    """
    with tempfile.TemporaryDirectory(dir=run.folder) as folder:
        written = Path(folder) / SUMMARY_FILE
        written.write_text(json.dumps(summary, indent=2))
        for name in (CONFIG_FILE, REFUSED_FILE):
            shutil.copy(run.folder / name, folder)
        latest = latest_checkpoint(run.folder / CHECKPOINTS)
        if latest and (latest / PREDICTIONS_FILE).exists():
            shutil.copy(latest / PREDICTIONS_FILE, folder)
        log_artifacts(
            uri=run.tracking_uri,
            run_id=run_id,
            directory=Path(folder),
            artifact_path=RUN_ARTIFACT,
        )
        written.replace(run.folder / SUMMARY_FILE)


def _check_same_config(config: Config, folder: Path) -> None:
    if not (folder / CONFIG_FILE).exists():
        return
    before, now = flatten(config_from_yaml(folder / CONFIG_FILE)), flatten(config)
    changed = [
        f"{key}: {before.get(key)!r} before, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in _FREE_KEYS
    ]
    if changed:
        raise ConfigError(
            f"{folder} holds a run of another configuration ({'; '.join(changed)}); "
            "choose another name=..., or the same configuration to continue it"
        )


def _fit(
    run: Run,
    manifest: Manifest,
    num_clips: int,
    run_id: str,
    console: Console,
    started: float,
    callbacks: Sequence[UserCallback],
) -> Result:
    config = run.config
    video_ids = manifest.split(config.data.val_split).table["video_id"].to_pylist()
    checkpoints = run.folder / CHECKPOINTS
    first_step = latest_step(checkpoints)
    if first_step:
        console.print(f"continuing from step {first_step}")
    with shown_progress(console) as board:
        job = WorkerJob(
            config=config,
            classes=manifest.classes,
            num_clips=num_clips,
            video_ids=tuple(video_ids),
            tracking_uri=run.tracking_uri,
            run_id=run_id,
            weights=run.weights,
            samples=run.folder / SAMPLES if config.data.record_samples else None,
            board=board,
            wall_s=time.monotonic() - started,
        )
        trainer = TorchTrainer(
            cast(Callable[[dict[str, Any]], Any], run_worker),
            train_loop_config=dict(job),
            scaling_config=ScalingConfig(
                num_workers=config.scaling.num_workers,
                use_gpu=config.scaling.use_gpu,
                resources_per_worker={"CPU": config.scaling.cpus_per_worker}
                | ({"GPU": 1} if config.scaling.use_gpu else {}),
            ),
            run_config=RunConfig(
                name=CHECKPOINTS,
                storage_path=str(run.folder),
                failure_config=FailureConfig(max_failures=config.scaling.max_failures),
                callbacks=list(callbacks),
                checkpoint_config=CheckpointConfig(
                    num_to_keep=config.train.keep_checkpoints,
                    checkpoint_score_attribute=config.tracking.metric,
                    checkpoint_score_order="max",
                ),
            ),
            datasets={
                "train": _training_factory(run, num_clips, checkpoints),
                "val": _test_dataset(run),
            },
            dataset_config=DataConfig(execution_options=execution_options()),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise _first_cause(error) from error
    returned = result.return_value
    assert returned is not None
    _write_refused(run, manifest, returned["refused"])
    if "error" in returned:
        raise returned["error"]
    return result


def _write_refused(run: Run, manifest: Manifest, refused: list[tuple[int, str]]) -> None:
    """List the training videos that could not be decoded."""
    videos = manifest.split(run.config.data.train_split).table
    rows = [
        {
            "video_id": videos["video_id"][sample].as_py(),
            "path": videos["path"][sample].as_py() or videos["shard"][sample].as_py(),
            "reason": reason,
        }
        for sample, reason in refused
    ]
    write_parquet(pa.Table.from_pylist(rows, REFUSED_SCHEMA), run.folder / REFUSED_FILE)


def _training_factory(run: Run, num_clips: int, checkpoints: Path) -> Callable[[], Dataset]:
    """The stream from the latest registered checkpoint on.

    Called at every start of the worker group.
    """
    config, manifest = run.config, str(run.manifest)

    def make() -> Dataset:
        first_step = latest_step(checkpoints)
        return training_stream(
            manifest=manifest,
            split=config.data.train_split,
            spec=build_clip_spec(config),
            order=build_order(config, num_clips),
            first_batch=first_step,
            num_batches=build_plan(config, num_clips).num_steps - first_step + 1,
            num_decoders=config.data.num_decoders,
            cpus_per_decoder=config.data.cpus_per_decoder,
            timeout_s=config.data.decode_timeout_s,
        )

    return make


def _test_dataset(run: Run) -> Dataset:
    config = run.config
    spec = build_view_spec(config)
    return test_stream(
        manifest=str(run.manifest),
        split=config.data.val_split,
        spec=spec,
        block_size=videos_per_block(spec, config.evaluation.batch_size),
        num_workers=config.scaling.num_workers,
        num_decoders=config.data.num_decoders,
        cpus_per_decoder=config.data.cpus_per_decoder,
        timeout_s=config.data.decode_timeout_s,
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


def _first_cause(error: TrainingFailedError) -> DSTSRayError:
    """Our own error among the workers' failures, or one that names the failure."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        if own := own_error(failure):
            return own
    if cause := out_of_memory([*failures, error]):
        return OutOfMemoryError(
            f"a worker ran out of memory ({cause}); lower train.micro_batch_size, "
            "evaluation.batch_size or data.prefetch_blocks, or the size of the model"
        )
    return ClusterError(
        f"training failed: {failures[0] if failures else error}; run the same command again to "
        "continue from the last checkpoint"
    )


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
        "refused": [
            {"video_id": video_ids[sample].as_py(), "reason": reason}
            for sample, reason in returned["refused"]
        ],
        "mlflow_run_id": run_id,
        "tracking_uri": run.tracking_uri,
        **registration,
    }
