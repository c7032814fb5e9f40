"""Jobs and Ray clusters as a user starts them: processes of their own, in a home of their own."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil
import torch
from safetensors.torch import load_file
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]

DEMO = (
    "data.demo.num_classes=4",
    "data.demo.num_train_clips=16",
    "data.demo.num_test_clips=8",
    "data.demo.size=64",
    "data.demo.min_frames=8",
    "data.demo.max_frames=12",
)
TINY = (
    "data.crop_size=32",
    "data.short_side=36",
    "data.num_frames=4",
    "model.backbone.tpn.width=4",
    "model.backbone.tpn.neck_channels=16",
    "model.backbone.tpn.neck_groups=4",
    "dsts.groups=4",
    "dsts.fuse_groups=4",
    "dsts.num_neurons=3",
    "train.batch_size=4",
)
"""The smallest run that has every part."""


@dataclass(frozen=True)
class Home:
    """A home folder with a working directory in it."""

    folder: Path

    @property
    def work(self) -> Path:
        """Where commands run."""
        work = self.folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        return work

    @property
    def token(self) -> Path:
        """Ray's authentication token."""
        return self.folder / ".ray" / "auth_token"

    def environment(self, **variables: str) -> dict[str, str]:
        """Variables of a user's shell, free of what this process was given for Ray and MLflow."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "DSTS_", "MLFLOW_", "PYTEST_"))
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        fixed = {"HOME": str(self.folder), "PATH": path, "PYTHONPATH": str(REPOSITORY)}
        return kept | fixed | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | variables

    def run(
        self, *command: str, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command,
            cwd=cwd or self.work,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )

    def job(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script of ``jobs/`` to its end."""
        return self.run(sys.executable, str(REPOSITORY / "jobs" / script), *arguments)

    def spawn(
        self,
        *command: str,
        out: int | IO[str],
        err: int | IO[str] | None = None,
        cwd: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in a session of its own, for ``kill_tree``; errors go where output does.

        Args:
            command: The program and its arguments.
            out: Where its output goes.
            err: Where its errors go instead.
            cwd: Where it runs instead of ``work``.
            variables: Of its environment.
        """
        return subprocess.Popen(
            command,
            cwd=cwd or self.work,
            env=self.environment(**variables or {}),
            stdout=out,
            stderr=out if err is None else err,
            text=True,
            start_new_session=True,
        )

    def start(
        self,
        script: str,
        *arguments: str,
        out: int | IO[str] = subprocess.DEVNULL,
        err: int | IO[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a script of ``jobs/``, as ``spawn`` does."""
        path = str(REPOSITORY / "jobs" / script)
        return self.spawn(sys.executable, path, *arguments, out=out, err=err, variables=variables)


@dataclass(frozen=True)
class TrainedRun:
    """A run of ``jobs/train.py`` in a working directory, by a user with a fresh home."""

    home: Home
    command: tuple[str, ...]
    process: subprocess.CompletedProcess[str]
    killed_at: int

    @property
    def storage(self) -> Path:
        """Folder of run folders."""
        return self.home.work / "runs"

    @property
    def folder(self) -> Path:
        """Run folder."""
        (folder,) = (path.parent for path in self.storage.glob("demo-*/config.yaml"))
        return folder

    @property
    def summary(self) -> dict[str, Any]:
        """Content of ``summary.json``."""
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def manifest(self) -> Path:
        """Manifest of the demo data set."""
        (manifest,) = self.storage.glob("data/*/manifest.parquet")
        return manifest

    @property
    def tracking_uri(self) -> str:
        """MLflow store."""
        return f"sqlite:///{self.storage / 'mlflow.db'}"


class UntrainedModel(NamedTuple):
    """Folder of a tiny model that has not been trained, and the manifest of its demo data."""

    folder: Path
    manifest: Path


class SubmittedRun(NamedTuple):
    """Three submissions of one command: with a misspelt key, right, and right again."""

    home: Home
    wrong: subprocess.CompletedProcess[str]
    wrong_left_nothing: bool
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]

    @property
    def folder(self) -> Path:
        """Run folder."""
        (summary,) = (self.home.folder / "dsts_ray" / "runs").glob("*/summary.json")
        return summary.parent


class JobResult(NamedTuple):
    """Exit code and output of a job."""

    code: int | str
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error the job reported; what a Ray cluster logs beside it is left out."""
        _, *errors = re.split(r"^(?:\w+\.py[\w ]*: )?error: ", self.err, flags=re.MULTILINE)
        assert len(errors) == 1, self.err
        return errors[0]


RunJob = Callable[..., JobResult]


def wait_until(
    happened: Callable[[], object], seconds: float, explain: Callable[[], str] = str
) -> float:
    """Wait until something has happened; returns how long it took."""
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < seconds, explain()
        time.sleep(0.01)
    return time.monotonic() - started


def wait_for(
    process: subprocess.Popen[str],
    happened: Callable[[], object],
    seconds: float = 400,
    explain: Callable[[], str] = str,
) -> float:
    """Wait until something has happened in a process that must not end before; as above."""

    def look() -> object:
        assert process.poll() is None, explain()
        return happened()

    return wait_until(look, seconds, explain)


def final_weights(folder: Path, num_steps: int) -> dict[str, Tensor]:
    """Weights of a run folder's checkpoint after the last step."""
    (state,) = (
        path
        for path in (folder / "checkpoints").glob("*/state.json")
        if json.loads(path.read_text())["step"] == num_steps
    )
    return load_file(state.parent / "model.safetensors")


def assert_same_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """The weights of two runs are alike to 1e-6, running statistics relative to their size.

    Workers average these at checkpoints: at other steps, they are rounded otherwise.
    """
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        relative = 1e-6 if "running_" in name else 0
        torch.testing.assert_close(ours[name], value, rtol=relative, atol=1e-6, msg=name)


def session(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes of the session that a process was started in as its own."""
    members: set[psutil.Process] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        members |= set(psutil.Process(process.pid).children(recursive=True))
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == process.pid:
                members.add(psutil.Process(pid))
    return sorted(members, key=lambda member: member.pid)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Kill a process started in a session of its own, with all it has started."""
    for victim in session(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def head_node(home: Home, *, temporary: Path, cwd: Path, **variables: str) -> Iterator[str]:
    """A cluster of one node, as ``ray start --head`` makes it; yields the dashboard's address.

    Args:
        home: Of the user who starts it.
        temporary: Of the cluster; its path must be short.
        cwd: Where it is started.
        variables: Of the user's environment.
    """
    port = free_port()
    ports = {"--port": free_port(), "--dashboard-port": port}
    ports |= {"--dashboard-agent-listen-port": free_port(), "--ray-client-server-port": free_port()}
    ports |= {"--min-worker-port": 0, "--max-worker-port": 0}
    limits = {"--num-cpus": 2, "--object-store-memory": 200 * 1024**2}
    options = [f"{name}={value}" for name, value in (ports | limits).items()]
    with (home.folder / "ray_start.log").open("w") as log:
        start = ("ray", "start", "--head", "--block", f"--temp-dir={temporary}", *options)
        process = home.spawn(*start, out=log, cwd=cwd, variables=variables)
    dashboard = f"http://127.0.0.1:{port}"
    try:
        wait_for(process, lambda: answers(f"{dashboard}/api/version"), 90, Path(log.name).read_text)
        yield dashboard
    finally:
        kill_tree(process)


def answers(address: str) -> bool:
    """Whether a server is there."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
