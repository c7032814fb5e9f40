"""The progress bar: rank 0 posts where it stands to a small actor, the driver draws it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray.actor import ActorHandle
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_POLL_S = 0.5


class ProgressBoard:
    """Holds the latest progress, and where workers have started."""

    def __init__(self) -> None:
        """Start empty."""
        self._progress: dict[str, float] = {}
        self._starts: list[int] = []

    def start(self, step: int) -> None:
        """Take down that workers start at this step."""
        self._starts.append(step)

    def post(self, progress: Mapping[str, float]) -> None:
        """Replace the progress."""
        self._progress = dict(progress)

    def read(self) -> tuple[dict[str, float], list[int]]:
        """Return the latest progress, and the steps where workers have started."""
        return self._progress, self._starts


@contextmanager
def shown_progress(console: Console) -> Iterator[ActorHandle[Any]]:
    """Draw a bar of what is posted to the actor this yields.

    Without a terminal a line per epoch.
    """
    board: Any = ray.remote(num_cpus=0)(ProgressBoard).remote()
    done = threading.Event()
    draw = _draw_bar if console.is_terminal else _print_lines
    thread = threading.Thread(target=draw, args=(console, board, done), daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()


def _draw_bar(console: Console, board: ActorHandle[Any], done: threading.Event) -> None:
    columns = (
        TextColumn("epoch {task.fields[epoch]:.0f}"),
        BarColumn(),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]:.3f}"),
        TextColumn("{task.fields[clips_per_s]:.1f} clips/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task, told = None, 1
        while True:
            ended = done.wait(_POLL_S)
            progress, told = _read(board, console, told)
            task = _update(bars, task, progress)
            if ended:
                return


def _read(board: ActorHandle[Any], console: Console, told: int) -> tuple[dict[str, float], int]:
    """Return the progress, and say where workers have started again; ``told`` starts are known."""
    progress, starts = ray.get(board.read.remote())
    for step in starts[told:]:
        console.print(f"a worker failed; all start again from step {step}")
    return progress, max(told, len(starts))


def _update(bars: Progress, task: TaskID | None, progress: dict[str, float]) -> TaskID | None:
    if not progress:
        return task
    fields: Any = {name: progress[name] for name in ("epoch", "loss", "clips_per_s")}
    if task is None:
        return bars.add_task(
            "train", total=progress["num_steps"], completed=int(progress["step"]), **fields
        )
    bars.update(task, completed=progress["step"], **fields)
    return task


def _print_lines(console: Console, board: ActorHandle[Any], done: threading.Event) -> None:
    last, told = -1.0, 1
    while True:
        ended = done.wait(_POLL_S)
        progress, told = _read(board, console, told)
        if progress and progress["epoch"] > last:
            last = progress["epoch"]
            console.print(
                f"epoch {last:.0f}  step {progress['step']:.0f}/{progress['num_steps']:.0f}  "
                f"loss {progress['loss']:.3f}  {progress['clips_per_s']:.1f} clips/s"
            )
        if ended:
            return
