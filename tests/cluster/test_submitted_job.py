"""A submitted run whose client is killed, and one that is stopped."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from dsts_ray.launch.snapshot import latest_step
from tests.cluster.conftest import NUM_STEPS, RUN
from tests.support.jobs import (
    REPOSITORY,
    Home,
    assert_same_weights,
    final_weights,
    head_node,
    kill_tree,
    wait_for,
    wait_until,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]

VARIABLES = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": "", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
ID = "the-run"


@dataclass
class Submitting:
    """Somebody's home, and the cluster they submit to."""

    home: Home
    address: str

    @property
    def runs(self) -> Path:
        """Folder of run folders."""
        return self.home.folder / "dsts_ray" / "runs"

    def job(self, verb: str, *arguments: str) -> str:
        """Say something of jobs to the cluster; returns what it answers."""
        command = ("ray", "job", verb, "--address", self.address, *arguments)
        done = self.home.run(*command, cwd=REPOSITORY, **VARIABLES)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit_and_kill_the_client(self, *overrides: str) -> None:
        """Submit a run, and kill the client that shows its log, once it trains."""
        options = ("--address", self.address, "--submission-id", ID, "--working-dir", ".")
        job = ("python", "jobs/train.py", *RUN, "scaling.cpus_per_worker=0.25", *overrides)
        log = self.home.folder / "client.log"
        with log.open("w") as out:
            submit = ("ray", "job", "submit", *options, "--", *job)
            client = self.home.spawn(*submit, out=out, cwd=REPOSITORY, variables=VARIABLES)
        wait_for(client, lambda: "epoch 1 " in log.read_text(), 400, log.read_text)
        kill_tree(client)

    def wait_until_it_is(self, status: str) -> None:
        """Wait for the job's status."""
        ended = f"JobStatus.{status}"
        wait_until(lambda: ended in self.job("list"), 400, lambda: self.job("logs", ID))


@pytest.fixture
def submitting(tmp_path: Path) -> Iterator[Submitting]:
    home = Home(tmp_path)
    with (
        tempfile.TemporaryDirectory(prefix="ray") as temporary,
        head_node(home, temporary=Path(temporary), cwd=home.work, **VARIABLES) as address,
    ):
        yield Submitting(home, address)


def test_a_run_goes_on_without_the_client_that_submitted_it(
    submitting: Submitting, undisturbed: dict[str, Tensor]
) -> None:
    submitting.submit_and_kill_the_client()
    assert not list(submitting.runs.glob("*/summary.json"))
    submitting.wait_until_it_is("SUCCEEDED")
    (summary,) = submitting.runs.glob("*/summary.json")
    assert_same_weights(final_weights(summary.parent, NUM_STEPS), undisturbed)


def test_a_stopped_run_leaves_a_checkpoint_of_its_last_step(submitting: Submitting) -> None:
    submitting.submit_and_kill_the_client(
        *("train.num_epochs=1000", "train.evaluate_every_epochs=1000"),
        "train.checkpoint_every_steps=0",
    )
    submitting.job("stop", ID)
    submitting.wait_until_it_is("STOPPED")
    (checkpoints,) = submitting.runs.glob("*/checkpoints")
    reached = latest_step(checkpoints)
    assert reached, "nothing else would have saved it"
    assert f"did so after a checkpoint (step {reached})" in submitting.job("logs", ID)
