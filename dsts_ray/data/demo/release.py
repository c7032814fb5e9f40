"""What the two writers share: parameter checks, parallel rendering, atomic annotation files."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dsts_ray.errors import DataError

Task = TypeVar("Task")

MIN_SIZE, MAX_SIZE = 64, 720  # pixels; decord misreads RGB frames narrower than 64
MIN_FRAMES, MAX_FRAMES = 8, 1000


def check_parameters(
    *,
    num_classes: int,
    max_classes: int,
    num_clips: dict[str, int],
    size: int,
    min_frames: int,
    max_frames: int,
    seed: int,
    num_processes: int,
) -> None:
    """Refuse impossible parameters before anything is written.

    Raises:
        DataError: A parameter is outside its range; the message names parameter, value and range.
    """
    _check_range("num_classes", num_classes, 2, max_classes)
    for name, count in num_clips.items():
        _check_range(name, count, num_classes, 200_000)
    _check_range("size", size, MIN_SIZE, MAX_SIZE)
    if size % 2:
        raise DataError(f"size is {size}; yuv420p video needs an even number: use {size + 1}")
    _check_range("max_frames", max_frames, MIN_FRAMES, MAX_FRAMES)
    _check_range("min_frames", min_frames, MIN_FRAMES, max_frames)
    _check_range("seed", seed, 0, 2**63 - 1)
    _check_range("num_processes", num_processes, 1, 1024)


def check_absent(path: Path) -> None:
    """Refuse to write over a finished data set, recognized by its last-written file ``path``.

    Raises:
        DataError: ``path`` exists.
    """
    if path.exists():
        raise DataError(
            f"{path.parent} already holds a data set ({path.name} exists); "
            "give another folder or delete this one"
        )


def balanced_labels(num_clips: int, num_classes: int, entropy: Sequence[int]) -> NDArray[np.int64]:
    """Return shuffled labels, shape (num_clips,), whose class counts differ by one at most."""
    return np.random.default_rng(entropy).permutation(np.arange(num_clips) % num_classes)


def clip_generators(
    seed: int, split: int, index: int
) -> tuple[np.random.Generator, np.random.Generator]:
    """Return two independent generators of one clip: for what is annotated and for its pixels."""
    planning, rendering = np.random.default_rng([seed, split, index]).spawn(2)
    return planning, rendering


def run_all(write: Callable[[Task], None], tasks: list[Task], num_processes: int) -> None:
    """Call ``write`` on every task, in ``num_processes`` spawned processes (1: in this one)."""
    if num_processes == 1:
        for task in tasks:
            write(task)
        return
    chunksize = max(1, len(tasks) // (num_processes * 8))
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(write, tasks, chunksize=chunksize):
            pass


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as JSON; the file appears under its name only when it is complete."""
    write_text(path, json.dumps(content, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write ``text``; the file appears under its name only when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise DataError(f"{name} is {value}; allowed is {low} to {high}")
