"""What the integration tests share: one run in two settings, and jobs called in this process."""

import importlib.util
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dsts_ray.build import build_model
from dsts_ray.config.load import config_to_yaml, load_config
from dsts_ray.data.manifest import Manifest
from dsts_ray.launch.dataset import locate_manifest
from dsts_ray.train.checkpoint import save_weights
from tests.support.jobs import (
    DEMO,
    REPOSITORY,
    TINY,
    Home,
    JobResult,
    RunJob,
    SubmittedRun,
    TrainedRun,
    UntrainedModel,
    head_node,
    kill_tree,
    wait_for,
)
from tests.support.mlflow_server import Server, running_server
from tests.support.nodes import training_workers

COMMAND = (
    *DEMO,
    *TINY,
    "train.num_epochs=3",
    "train.evaluate_every_epochs=1",
    "train.checkpoint_every_steps=3",
    "data.record_samples=true",
)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        yield Path(folder)


def continued(home: Home, reached: int) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, and kill a worker after its next record of samples."""
    with (home.work / "out").open("w+") as out, (home.work / "err").open("w+") as err:
        process = home.start("train.py", *COMMAND, out=out, err=err)
        try:
            wait_for(process, lambda: any(home.work.glob(f"runs/*/samples/{reached:09d}-*")))
            training_workers(process)[0].kill()
            process.wait(240)
        finally:
            kill_tree(process)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(COMMAND, process.returncode, out.read(), err.read())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Command 1 on tiny demo data, killed after its first checkpoint and continued.

    Then one of its training workers is killed, too.
    """
    home = Home(tmp_path_factory.mktemp("home"))
    first = home.start("train.py", *COMMAND)
    wait_for(
        first, lambda: any(home.work.glob("runs/*/checkpoints/checkpoint_manager_snapshot.json"))
    )
    kill_tree(first)
    states = home.work.glob("runs/*/checkpoints/*/state.json")
    reached = max(json.loads(path.read_text())["step"] for path in states)
    assert not list(home.work.glob("runs/*/summary.json"))
    process = continued(home, reached)
    assert process.returncode == 0, process.stdout + process.stderr
    return TrainedRun(home, COMMAND, process, reached)


@pytest.fixture(scope="session")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> SubmittedRun:
    """The same command, undisturbed, submitted twice to a cluster that asks for a token."""
    home = Home(tmp_path_factory.mktemp("submitted"))
    home.token.parent.mkdir()
    home.token.write_text(secrets.token_hex(32))
    variables = {"RAY_AUTH_MODE": "token", "PYTHONPATH": ""}

    def submit(*arguments: str) -> subprocess.CompletedProcess[str]:
        job = ("python", "jobs/train.py", *COMMAND, *arguments)
        command = ("ray", "job", "submit", "--address", address, "--working-dir", ".", "--", *job)
        return home.run(*command, cwd=REPOSITORY, **variables)

    with (
        short_folder() as temporary,
        head_node(home, temporary=temporary, cwd=home.work, **variables) as address,
    ):
        wrong = submit("dsts.num_neuron=6")
        untouched = not (home.folder / "dsts_ray").exists()
        first = submit()
        second = submit()
    return SubmittedRun(home, wrong, untouched, first, second)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> UntrainedModel:
    """A tiny model of random weights, and its demo data."""
    folder = tmp_path_factory.mktemp("untrained")
    config = load_config(preset="demo", overrides=[*DEMO, *TINY])
    manifest = locate_manifest(config, folder)
    classes = Manifest.read(manifest).classes
    torch.manual_seed(0)
    model = build_model(config, len(classes))
    torch.nn.init.normal_(model.classifier.fc.weight)
    save_weights(folder, model, classes=classes, config=config_to_yaml(config))
    return UntrainedModel(folder, manifest)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The tiniest runs that are evaluated twice, on a manifest."""
    config = load_config(preset="demo", overrides=DEMO)
    manifest = locate_manifest(config, tmp_path_factory.mktemp("data"))
    length = ("train.num_epochs=2", "train.evaluate_every_epochs=1")
    return (*TINY, *length, f"data.manifest={manifest}")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def run_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> RunJob:
    """Call a job's ``main`` in this process, on the Ray cluster this process is connected to."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "200")

    def run_job(script: str, *arguments: object) -> JobResult:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        spec = importlib.util.spec_from_file_location("job", REPOSITORY / "jobs" / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capfd.readouterr()
        try:
            code = module.main()
        except SystemExit as stopped:
            code = stopped.code
        captured = capfd.readouterr()
        return JobResult(code or 0, captured.out, captured.err)

    return run_job
