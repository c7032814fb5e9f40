"""The node that decodes is lost, and workers that take no clips."""

import signal
import time

import pytest
from torch import Tensor

from tests.cluster.conftest import ON_NODES, assert_undisturbed
from tests.support.jobs import kill_tree
from tests.support.nodes import Nodes, processes, store_statistics, training_workers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

STALL_S = 30


def test_the_node_that_decodes_is_lost(nodes: Nodes, undisturbed: dict[str, Tensor]) -> None:
    """Another one decodes what was decoded there and not trained on yet."""
    for _ in range(2):
        nodes.start_node()
    decode = ("--num-cpus=1", '--resources={"decode": 1}')
    decoding = [nodes.start_node(*decode) for _ in range(2)]
    run = nodes.train(*ON_NODES, "data.decoder_resource=decode")
    try:
        run.reached(5)
        victim = max(decoding, key=lambda node: len(processes(node, "MapWorker")))
        assert processes(victim, "MapWorker")
        started = time.monotonic()
        kill_tree(victim)
        run.reached(13)
        print(f"8 steps and the loss of their decoders in {time.monotonic() - started:.0f} s")
        assert run.ended() == 0, run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
    assert_undisturbed(run, undisturbed)


def test_workers_that_stall_let_no_clip_spill(nodes: Nodes) -> None:
    """An epoch more than the object stores hold waits for them, and they go on."""
    workers = [nodes.start_node(), nodes.start_node()]
    larger = ("data.num_frames=16", "data.crop_size=128", "data.short_side=128")  # 0.8 MB a clip
    run = nodes.train(*ON_NODES, *larger, "train.num_epochs=200", "data.num_decoders=2")
    try:
        run.reached(3)
        stalled = [process for node in workers for process in training_workers(node)]
        assert len(stalled) == 2
        for process in stalled:
            process.send_signal(signal.SIGSTOP)
        time.sleep(STALL_S)
        statistics = store_statistics(nodes)
        for process in stalled:
            process.send_signal(signal.SIGCONT)
        print(statistics)
        assert "Spilled" not in statistics
        run.reached(9)
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 2, run.told()
        assert "failed" not in run.told()
    finally:
        kill_tree(run.process)
        print(run.told())
