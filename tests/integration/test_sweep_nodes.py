"""A submitted sweep on a cluster of several nodes."""

from collections import Counter
from pathlib import Path

import pytest
from ray.util.state import list_actors

from dsts_ray.config.sweep import load_sweep
from dsts_ray.report.results import read_sweep
from tests.support.jobs import REPOSITORY, Home, answers, free_port, wait_for
from tests.support.nodes import cluster

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]
ROWS = ("num_neurons=5 num_layers=1", "num_neurons=10 num_layers=1", "num_neurons=5 num_layers=3")
ONE_A_NODE = ("scaling.num_workers=1", "scaling.cpus_per_worker=1.2", "data.cpus_per_decoder=0.25")
"""Two nodes of two CPUs carry two runs, but no node two workers."""


def test_trials_of_a_submitted_sweep_run_on_both_nodes(
    tiny_runs: tuple[str, ...], tmp_path: Path, temporary: Path
) -> None:
    space, port = load_sweep("n_by_l").space, free_port()
    overrides = [text for text in tiny_runs if text.partition("=")[0] not in space]
    home, dashboard = Home(tmp_path), f"http://127.0.0.1:{port}"
    agent = "--dashboard-agent-listen-port"
    shown = ("--include-dashboard=true", f"--dashboard-port={port}", f"{agent}={free_port()}")
    with cluster(home, temporary, options=("--num-cpus=0", *shown)) as nodes:
        for _ in range(2):
            nodes.start_node(f"{agent}={free_port()}")
        wait_for(nodes.nodes[0], lambda: answers(f"{dashboard}/api/version"), 90)
        submit = ("ray", "job", "submit", "--address", dashboard, "--")
        job = ("python", str(REPOSITORY / "jobs" / "tune.py"), "n_by_l")
        rows = [argument for row in ROWS for argument in ("--row", row)]
        told = home.run(*submit, *job, *rows, *overrides, *ONE_A_NODE, RAY_AUTH_MODE="disabled")
        assert told.returncode == 0, told.stdout + told.stderr
        workers = list_actors(
            address=dashboard, filters=[("class_name", "=", "RayTrainWorker")], limit=1000
        )
    assert "3 runs, 2 at once" in told.stdout
    results = read_sweep("n_by_l", f"sqlite:///{home.folder / 'dsts_ray' / 'runs' / 'mlflow.db'}")
    assert {row: results.of_row(row)[0].outcome for row in results.rows} == dict.fromkeys(
        ROWS, "finished"
    )
    on = Counter(
        worker.node_id  # pyright: ignore[reportAttributeAccessIssue]
        for worker in workers
    )
    assert (on.total(), len(on)) == (3, 2), workers
