"""Sweeps as a user starts, interrupts and kills them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.tracking.connection import connect
from tests.support.jobs import REPOSITORY, Home, kill_tree, session, wait_for, wait_until
from tests.support.nodes import training_workers


class Interrupted(NamedTuple):
    """What Ctrl-C left: exit code, output, how long it took, status in MLflow by run."""

    code: int
    told: str
    seconds: float
    statuses: dict[str, str]


def tune(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep to its end, for which a busy machine takes minutes."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "jobs" / "tune.py"), *arguments],
        cwd=home.work,
        env=home.environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def interrupted(home: Home, *arguments: str) -> Interrupted:
    """Begin a sweep and press Ctrl-C after its first checkpoint, as a terminal passes it on."""
    with (home.work / "interrupted.out").open("w+") as out:
        process = home.start("tune.py", *arguments, out=out)
        try:
            wait_for(
                process,
                lambda: any(home.work.glob("runs/*/checkpoints/checkpoint_manager_snapshot.json")),
            )
            os.killpg(process.pid, signal.SIGINT)
            seconds = wait_until(lambda: process.poll() is not None, 100)
            wait_until(lambda: not session(process), 30)  # nothing of it stays
        finally:
            kill_tree(process)
        out.seek(0)
        told = out.read()
    runs = connect(f"sqlite:///{home.work / 'runs' / 'mlflow.db'}").search_runs(["1"])
    statuses = {run.info.run_name or "": run.info.status for run in runs}
    return Interrupted(process.returncode, told, seconds, statuses)


def killed(home: Home, *arguments: str) -> None:
    """Begin a sweep and kill it, without a warning, as soon as workers train."""
    process = home.start("tune.py", *arguments)
    try:
        wait_for(process, lambda: training_workers(process))
    finally:
        kill_tree(process)


def without_videos(overrides: tuple[str, ...], split: str, folder: Path) -> Path:
    """The manifest with the videos of a split where none are."""
    videos = Manifest.read(overrides[-1].partition("=")[2])
    columns = (videos.table[name].to_pylist() for name in ("path", "split"))
    paths = [f"/nowhere/{path}" if of == split else path for path, of in zip(*columns, strict=True)]
    column = SCHEMA.get_field_index("path")
    table = videos.table.set_column(column, SCHEMA.field("path"), pa.array(paths))
    manifest = folder / f"without_{split}.parquet"
    Manifest(table, videos.classes).write(manifest)
    return manifest
