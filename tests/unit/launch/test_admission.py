from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup

from dsts_ray.launch import admission
from dsts_ray.launch.admission import Admission

HAS = {"CPU": 4.0, "GPU": 2.0}


def test_runs_come_in_until_the_cluster_is_full() -> None:
    leases = Admission()
    assert leases.acquire("a", 1.7, 0, HAS)
    assert leases.acquire("b", 1.7, 0, HAS)
    assert not leases.acquire("c", 1.7, 0, HAS)
    assert leases.acquire("a", 1.7, 0, HAS)  # renewed
    leases.release("b")
    assert leases.acquire("c", 1.7, 0, HAS)
    leases.release("nobody")


def test_gpus_are_counted_too() -> None:
    leases = Admission()
    assert leases.acquire("a", 0.5, 2, HAS)
    assert not leases.acquire("b", 0.5, 1, HAS)
    assert leases.acquire("c", 0.5, 0, HAS)


def test_a_cluster_that_shrank_still_runs_one_at_a_time() -> None:
    leases = Admission()
    assert leases.acquire("a", 3.0, 0, {"CPU": 1.0})
    assert not leases.acquire("b", 0.5, 0, {"CPU": 1.0})


def test_a_lease_that_is_not_renewed_is_void(monkeypatch) -> None:  # noqa: ANN001
    leases = Admission()
    assert leases.acquire("a", 4.0, 0, HAS)
    assert not leases.acquire("b", 1.0, 0, HAS)
    monkeypatch.setattr(admission, "LIFETIME_S", 0.0)
    assert leases.acquire("b", 1.0, 0, HAS)


def test_who_gives_a_lease_back_is_told_what_its_workers_held_last() -> None:
    leases = Admission()
    before, now = (PlacementGroup(PlacementGroupID.from_random()) for _ in range(2))
    assert leases.acquire("a", 4.0, 0, HAS)
    leases.hold("a", before)
    leases.hold("a", now)
    assert leases.acquire("a", 4.0, 0, HAS)
    assert leases.release("a") == now
    assert leases.release("a") is None
