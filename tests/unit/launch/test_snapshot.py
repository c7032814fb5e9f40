"""Checkpoints that count, through damage, a full disk and writers killed at any point."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import _CheckpointManagerState

from dsts_ray.errors import CheckpointError
from dsts_ray.launch import snapshot
from dsts_ray.launch.snapshot import (
    SNAPSHOT_FILE,
    delete_superseded,
    latest_step,
    newest_sound,
    recover,
)
from dsts_ray.train.checkpoint import (
    WEIGHTS_FILE,
    TrainingState,
    load_weights,
    save_training_state,
    save_weights,
)
from dsts_ray.train.checksums import CHECKSUMS_FILE, verify, write_sealed
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.predictions import PREDICTIONS_FILE
from tests.support.faulty_disk import killed_after, killed_at_event
from tests.support.tiny import tiny_config, tiny_model

METRIC = "val/top1"
CONFIG = tiny_config()
MODEL = tiny_model(CONFIG, torch.float32)


def write(checkpoints: Path, step: int, accuracy: float | None = None) -> Path:
    """A checkpoint of a step, that nobody has taken down yet."""

    def write_files(folder: Path) -> None:
        save_weights(folder, MODEL, classes="abcd", config="")
        if accuracy is not None:
            (folder / PREDICTIONS_FILE).touch()
        metrics = {METRIC: 0.0 if accuracy is None else accuracy}
        save_training_state(folder, {}, TrainingState(step, metrics, (), Ledger()))

    folder = checkpoints / f"checkpoint_2026-11-21_{step:06d}"
    write_sealed(folder, write_files)
    return folder


def run_folder(checkpoints: Path, accuracies: dict[int, float | None]) -> list[Path]:
    """A folder of Ray Train's run with these checkpoints, taken down."""
    folders = [write(checkpoints, step, accuracy) for step, accuracy in accuracies.items()]
    take_down(checkpoints, folders)
    return folders


def take_down(checkpoints: Path, folders: list[Path]) -> None:
    snapshot._write_snapshot(checkpoints, folders[::-1], METRIC)


def damage(checkpoint: Path) -> None:
    path = checkpoint / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1])


def test_the_latest_is_the_one_taken_down_last(tmp_path: Path) -> None:
    assert (latest_step(tmp_path), newest_sound(tmp_path, print)) == (0, None)
    folders = run_folder(tmp_path, {2: 0.9, 4: 0.1, 6: 0.5})
    write(tmp_path, 8)
    assert latest_step(tmp_path) == 6
    assert newest_sound(tmp_path, print) == folders[-1]


def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path: Path) -> None:
    folders = run_folder(tmp_path, {2: 0.9, 4: 0.1, 6: 0.5})
    damage(folders[2])
    (folders[1] / CHECKSUMS_FILE).unlink()
    told: list[str] = []
    assert newest_sound(tmp_path, told.append) == folders[0]
    assert [str(folder) in line for folder, line in zip(folders[:0:-1], told, strict=True)]
    recover(tmp_path, METRIC, told.append)
    assert latest_step(tmp_path) == 2


def test_where_all_are_damaged_the_run_does_not_begin_anew(tmp_path: Path) -> None:
    for folder in run_folder(tmp_path, {2: 0.9, 4: 0.1}):
        damage(folder)
    for use in (lambda: newest_sound(tmp_path, print), lambda: recover(tmp_path, METRIC, print)):
        with pytest.raises(CheckpointError, match=r"all checkpoints .*000004, .*000002\)"):
            use()


def test_ray_train_reads_what_is_left_after_damage(tmp_path: Path) -> None:
    folders = run_folder(tmp_path, {2: 0.9, 4: 0.1, 6: None, 8: 0.5})
    damage(folders[3])
    leftover = write(tmp_path, 10)
    recover(tmp_path, METRIC, print)
    state = _CheckpointManagerState.model_validate_json((tmp_path / SNAPSHOT_FILE).read_text())
    steps = [result.metrics["step"] for result in state.checkpoint_results]
    assert steps == [6, 4, 2]  # by accuracy, those without one first
    assert state.checkpoint_report_indices == [2, 1, 0]
    assert state.latest_checkpoint_result
    assert state.latest_checkpoint_result.metrics == {"step": 6}
    assert not leftover.exists()


def test_what_an_attempt_wrote_and_nobody_took_down_goes_once_a_newer_one_counts(
    tmp_path: Path,
) -> None:
    counting = run_folder(tmp_path, {2: 0.9, 4: 0.1})
    leftover = write(tmp_path, 6)
    delete_superseded(tmp_path)  # whose news may be on their way
    assert leftover.exists()
    newest = write(tmp_path, 8)
    take_down(tmp_path, [*counting, newest])
    delete_superseded(tmp_path)
    left = {path for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {*counting, newest}


@pytest.mark.parametrize("content", ["", '{"checkpoint_results": [', "[]"])
def test_a_snapshot_cut_short_is_made_again(tmp_path: Path, content: str) -> None:
    folders = run_folder(tmp_path, {2: 0.9, 4: None})
    before = (tmp_path / SNAPSHOT_FILE).read_text()
    (tmp_path / SNAPSHOT_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=SNAPSHOT_FILE):
        latest_step(tmp_path)
    told: list[str] = []
    recover(tmp_path, METRIC, told.append)
    assert "made again" in told[0]
    assert (tmp_path / SNAPSHOT_FILE).read_text() == before
    assert newest_sound(tmp_path, print) == folders[-1]


def next_checkpoint(checkpoints: Path) -> None:
    """What a run does at its second checkpoint: write, take down, delete the first."""
    first = checkpoints / "checkpoint_2026-11-21_000002"
    take_down(checkpoints, [write(checkpoints, 4)])
    for path in sorted(first.iterdir()):
        path.unlink()
    first.rmdir()


def assert_continues(checkpoints: Path) -> int:
    recover(checkpoints, METRIC, print)
    checkpoint = newest_sound(checkpoints, print)
    assert checkpoint
    verify(checkpoint)
    load_weights(checkpoint, MODEL)
    assert [path for path in checkpoints.iterdir() if path.is_dir()] == [checkpoint]
    return latest_step(checkpoints)


def continues(folder: Path, killed: Callable[[Callable[[], None]], bool]) -> tuple[bool, int]:
    """Kill a run at its second checkpoint; returns whether it was, and where it goes on from."""
    run_folder(folder, {2: None})
    return killed(partial(next_checkpoint, folder)), assert_continues(folder)


def test_a_run_killed_at_any_point_of_a_checkpoint_has_a_sound_one(tmp_path: Path) -> None:
    steps, number = [], 0
    while True:
        killed, step = continues(tmp_path / str(number), partial(killed_at_event, number=number))
        steps.append(step)
        if not killed:
            break
        number += 1
    assert number >= 20
    assert steps == sorted(steps)
    assert set(steps) == {2, 4}


def test_a_run_killed_at_any_time_of_a_checkpoint_has_a_sound_one(tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in range(20):
        seconds = draw.uniform(1e-3, 30e-3)
        continues(tmp_path / str(number), partial(killed_after, seconds=seconds))


def test_a_full_disk_leaves_the_checkpoint_before(small_disk: Path) -> None:
    run_folder(small_disk, {2: None})
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(small_disk, 4)
    assert assert_continues(small_disk) == 2
