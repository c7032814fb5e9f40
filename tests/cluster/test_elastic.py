"""Nodes go and come, and a run goes on with as many workers as there is room for."""

import pytest
from torch import Tensor

from tests.cluster.conftest import ON_NODES, assert_undisturbed
from tests.support.jobs import kill_tree
from tests.support.nodes import Nodes, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


def test_two_workers_one_and_two_again(nodes: Nodes, undisturbed: dict[str, Tensor]) -> None:
    """The batches stay the same; rounding differs with the number of workers."""
    first, second = nodes.start_node(), nodes.start_node()
    run = nodes.train(*ON_NODES, "scaling.min_workers=1", "scaling.max_workers=2")
    seconds: dict[str, float] = {}
    try:
        run.reached(3)
        assert training_workers(first)
        assert training_workers(second)
        line = "1 workers instead of 2 go on from step"
        seconds["fewer"] = run.recovered(line, lambda: kill_tree(second))
        line = "2 workers instead of 1 go on from step"
        seconds["more"] = run.recovered(line, nodes.start_node)
        assert run.ended() == 0, run.told()
    finally:
        kill_tree(run.process)
        print(seconds, run.told())
    assert_undisturbed(run, undisturbed, tolerance=1e-3)
