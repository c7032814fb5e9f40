"""The node that decodes is lost, and workers that take no clips."""

import signal
import time

import pytest

from dsts_ray.launch.snapshot import latest_step
from tests.cluster.conftest import ON_NODES, assert_every_clip_once
from tests.support.jobs import kill_tree
from tests.support.nodes import Nodes, processes, spilled_objects, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

STALL_S = 45
LASTING = (
    *ON_NODES,
    *("data.num_frames=16", "data.crop_size=96", "data.short_side=96"),  # 0.4 MB a clip
    *("train.num_epochs=400", "train.evaluate_every_epochs=400"),
)
"""More clips than the object stores hold, so that decoders wait for the workers."""


def test_the_node_that_decodes_is_lost(nodes: Nodes) -> None:
    """Another one decodes what was decoded there and not trained on yet."""
    for _ in range(2):
        nodes.start_node()
    decode = ("--num-cpus=1", '--resources={"decode": 1}')
    decoding = [nodes.start_node(*decode) for _ in range(2)]
    run = nodes.train(*LASTING, "data.decoder_resource=decode")
    try:
        run.reached(5)
        victim = max(decoding, key=lambda node: len(processes(node, "MapWorker")))
        assert processes(victim, "MapWorker")
        reached, started = run.num_recorded(), time.monotonic()
        kill_tree(victim)
        run.reached(reached + 40)
        print(f"40 steps and the loss of their decoders in {time.monotonic() - started:.0f} s")
        run.stop()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_every_clip_once(run, latest_step(run.folder / "checkpoints"))


def test_workers_that_stall_let_no_clip_spill(nodes: Nodes) -> None:
    """An epoch more than the object stores hold waits for them, and they go on."""
    workers = [nodes.start_node(), nodes.start_node()]
    run = nodes.train(*LASTING)
    try:
        run.reached(3)
        stalled = [process for node in workers for process in training_workers(node)]
        assert len(stalled) == 2
        for process in stalled:
            process.send_signal(signal.SIGSTOP)
        time.sleep(STALL_S)
        spilled = spilled_objects(nodes)
        for process in stalled:
            process.send_signal(signal.SIGCONT)
        assert not spilled
        run.reached(run.num_recorded() + 40)
        run.stop()
        assert "a worker failed" not in run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_every_clip_once(run, latest_step(run.folder / "checkpoints"))
