from dataclasses import replace

from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup

from dsts_ray.launch import admission
from dsts_ray.launch.admission import Admission
from dsts_ray.launch.capacity import Request

HAS = [{"CPU": 4.0, "GPU": 2.0}]


def need(cpus: float, gpus: float = 0.0, decoder_cpus: float = 0.0) -> Request:
    """One worker, and one decoder where it gets CPUs."""
    return Request(
        num_workers=1,
        worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        num_decoders=1 if decoder_cpus else 0,
        decoder={"CPU": decoder_cpus or 1.0},
        num_counters=0,
    )


def test_runs_come_in_until_the_cluster_is_full() -> None:
    leases = Admission()
    assert leases.acquire("a", need(1.7), HAS)
    assert leases.acquire("b", need(1.7), HAS)
    assert not leases.acquire("c", need(1.7), HAS)
    assert leases.acquire("a", need(1.7), HAS)  # renewed
    leases.release("b")
    assert leases.acquire("c", need(1.7), HAS)
    leases.release("nobody")


def test_gpus_are_counted_too() -> None:
    leases = Admission()
    assert leases.acquire("a", need(0.5, 2), HAS)
    assert not leases.acquire("b", need(0.5, 1), HAS)
    assert leases.acquire("c", need(0.5), HAS)


def test_a_run_comes_in_where_a_node_has_room_for_each_of_its_parts() -> None:
    """Two runs are 2.4 CPUs, but only three parts of 0.6 find a node."""
    leases, run = Admission(), need(0.6, decoder_cpus=0.6)
    assert leases.acquire("a", run, [{"CPU": 1.0}] * 3)
    assert not leases.acquire("b", run, [{"CPU": 1.0}] * 3)
    assert leases.acquire("b", run, [{"CPU": 1.0}] * 4)


def test_runs_that_decode_on_nodes_of_their_own_share_them() -> None:
    nodes = [{"CPU": 4.0, "decode": 4.0}, {"CPU": 4.0}]
    run = replace(need(2.0), num_decoders=2, decoder={"CPU": 1.0, "decode": 1.0})
    leases = Admission()
    assert leases.acquire("a", run, nodes)
    assert leases.acquire("b", run, nodes)
    assert not leases.acquire("c", run, nodes)


def test_a_cluster_that_shrank_still_runs_one_at_a_time() -> None:
    leases = Admission()
    assert leases.acquire("a", need(3.0), [{"CPU": 1.0}])
    assert not leases.acquire("b", need(0.5), [{"CPU": 1.0}])


def test_a_lease_that_is_not_renewed_is_void(monkeypatch) -> None:  # noqa: ANN001
    leases = Admission()
    assert leases.acquire("a", need(4.0), HAS)
    assert not leases.acquire("b", need(1.0), HAS)
    monkeypatch.setattr(admission, "LIFETIME_S", 0.0)
    assert leases.acquire("b", need(1.0), HAS)


def test_who_gives_a_lease_back_is_told_what_its_workers_held_last() -> None:
    leases = Admission()
    before, now = (PlacementGroup(PlacementGroupID.from_random()) for _ in range(2))
    assert leases.acquire("a", need(4.0), HAS)
    leases.hold("a", before)
    leases.hold("a", now)
    assert leases.acquire("a", need(4.0), HAS)
    assert leases.release("a") == now
    assert leases.release("a") is None
