"""Which checkpoints of a run count: those that Ray Train's controller has taken down in its file.

The controller alone takes them down, so a worker that lost touch cannot change what counts. What it
has taken down is verified before it is used.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import (
    _CheckpointManagerState,
    _TrainingResultState,
)

from dsts_ray.data.storage import replacing
from dsts_ray.errors import CheckpointError
from dsts_ray.train.checkpoint import TrainingState, read_state
from dsts_ray.train.checksums import CHECKSUMS_FILE, verify
from dsts_ray.train.predictions import PREDICTIONS_FILE

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"

Tell = Callable[[str], object]
"""Takes a line for the person who runs it."""


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The latest checkpoint that counts, sound or not; None without one."""
    return next(iter(_recorded(checkpoints)), None)


def latest_state(checkpoints: Path) -> TrainingState | None:
    """State of the latest checkpoint; None without one."""
    latest = latest_checkpoint(checkpoints)
    return read_state(latest) if latest else None


def latest_step(checkpoints: Path) -> int:
    """Next step after the latest checkpoint; 0 without one."""
    state = latest_state(checkpoints)
    return state.step if state else 0


def newest_sound(checkpoints: Path, tell: Tell) -> Path | None:
    """The latest checkpoint that is as it was written; None where none was written yet.

    Args:
        checkpoints: Folder of Ray Train's run.
        tell: Is told of every damaged checkpoint that is passed over.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    recorded = _recorded(checkpoints)
    return next(_sound(recorded, tell), None) if recorded else None


def recover(checkpoints: Path, metric: str, tell: Tell) -> None:
    """Leave a run's folder as Ray Train can go on with it, before any of its processes runs.

    Damaged checkpoints do not count any more, and what never counted (a run was killed while it
    wrote) is deleted. A snapshot that cannot be read is made again from the checkpoints.

    Args:
        checkpoints: Folder of Ray Train's run; it need not exist.
        metric: Orders checkpoints, the best last.
        tell: Is told of what is found.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    folders = _folders(checkpoints)
    unreadable = False
    try:
        recorded = _recorded(checkpoints)
    except CheckpointError as error:
        tell(f"{error}; it is made again from the checkpoints beside it")
        unreadable = True
        recorded = sorted((f for f in folders if (f / CHECKSUMS_FILE).exists()), reverse=True)
    for leftover in folders - set(recorded):
        shutil.rmtree(leftover)
    sound = list(_sound(recorded, tell)) if recorded else []
    if sound and (unreadable or len(sound) < len(recorded)):
        _write_snapshot(checkpoints, sound, metric)
    elif unreadable:
        (checkpoints / SNAPSHOT_FILE).unlink()


def delete_superseded(checkpoints: Path) -> None:
    """Delete what a failed start of the workers wrote and was never taken down.

    What is newer than all that count stays: that it was taken down may not be seen here yet.

    Args:
        checkpoints: Folder of Ray Train's run, whose workers write nothing yet.
    """
    recorded = _recorded(checkpoints)
    for folder in _folders(checkpoints) - set(recorded):
        if recorded and folder.name < recorded[0].name:
            shutil.rmtree(folder)


def _folders(checkpoints: Path) -> set[Path]:
    """All checkpoints; their names sort by time."""
    return {path for path in checkpoints.glob("checkpoint_*") if path.is_dir()}


def _recorded(checkpoints: Path) -> list[Path]:
    """Checkpoints that count, the newest first."""
    path = checkpoints / SNAPSHOT_FILE
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        names = [entry["checkpoint_dir_name"] for entry in content["checkpoint_results"]]
        newest_first = sorted(
            zip(content["checkpoint_report_indices"], names, strict=True), reverse=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot read it ({error})") from error
    return [checkpoints / name for _, name in newest_first]


def _sound(recorded: Iterable[Path], tell: Tell) -> Iterator[Path]:
    damaged, found = [], False
    for checkpoint in recorded:
        try:
            verify(checkpoint)
        except CheckpointError as error:
            tell(f"passed over: {error}")
            damaged.append(str(checkpoint))
        else:
            found = True
            yield checkpoint
    if not found:
        raise CheckpointError(
            f"all checkpoints of the run are damaged ({', '.join(damaged)}); restore one of them, "
            "or delete the run's folder to begin anew"
        )


def _write_snapshot(checkpoints: Path, newest_first: list[Path], metric: str) -> None:
    """Write what Ray Train's controller would have written of these checkpoints."""
    results = []
    for index, checkpoint in enumerate(reversed(newest_first)):
        state = read_state(checkpoint)
        evaluated = (checkpoint / PREDICTIONS_FILE).exists()
        metrics = (state.metrics if evaluated else {}) | {"step": state.step}
        results.append((metrics.get(metric, -math.inf), index, checkpoint.name, metrics))
    entries = [
        _TrainingResultState(checkpoint_dir_name=name, metrics=metrics)
        for _, _, name, metrics in sorted(results)
    ]
    latest = next((e for e in entries if e.checkpoint_dir_name == newest_first[0].name), None)
    snapshot = _CheckpointManagerState(
        checkpoint_results=entries,
        checkpoint_report_indices=[index for _, index, _, _ in sorted(results)],
        latest_checkpoint_result=latest,
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=len(entries),
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    with replacing(checkpoints / SNAPSHOT_FILE) as partial:
        partial.write_text(snapshot.model_dump_json())
