"""A cable between nodes is pulled, for a while and for ever."""

import time

import pytest
from torch import Tensor

from tests.cluster.conftest import ON_NODES, assert_undisturbed
from tests.support.jobs import kill_tree
from tests.support.network import Network
from tests.support.nodes import Nodes, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

CUT_S = 20
COLLECTIVE_TIMEOUT_S = 30


def test_a_cable_pulled_for_a_while_and_for_ever(
    hosts: Nodes, cables: Network, undisturbed: dict[str, Tensor]
) -> None:
    run = hosts.train(*ON_NODES, f"scaling.collective_timeout_s={COLLECTIVE_TIMEOUT_S}")
    try:
        run.reached(3)
        training = [i for i, node in enumerate(hosts.nodes) if training_workers(node)]
        cables.cut(hosts.addresses[training[0]])
        time.sleep(CUT_S)
        cables.mend(hosts.addresses[training[0]])
        started = time.monotonic()
        run.reached(13)
        print(f"ten steps {time.monotonic() - started:.0f} s after a cut of {CUT_S} s")
        training = [i for i, node in enumerate(hosts.nodes) if training_workers(node)]
        before = run.told().count("start again")
        started = time.monotonic()
        cables.cut(hosts.addresses[training[-1]])
        run.wait_for(lambda: run.told().count("start again") > before)
        print(f"starts again {time.monotonic() - started:.0f} s after a cut for ever")
        assert run.ended() == 0, run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_undisturbed(run, undisturbed)
