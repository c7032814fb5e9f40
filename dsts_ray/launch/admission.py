"""Who may start a training run: sweeps on one cluster share its CPUs and GPUs run by run.

A run needs workers, and decoders beside them. Two sweeps that each fill the cluster would give all
of it to workers and leave the decoders of both waiting for ever, so a run starts when there is room
on the nodes for all of it beside what the runs that were let in have asked for.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from dsts_ray.config.schema import Config
from dsts_ray.launch.capacity import Request, Resources, fits_beside, training_request
from dsts_ray.launch.cluster import alive_nodes

LIFETIME_S = 30.0
"""A lease that nobody renews for so long is void: its holder was killed, and so was the driver."""
_RENEW_S, _POLL_S = 5.0, 1.0
_ACTOR, _NAMESPACE = "dsts_ray_admission", "dsts_ray"


class Admission:
    """Leases of the nodes' resources, by holder."""

    def __init__(self) -> None:
        """Start with none."""
        self._leases: dict[str, tuple[Request, float]] = {}
        self._held: dict[str, PlacementGroup] = {}

    def acquire(self, holder: str, request: Request, nodes: Sequence[Resources]) -> bool:
        """Let a holder in, or renew its lease, where the nodes have room beside the others."""
        now = time.monotonic()
        self._leases = {
            name: lease for name, lease in self._leases.items() if now - lease[1] < LIFETIME_S
        }
        others = [asked for name, (asked, _) in self._leases.items() if name != holder]
        if holder in self._leases or not others or fits_beside(request, others, nodes):
            self._leases[holder] = (request, now)
            return True
        return False

    def hold(self, holder: str, group: PlacementGroup) -> None:
        """Take down what a holder's workers hold."""
        self._held[holder] = group

    def release(self, holder: str) -> PlacementGroup | None:
        """Give a lease back, if there is one; returns what the holder's workers held."""
        self._leases.pop(holder, None)
        return self._held.pop(holder, None)


@contextmanager
def admitted(holder: str, config: Config) -> Iterator[None]:
    """Wait until the cluster has room for a run, and keep it while the block runs.

    Args:
        holder: Names the lease, for ``release``.
        config: Of the run.
    """
    request, admission = training_request(config), _admission()
    while not ray.get(admission.acquire.remote(holder, request, alive_nodes())):
        time.sleep(_POLL_S)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEW_S):
            admission.acquire.remote(holder, request, alive_nodes())

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        release(holder)


def hold(holder: str, group: PlacementGroup) -> None:
    """Take down what a run's workers hold, for ``release``."""
    ray.get(_admission().hold.remote(holder, group))


def release(holder: str) -> None:
    """Give back the lease of a run, and what its workers hold should it have been killed.

    Ray Train has an actor for that, which asks the dashboard: without one, or with several
    clusters on the machine, it never does. What is free already stays so.
    """
    (group,) = ray.get([_admission().release.remote(holder)])
    if group:
        remove_placement_group(group)


def _admission() -> Any:  # noqa: ANN401 - an actor's handle
    return (
        ray.remote(num_cpus=0)(Admission)
        .options(
            name=_ACTOR,
            namespace=_NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            scheduling_strategy="DEFAULT",  # or it would lie in a trial's placement group
        )
        .remote()
    )
