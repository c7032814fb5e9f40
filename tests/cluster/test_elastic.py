"""Nodes go and come, and a run goes on with as many workers as there is room for."""

import pytest

from dsts_ray.launch.snapshot import latest_step
from tests.cluster.conftest import ON_NODES, assert_every_clip_once
from tests.support.jobs import kill_tree
from tests.support.nodes import Nodes, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


def test_two_workers_one_and_two_again(nodes: Nodes) -> None:
    """The batches stay what they are; weights that differ by rounding drift apart in long runs."""
    first, second = nodes.start_node(), nodes.start_node()
    elastic = ("scaling.min_workers=1", "scaling.max_workers=2", "train.num_epochs=1000")
    run = nodes.train(*ON_NODES, *elastic, "train.evaluate_every_epochs=1000")
    seconds: dict[str, float] = {}
    try:
        run.reached(3)
        assert training_workers(first)
        assert training_workers(second)
        line = "1 workers instead of 2 go on from step"
        seconds["fewer"] = run.recovered(line, lambda: kill_tree(second))
        line = "2 workers instead of 1 go on from step"
        seconds["more"] = run.recovered(line, nodes.start_node)
        run.reached(run.num_recorded() + 10)
        run.stop()
    finally:
        kill_tree(run.process)
        print(seconds, run.told())
    assert_every_clip_once(run, latest_step(run.folder / "checkpoints"))
