"""A loss that is NaN ends a run by name, and does so after ten skipped steps, too."""

import json

import pytest

from tests.cluster.conftest import ON_NODES
from tests.support.jobs import kill_tree
from tests.support.nodes import Nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]


@pytest.mark.parametrize(("choice", "num_steps"), [("stop", 1), ("skip", 10)])
def test_a_loss_that_is_nan_ends_the_run_with_its_videos(
    nodes: Nodes, choice: str, num_steps: int
) -> None:
    for _ in range(2):
        nodes.start_node()
    wild = ("optim.lr=1e30", "optim.warmup_epochs=0", f"train.on_nonfinite_loss={choice}")
    run = nodes.train(*ON_NODES, *wild)
    try:
        assert run.ended() == 2, run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    steps = json.loads((run.folder / "nonfinite.json").read_text())
    assert len(steps) == num_steps
    assert len(steps[-1]["train"]) == 4
    assert ", ".join(steps[-1]["train"]) in run.told()
