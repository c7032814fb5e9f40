from dataclasses import replace

import pytest

from dsts_ray.config.load import load_config
from dsts_ray.launch.capacity import (
    Request,
    Resources,
    describe_nodes,
    num_fitting_workers,
    resource_names,
    training_request,
)

DECODE: Resources = {"CPU": 8.0, "decode": 8.0, "memory": 1e9}
TRAIN: Resources = {"CPU": 16.0, "GPU": 4.0, "memory": 1e9}
ANYWHERE = Request(
    num_workers=2,
    worker={"CPU": 2.0},
    num_decoders=2,
    decoder={"CPU": 1.0},
    num_counters=2,
)
ON_DECODE_NODES = Request(
    num_workers=8,
    worker={"CPU": 1.0, "GPU": 1.0},
    num_decoders=32,
    decoder={"CPU": 1.0, "decode": 1.0},
    num_counters=2,
)


def node(cpus: float) -> Resources:
    return {"CPU": cpus}


@pytest.mark.parametrize(
    ("nodes", "most"),
    [
        ([node(6.2)], 2),
        ([node(6.1)], 1),  # no CPU is left for the second counter
        ([node(1.0)] * 7, 0),  # enough in sum, but a worker needs two on one node
        ([node(3.0), node(3.2)], 2),
        ([node(2.0), node(2.0), node(1.0), node(1.2)], 2),
        ([node(2.0), node(1.2), node(1.0)], 1),
        ([node(2.5), node(2.5), node(1.2)], 1),  # halves left by workers hold no decoder
        ([node(0.9)] * 9, -1),
        ([], -1),
    ],
)
def test_every_worker_and_decoder_fits_a_single_node(nodes: list[Resources], most: int) -> None:
    assert num_fitting_workers(ANYWHERE, nodes) == most


def test_workers_leave_the_nodes_that_decode_to_decoders() -> None:
    """Greedily put, the workers of one CPU would take the decoders' node."""
    request = replace(
        ANYWHERE, worker={"CPU": 1.0}, decoder={"CPU": 1.0, "decode": 1.0}, num_decoders=8
    )
    assert num_fitting_workers(request, [DECODE, node(2.2)]) == 2
    assert num_fitting_workers(request, [DECODE, node(1.9)]) == 1


def test_gpus_and_the_decoders_resource_count_by_node() -> None:
    assert num_fitting_workers(ON_DECODE_NODES, [DECODE] * 4 + [TRAIN] * 2) == 8
    assert num_fitting_workers(ON_DECODE_NODES, [DECODE] * 4 + [TRAIN]) == 4
    assert num_fitting_workers(ON_DECODE_NODES, [DECODE] * 4 + [node(8.0)]) == 0
    assert num_fitting_workers(ON_DECODE_NODES, [DECODE] * 4) == -1  # nobody counts rows
    assert num_fitting_workers(ON_DECODE_NODES, [DECODE] * 3 + [TRAIN] * 2) == -1
    many_cpus = [{"CPU": 512.0, "GPU": 4.0}] * 2
    assert num_fitting_workers(ON_DECODE_NODES, many_cpus) == -1  # none offers `decode`
    halves = replace(ON_DECODE_NODES, worker={"CPU": 1.0, "GPU": 0.75})
    assert num_fitting_workers(halves, [DECODE] * 4 + [{"CPU": 9.0, "GPU": 1.0}] * 4) == 4


@pytest.mark.parametrize(
    ("strategy", "most"), [("PACK", 2), ("SPREAD", 2), ("STRICT_PACK", 1), ("STRICT_SPREAD", 2)]
)
def test_strict_strategies_on_small_nodes(strategy: str, most: int) -> None:
    request = replace(ANYWHERE, strategy=strategy)
    assert num_fitting_workers(request, [node(3.0), node(3.2)]) == most


@pytest.mark.parametrize(("strategy", "most"), [("STRICT_PACK", 2), ("STRICT_SPREAD", 1)])
def test_strict_strategies_on_one_node(strategy: str, most: int) -> None:
    request = replace(ANYWHERE, strategy=strategy)
    assert num_fitting_workers(request, [node(8.0)]) == most


def test_all_on_one_node_beside_decoders_elsewhere() -> None:
    request = replace(ANYWHERE, strategy="STRICT_PACK", num_decoders=4)
    assert num_fitting_workers(request, [node(4.0), node(4.2)]) == 2
    assert num_fitting_workers(request, [node(4.0), node(3.2)]) == 1


def test_nodes_are_told_by_what_matters() -> None:
    names = resource_names(ON_DECODE_NODES)
    assert describe_nodes([TRAIN, DECODE, DECODE, {"memory": 1.0}], names) == (
        "32 CPU, 4 GPU, 16 decode (1 node of 16 CPU, 4 GPU; 2 nodes of 8 CPU, 8 decode; "
        "1 node of none of these)"
    )
    assert describe_nodes([], names) == "no nodes"


def test_the_autoscaler_is_asked_for_every_bundle() -> None:
    bundles = replace(ANYWHERE, num_workers=1).bundles
    assert bundles == [{"CPU": 2.0}, {"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 0.1}, {"CPU": 0.1}]


def test_a_run_begins_with_the_fewest_workers_it_goes_on_with() -> None:
    workers = ["scaling.num_workers=4", "scaling.cpus_per_worker=1"]
    assert training_request(load_config(preset="demo", overrides=workers)).num_workers == 4
    elastic = [*workers, "scaling.min_workers=2", "scaling.max_workers=8"]
    assert training_request(load_config(preset="demo", overrides=elastic)).num_workers == 2
