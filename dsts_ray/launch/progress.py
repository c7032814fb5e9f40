"""The progress bar: rank 0 posts where it stands to a small actor, the driver draws it."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
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
    """Holds the latest progress, where workers have started, and lines to print."""

    def __init__(self) -> None:
        """Start empty."""
        self._progress: dict[str, float] = {}
        self._lines: list[str] = []
        self._first_step = self._num_workers = 0
        self._is_to_stop = False

    def start(self, step: int, num_workers: int) -> None:
        """Take down that so many workers start at this step."""
        before, self._first_step, self._num_workers = self._num_workers, step, num_workers
        if before == num_workers:
            self.tell(f"a worker failed; all start again from step {step}")
        elif before:
            self.tell(f"{num_workers} workers instead of {before} go on from step {step}")

    def first_step(self) -> int:
        """Return where the workers have started last."""
        return self._first_step

    def tell(self, line: str) -> None:
        """Have a line printed."""
        self._lines.append(line)

    def post(self, progress: Mapping[str, float]) -> bool:
        """Replace the progress; tells whether the run is to stop."""
        self._progress = dict(progress)
        return self._is_to_stop

    def stop(self) -> None:
        """Have the run stop after its next step."""
        self._is_to_stop = True

    def read(self) -> tuple[dict[str, float], list[str]]:
        """Return the latest progress, and all lines to print so far."""
        return self._progress, self._lines


@contextmanager
def shown_progress(console: Console) -> Iterator[ActorHandle[Any]]:
    """Draw a bar of what is posted to the actor this yields.

    Without a terminal a line per epoch.
    """
    here = ray.get_runtime_context().get_node_id()  # it must not go with a node that trains
    pinned = NodeAffinitySchedulingStrategy(node_id=here, soft=False)
    actor: Any = ray.remote(num_cpus=0)(ProgressBoard)
    board = actor.options(scheduling_strategy=pinned).remote()
    done = threading.Event()
    draw = _draw_bar if console.is_terminal else _print_lines
    thread = threading.Thread(target=draw, args=(console, board, done), daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()


@contextmanager
def stopped_by_sigterm(board: ActorHandle[Any]) -> Iterator[None]:
    """Tell the workers to stop where this process is sent SIGTERM; a second one ends it at once.

    Only a process's main thread can.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        del number, frame
        signal.signal(signal.SIGTERM, before)
        threading.Thread(target=lambda: board.stop.remote()).start()

    before = signal.getsignal(signal.SIGTERM)
    with _sigterm_handled_by(stop):
        yield


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Have SIGTERM, with which ``ray job stop`` begins, raise ``KeyboardInterrupt``, too."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    with _sigterm_handled_by(interrupt):
        yield


@contextmanager
def _sigterm_handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupted_by_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C raise ``KeyboardInterrupt`` though Ray Train ends the process without a word.

    Ray Train aborts its run, then exits; its handler would stay, for runs that have ended.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


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
        task, told = None, 0
        while True:
            ended = done.wait(_POLL_S)
            progress, told = _read(board, console, told)
            task = _update(bars, task, progress)
            if ended:
                return


def _read(board: ActorHandle[Any], console: Console, told: int) -> tuple[dict[str, float], int]:
    """Return the progress, and print what is new; ``told`` lines are known."""
    progress, lines = ray.get(board.read.remote())
    for line in lines[told:]:
        console.print(line, markup=False, soft_wrap=True)
    return progress, len(lines)


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
    last, told = -1.0, 0
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
