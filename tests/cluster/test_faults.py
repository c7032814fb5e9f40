"""Faults of processes and nodes in the middle of a run, which ends as if there had been none."""

import signal

import pytest
from torch import Tensor

from dsts_ray.launch.snapshot import latest_step
from tests.cluster.conftest import NUM_STEPS, ON_NODES, assert_undisturbed
from tests.support.jobs import kill_tree
from tests.support.nodes import Node, Nodes, drain, node_id, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

COLLECTIVE_TIMEOUT_S = 20


def hosts(nodes: list[Node]) -> list[Node]:
    """Those of the nodes that train."""
    return [node for node in nodes if training_workers(node)]


def test_killed_nodes_twice_a_stuck_worker_and_a_killed_one(
    nodes: Nodes, undisturbed: dict[str, Tensor]
) -> None:
    """With a spare node for each that goes; the same number of workers."""
    spares = [nodes.start_node() for _ in range(3)]
    run = nodes.train(*ON_NODES, f"scaling.collective_timeout_s={COLLECTIVE_TIMEOUT_S}")
    again = "a worker failed; all start again from step"
    seconds: dict[str, float] = {}
    try:
        for number, step in enumerate((3, 7)):
            run.reached(step)
            victim = hosts(spares)[number]
            seconds[f"node {number} killed"] = run.recovered(again, lambda v=victim: kill_tree(v))
            spares = [*(node for node in spares if node is not victim), nodes.start_node()]
        run.reached(11)
        stuck = training_workers(hosts(spares)[0])[0]
        seconds["stuck"] = run.recovered(again, lambda: stuck.send_signal(signal.SIGSTOP))
        run.reached(14)
        victim = training_workers(hosts(spares)[1])[0]
        seconds["worker killed"] = run.recovered(again, victim.kill)
        assert run.ended() == 0, run.told()
    finally:
        kill_tree(run.process)
        print(seconds, run.told())
    assert_undisturbed(run, undisturbed)
    assert seconds["stuck"] < COLLECTIVE_TIMEOUT_S + 60


def test_a_node_that_is_to_be_taken_away(nodes: Nodes, undisturbed: dict[str, Tensor]) -> None:
    """The run is saved on notice, at a step at which it would not be."""
    names = {id(node): node_id(nodes, node) for node in [nodes.start_node() for _ in range(3)]}
    run = nodes.train(*ON_NODES, "train.checkpoint_every_steps=50")
    try:
        run.wait_for(lambda: "epoch 1" in run.told())
        leaving = hosts(nodes.nodes)[0]
        again = "a worker failed; all start again from step"
        seconds = run.recovered(again, lambda: drain(nodes, names[id(leaving)], seconds=15))
        print(f"drained: {seconds:.0f} s")
        step = int(run.told().rpartition(again)[2].split()[0])
        assert step % (NUM_STEPS // 2), "evaluations save the run there anyway"
        assert run.ended() == 0, run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_undisturbed(run, undisturbed)


def test_a_driver_that_is_asked_to_stop_and_one_that_is_killed(
    nodes: Nodes, undisturbed: dict[str, Tensor]
) -> None:
    for _ in range(2):
        nodes.start_node()
    run = nodes.train(*ON_NODES)
    try:
        run.reached(5)
        run.stop()
        assert "was asked to stop and did so after a checkpoint" in run.told()
        reached = latest_step(run.folder / "checkpoints")
        assert 6 <= reached < NUM_STEPS
        run = nodes.train(*ON_NODES)
        run.reached(reached + 4)
        assert f"continuing from step {reached}" in run.told()
        kill_tree(run.process)
        reached = latest_step(run.folder / "checkpoints")
        run = nodes.train(*ON_NODES)
        assert run.ended() == 0, run.told()
        assert f"continuing from step {reached}" in run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_undisturbed(run, undisturbed)
