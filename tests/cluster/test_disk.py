"""The disk is full while a checkpoint is written."""

import pytest
from torch import Tensor

from dsts_ray.launch.snapshot import latest_step
from tests.cluster.conftest import NUM_STEPS, ON_NODES, assert_undisturbed
from tests.support.faulty_disk import small_file_system
from tests.support.jobs import kill_tree
from tests.support.nodes import Nodes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

SIZE = 200 * 2**20


def test_a_full_disk_is_named_and_the_same_command_continues(
    nodes: Nodes, undisturbed: dict[str, Tensor]
) -> None:
    for _ in range(2):
        nodes.start_node()
    storage = nodes.home.work / "runs"
    storage.mkdir()
    with small_file_system(storage, str(SIZE)) as why_not:
        if why_not:
            pytest.skip(why_not)
        command = (*ON_NODES, "scaling.max_failures=0")
        run = nodes.train(*command)
        try:
            run.reached(5)
            filler = storage / "filler"
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(bytes(2 * SIZE))
            assert run.ended() == 2, run.told()
            assert "No space left on device" in run.told()
            filler.unlink()
            reached = latest_step(run.folder / "checkpoints")
            assert 0 < reached < NUM_STEPS
            run = nodes.train(*command)
            assert run.ended() == 0, run.told()
            assert f"continuing from step {reached}" in run.told()
        finally:
            kill_tree(run.process)
            print(run.told())
        assert_undisturbed(run, undisturbed)
