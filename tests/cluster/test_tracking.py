"""MLflow's server is away for five minutes, and answers after ten seconds."""

import time
from pathlib import Path

import pytest

from dsts_ray.launch.snapshot import latest_step
from dsts_ray.tracking.mlflow import connect
from tests.cluster.conftest import ON_NODES
from tests.support.jobs import kill_tree, wait_until
from tests.support.mlflow_server import running_server
from tests.support.nodes import Nodes
from tests.support.slow_line import SlowLine

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

AWAY_S = 300
SLOW_S = 10.0
NUM_SLOW_ANSWERS = 6


def test_a_server_that_is_away_and_slow_costs_no_metric_and_no_time(
    nodes: Nodes, tmp_path: Path
) -> None:
    for _ in range(2):
        nodes.start_node()
    folder = tmp_path / "server"
    folder.mkdir()
    with running_server(folder) as server:
        line = SlowLine(server.port)
        lasting = ("train.num_epochs=100000", "train.evaluate_every_epochs=100000")
        impatient = "scaling.collective_timeout_s=12"  # less than the last delivery may take
        run = nodes.train(*ON_NODES, *lasting, impatient, f"tracking.uri={line.uri}")
        try:
            run.reached(5)
            server.kill()
            time.sleep(AWAY_S)
            away_until = latest_step(run.folder / "checkpoints")
            server.start()
            client = connect(server.uri)
            experiment = client.get_experiment_by_name("dsts_ray")
            assert experiment
            (logged,) = client.search_runs([experiment.experiment_id])
            run_id = logged.info.run_id

            def steps() -> list[int]:
                return [point.step for point in client.get_metric_history(run_id, "train/loss")]

            waited = wait_until(lambda: len(steps()) > away_until, 120, run.told)
            print(f"{away_until} steps until the server was back, delivered in {waited:.0f} s")
            line.num_answers, line.delay_s = 0, SLOW_S
            run.wait_for(lambda: line.num_answers > NUM_SLOW_ANSWERS)
            run.stop()
        finally:
            kill_tree(run.process)
            line.close()
            print(run.told())
        assert steps() == list(range(latest_step(run.folder / "checkpoints")))
        ratio = client.get_run(run_id).data.metrics["time/tracking_ratio"]
        print(f"the training loop was held up for {ratio:.4%} of its time")
        assert ratio < 0.01
