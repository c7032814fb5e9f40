"""Twenty random faults, one after the other, and a run that ends as if there had been none."""

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.cluster.conftest import (
    ON_NODES,
    assert_undisturbed,
    start_host,
    weights_without_a_fault,
)
from tests.support.jobs import Home, kill_tree
from tests.support.mlflow_server import Server, running_server
from tests.support.network import Network
from tests.support.nodes import (
    Node,
    Nodes,
    Training,
    drain,
    node_id,
    processes,
    training_workers,
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3 * 3600)]

NUM_FAULTS = 20
NUM_WORKERS, NUM_HOSTS = 2, 3
NUM_EPOCHS = 600
NUM_STEPS = 4 * NUM_EPOCHS
LONG = (
    f"train.num_epochs={NUM_EPOCHS}",
    f"train.evaluate_every_epochs={NUM_EPOCHS}",
)


@dataclass
class Soak:
    """A run, what it runs on, and what befalls both."""

    nodes: Nodes
    cables: Network
    server: Server
    random: random.Random
    run: Training = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the run, or the same command again."""
        lasting = ("scaling.max_failures=1000", "scaling.collective_timeout_s=20")
        self.run = self.nodes.train(
            *ON_NODES,
            *LONG,
            *lasting,
            "train.checkpoint_every_steps=5",
            f"tracking.uri={self.server.uri}",
        )

    def hosts(self) -> list[Node]:
        """Nodes that train; waited for where a drained one has just gone."""

        def training() -> list[Node]:
            return [n for n in self.nodes.nodes if n.poll() is None and training_workers(n)]

        self.run.wait_for(lambda: len(training()) == NUM_WORKERS)
        return training()

    def worker(self) -> psutil.Process:
        """One of those that train."""
        return self.random.choice([p for node in self.hosts() for p in training_workers(node)])

    def kill_worker(self) -> None:
        self.worker().kill()

    def stop_worker(self) -> None:
        self.worker().send_signal(signal.SIGSTOP)

    def kill_decoder(self) -> None:
        head = self.nodes.nodes[0]
        self.run.wait_for(lambda: processes(head, "MapWorker"))
        self.random.choice(processes(head, "MapWorker")).kill()

    def kill_node(self) -> None:
        kill_tree(self.random.choice(self.hosts()))

    def drain_node(self) -> None:
        leaving = self.random.choice(self.hosts())
        drain(self.nodes, node_id(self.nodes, leaving), seconds=15)

    def pull_cable(self) -> None:
        address = self.nodes.addresses[self.nodes.nodes.index(self.random.choice(self.hosts()))]
        self.cables.cut(address)
        time.sleep(20)
        self.cables.mend(address)

    def kill_driver(self) -> None:
        kill_tree(self.run.process)
        self.start()

    def end_driver(self) -> None:
        self.run.stop()
        self.start()

    def kill_server(self) -> None:
        self.server.kill()
        time.sleep(20)
        self.server.start()

    def replace_lost_hosts(self) -> None:
        alive = [node for node in self.nodes.nodes[1:] if node.poll() is None]
        for _ in range(NUM_HOSTS - len(alive)):
            start_host(self.nodes, self.cables)


def test_twenty_random_faults(hosts: Nodes, cables: Network, tmp_path: Path) -> None:
    """A fault 15 to 30 s after the run has come back from the one before."""
    (tmp_path / "server").mkdir()
    told = []
    with running_server(tmp_path / "server", cables.address) as server:
        soak = Soak(hosts, cables, server, random.Random(0))
        faults: list[Callable[[], None]] = [
            *(soak.kill_worker, soak.stop_worker, soak.kill_decoder, soak.kill_node),
            *(soak.drain_node, soak.pull_cable, soak.kill_driver, soak.end_driver),
            soak.kill_server,
        ]
        try:
            soak.run.reached(0)
            for _ in range(NUM_FAULTS):
                time.sleep(soak.random.uniform(15, 30))
                reached = soak.run.num_recorded()
                assert reached < NUM_STEPS, "the run must last longer"
                fault = soak.random.choice(faults)
                started = time.monotonic()
                fault()
                soak.replace_lost_hosts()
                soak.run.reached(reached)
                seconds = time.monotonic() - started
                told.append({"fault": fault.__name__, "step": reached, "seconds": seconds})
                print(json.dumps(told[-1]), flush=True)
            assert soak.run.ended(3000) == 0, soak.run.told()
        finally:
            kill_tree(soak.run.process)
            print(soak.run.told())
    alone = tmp_path / "undisturbed"
    alone.mkdir()
    undisturbed = weights_without_a_fault(
        Home(alone), NUM_STEPS, *LONG, "train.checkpoint_every_steps=0"
    )
    assert_undisturbed(soak.run, undisturbed, num_steps=NUM_STEPS)
