"""A run killed without warning continues to the very same weights."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dsts_ray.config.load import load_config
from dsts_ray.errors import ConfigError
from dsts_ray.launch.trainer import train
from dsts_ray.tracking.mlflow import connect
from tests.support.jobs import REPOSITORY, TrainedRun, kill_tree

NAME = "interrupted"


@pytest.fixture(scope="module")
def resumed(trained: TrainedRun) -> tuple[Path, int, subprocess.CompletedProcess[str]]:
    """The trained run's twin, killed after its first checkpoint and continued.

    Run folder, step of the latest checkpoint when it was killed, second process.
    """
    command = [sys.executable, str(REPOSITORY / "jobs" / "train.py"), *trained.command]
    command.append(f"name={NAME}")
    folder = trained.storage / NAME
    environment = trained.home.environment()
    first = subprocess.Popen(
        command,
        cwd=trained.home.work,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "checkpoint_manager_snapshot.json").exists():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill_tree(first)
    reached = latest_step(folder)
    assert not (folder / "summary.json").exists()
    return folder, reached, trained.home.job("train.py", *trained.command, f"name={NAME}")


def latest_step(folder: Path) -> int:
    return max(steps_of(folder))


def steps_of(folder: Path) -> dict[int, Path]:
    states = (folder / "checkpoints").glob("*/state.json")
    return {json.loads(path.read_text())["step"]: path.parent for path in states}


def test_the_same_command_continues(
    resumed: tuple[Path, int, subprocess.CompletedProcess[str]],
) -> None:
    _, reached, second = resumed
    assert second.returncode == 0, second.stderr
    assert f"continuing from step {reached}" in second.stdout
    assert 0 < reached < 12


def test_final_weights_are_those_of_the_undisturbed_run(
    trained: TrainedRun, resumed: tuple[Path, int, subprocess.CompletedProcess[str]]
) -> None:
    folder, *_ = resumed
    ours, theirs = (
        load_file(steps_of(path)[12] / "model.safetensors") for path in (folder, trained.folder)
    )
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6, msg=name)


def test_every_step_is_logged_once(
    trained: TrainedRun, resumed: tuple[Path, int, subprocess.CompletedProcess[str]]
) -> None:
    folder, *_ = resumed
    run_id = json.loads((folder / "summary.json").read_text())["mlflow_run_id"]
    client = connect(trained.tracking_uri)
    steps = [point.step for point in client.get_metric_history(run_id, "train/loss")]
    assert steps == list(range(12))


def test_another_configuration_under_the_same_name_is_refused(
    trained: TrainedRun, resumed: tuple[Path, int, subprocess.CompletedProcess[str]]
) -> None:
    changes = (f"name={NAME}", "train.seed=1", "dsts.num_neurons=5")
    config = load_config(
        preset="demo",
        overrides=[*trained.command, *changes, f"storage.path={trained.storage}"],
    )
    with pytest.raises(
        ConfigError, match=r"dsts\.num_neurons: 3 before, 5 now; train\.seed: 0 before, 1 now"
    ):
        train(config, Console(quiet=True))
