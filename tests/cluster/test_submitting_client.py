"""The client that has submitted a run is killed."""

import tempfile
from pathlib import Path

import pytest
from torch import Tensor

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

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_a_run_goes_on_without_the_client_that_submitted_it(
    tmp_path: Path, undisturbed: dict[str, Tensor]
) -> None:
    home = Home(tmp_path)
    variables = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": ""}
    command = (*RUN, "scaling.cpus_per_worker=0.25")
    runs = home.folder / "dsts_ray" / "runs"
    with (
        tempfile.TemporaryDirectory(prefix="ray") as temporary,
        head_node(home, temporary=Path(temporary), cwd=home.work, **variables) as address,
        (tmp_path / "client.log").open("w") as log,
    ):
        submit = ("ray", "job", "submit", "--address", address, "--working-dir", ".", "--")
        job = ("python", "jobs/train.py", *command)
        client = home.spawn(*submit, *job, out=log, cwd=REPOSITORY, variables=variables)
        wait_for(client, lambda: any(runs.glob("*/samples/*")), 400, Path(log.name).read_text)
        kill_tree(client)
        assert not list(runs.glob("*/summary.json"))
        jobs = ("ray", "job", "list", "--address", address)
        wait_until(
            lambda: "SUCCEEDED" in home.run(*jobs, cwd=home.work, **variables).stdout,
            400,
            lambda: home.run(*jobs, cwd=home.work, **variables).stdout,
        )
    (summary,) = runs.glob("*/summary.json")
    assert_same_weights(final_weights(summary.parent, NUM_STEPS), undisturbed)
