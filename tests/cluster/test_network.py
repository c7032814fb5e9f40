"""A cable between nodes is pulled, for a while and for ever."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from tests.cluster.conftest import ON_NODES, assert_undisturbed
from tests.support.jobs import Home, kill_tree
from tests.support.network import Network, network
from tests.support.nodes import Nodes, cluster, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

CUT_S = 20
COLLECTIVE_TIMEOUT_S = 30


@pytest.fixture
def cables() -> Iterator[Network]:
    with network() as made:
        if isinstance(made, str):
            pytest.skip(made)
        yield made


@pytest.fixture
def nodes(cables: Network, tmp_path: Path) -> Iterator[Nodes]:
    """A cluster with three nodes on hosts of their own, and the head on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="ray") as temporary,
        cluster(Home(tmp_path), Path(temporary), cables.address) as made,
    ):
        for _ in range(3):
            address, run_there = cables.add_host()
            made.start_node(address=address, run_there=run_there)
        yield made


def test_a_cable_pulled_for_a_while_and_for_ever(
    nodes: Nodes, cables: Network, undisturbed: dict[str, Tensor]
) -> None:
    run = nodes.train(*ON_NODES, f"scaling.collective_timeout_s={COLLECTIVE_TIMEOUT_S}")
    try:
        run.reached(3)
        hosts = [i for i, node in enumerate(nodes.nodes) if training_workers(node)]
        cables.cut(nodes.addresses[hosts[0]])
        time.sleep(CUT_S)
        cables.mend(nodes.addresses[hosts[0]])
        started = time.monotonic()
        run.reached(13)
        print(f"ten steps {time.monotonic() - started:.0f} s after a cut of {CUT_S} s")
        hosts = [i for i, node in enumerate(nodes.nodes) if training_workers(node)]
        before = run.told().count("start again")
        started = time.monotonic()
        cables.cut(nodes.addresses[hosts[-1]])
        run.wait_for(lambda: run.told().count("start again") > before)
        print(f"starts again {time.monotonic() - started:.0f} s after a cut for ever")
        assert run.ended() == 0, run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_undisturbed(run, undisturbed)
