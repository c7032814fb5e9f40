"""``ray job submit`` on real clusters, with and without token authentication."""

import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.jobs import DEMO, REPOSITORY, TINY, Home, TrainedRun, head_node

SHORT = ("train.max_steps=2", "scaling.num_workers=1", "tracking.model_name=")
TRAIN = ("python", "jobs/train.py", *DEMO, *TINY, *SHORT)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    yield folder
    shutil.rmtree(folder)


def summary_in(home: Home) -> dict[str, object]:
    (summary,) = (home.folder / "dsts_ray" / "runs").glob("*/summary.json")
    return json.loads(summary.read_text())


def test_with_a_token_twice_in_a_row_and_once_wrong(tmp_path: Path, temporary: Path) -> None:
    home = Home(tmp_path)
    home.token.parent.mkdir()
    home.token.write_text(secrets.token_hex(32))
    variables = {"RAY_AUTH_MODE": "token", "PYTHONPATH": ""}

    def submit(*entrypoint: str) -> subprocess.CompletedProcess[str]:
        options = ("--address", address, "--working-dir", ".", "--")
        command = ("ray", "job", "submit", *options, *entrypoint)
        return home.run(*command, cwd=REPOSITORY, **variables)

    with head_node(home, temporary=temporary, cwd=home.work, **variables) as address:
        wrong = submit(*TRAIN, "dsts.num_neuron=6")
        assert wrong.returncode == 1
        assert "did you mean dsts.num_neurons?" in wrong.stdout
        assert not (home.folder / "dsts_ray").exists()

        first = submit(*TRAIN)
        assert first.returncode == 0, first.stdout + first.stderr
        assert f"run folder         {home.folder}/dsts_ray/runs/demo-" in first.stdout
        summary = summary_in(home)
        assert summary["tracking_uri"] == f"sqlite:///{home.folder}/dsts_ray/runs/mlflow.db"

        second = submit(*TRAIN)
        assert second.returncode == 0, second.stdout + second.stderr
        assert f"run {summary['name']} is finished" in second.stdout
        assert summary_in(home) == summary


def test_to_the_letter_where_the_first_command_has_run_before(
    trained: TrainedRun, temporary: Path
) -> None:
    home = trained.home
    assert not home.token.exists()
    with head_node(home, temporary=temporary, cwd=REPOSITORY) as address:
        submitted = home.run("ray", "job", "submit", "--", *TRAIN, RAY_ADDRESS=address)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert summary_in(home)["num_classes"] == 4
    assert not home.token.exists()
