"""What the tests of faults share: the run without any."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from dsts_ray.data.order import TrainingOrder
from tests.support.jobs import DEMO, TINY, Home, assert_same_weights, final_weights
from tests.support.network import Network, network
from tests.support.nodes import Node, Nodes, Training, cluster

NUM_STEPS = 24
RUN = (
    *DEMO,
    *TINY,
    "train.num_epochs=6",
    "train.evaluate_every_epochs=3",
    "train.checkpoint_every_steps=2",
    "data.record_samples=true",
    "data.cpus_per_decoder=0.25",
    "scaling.num_workers=2",
    "scaling.max_failures=10",
    "tracking.model_name=",
)
ON_NODES = (*RUN, "scaling.cpus_per_worker=2")
"""Two workers, each on a node of its own."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights of the run without a fault, on this machine alone."""
    return weights_without_a_fault(Home(tmp_path_factory.mktemp("undisturbed")), NUM_STEPS)


def weights_without_a_fault(home: Home, num_steps: int, *overrides: str) -> dict[str, Tensor]:
    """Train so many steps, more or fewer epochs as overrides say."""
    with (home.folder / "log").open("w") as log:
        run = home.start("train.py", *RUN, "scaling.cpus_per_worker=0.25", *overrides, out=log)
        assert run.wait(3000) == 0, (home.folder / "log").read_text()
    (summary,) = home.work.glob("runs/*/summary.json")
    return final_weights(summary.parent, num_steps)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """A cluster whose head decodes, and nothing else yet."""
    with (
        tempfile.TemporaryDirectory(prefix="ray") as temporary,
        cluster(Home(tmp_path), Path(temporary)) as made,
    ):
        yield made


@pytest.fixture
def cables() -> Iterator[Network]:
    """A network of hosts on this machine."""
    with network() as made:
        if isinstance(made, str):
            pytest.skip(made)
        yield made


@pytest.fixture
def hosts(cables: Network, tmp_path: Path) -> Iterator[Nodes]:
    """A cluster with three nodes on hosts of their own, and the head on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="ray") as temporary,
        cluster(Home(tmp_path), Path(temporary), cables.address) as made,
    ):
        for _ in range(3):
            start_host(made, cables)
        yield made


def start_host(nodes: Nodes, cables: Network) -> Node:
    """Start a node on a further host."""
    address, run_there = cables.add_host()
    return nodes.start_node(address=address, run_there=run_there)


def assert_undisturbed(
    run: Training, undisturbed: dict[str, Tensor], num_steps: int = NUM_STEPS
) -> None:
    """All steps were made, of the right clips, and the weights are the undisturbed run's."""
    assert_same_weights(final_weights(run.folder, num_steps), undisturbed)
    assert_every_clip_once(run, num_steps)


def assert_every_clip_once(run: Training, num_steps: int) -> None:
    """So many steps were made, of the clips that they have in a run without a fault."""
    record = pa.concat_tables([pq.read_table(f) for f in sorted(run.folder.glob("samples/*"))])
    order = TrainingOrder(num_clips=16, batch_size=4, num_workers=2)
    for step in range(num_steps):
        expected = {order.place(row).sample_id for row in range(4 * step, 4 * step + 4)}
        found = record.filter(pc.field("step") == step)["sample_id"].to_pylist()
        assert len(found) == 4
        assert set(found) == expected
