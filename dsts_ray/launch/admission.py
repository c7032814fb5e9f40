"""Who may start a training run: sweeps on one cluster share its CPUs and GPUs run by run.

A run needs workers, and decoders beside them. Two sweeps that each fill the cluster would give all
of it to workers and leave the decoders of both waiting for ever, so a run starts when its whole
need is free, counting what the runs that were let in have asked for.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group

from dsts_ray.config.schema import Config
from dsts_ray.launch.capacity import exceeds, training_request

LIFETIME_S = 30.0
"""A lease that nobody renews for so long is void: its holder was killed, and so was the driver."""
_RENEW_S, _POLL_S = 5.0, 1.0
_ACTOR, _NAMESPACE = "dsts_ray_admission", "dsts_ray"


class Admission:
    """Leases of the cluster's CPUs and GPUs, by holder."""

    def __init__(self) -> None:
        """Start with none."""
        self._leases: dict[str, tuple[float, float, float]] = {}
        self._held: dict[str, PlacementGroup] = {}

    def acquire(self, holder: str, cpus: float, gpus: float, has: dict[str, float]) -> bool:
        """Let a holder in, or renew its lease, where the cluster has room beside the others."""
        now = time.monotonic()
        self._leases = {
            name: lease for name, lease in self._leases.items() if now - lease[2] < LIFETIME_S
        }
        others = [lease for name, lease in self._leases.items() if name != holder]
        fits = not (
            exceeds(sum(lease[0] for lease in others) + cpus, has.get("CPU", 0.0))
            or exceeds(sum(lease[1] for lease in others) + gpus, has.get("GPU", 0.0))
        )
        if fits or holder in self._leases or not others:
            self._leases[holder] = (cpus, gpus, now)
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
    scaling, admission = config.scaling, _admission()
    need = (training_request(config).cpus, float(scaling.num_workers if scaling.use_gpu else 0))
    while not ray.get(admission.acquire.remote(holder, *need, ray.cluster_resources())):
        time.sleep(_POLL_S)
    done = threading.Event()

    def renew() -> None:
        while not done.wait(_RENEW_S):
            admission.acquire.remote(holder, *need, ray.cluster_resources())

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
        .options(name=_ACTOR, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True)
        .remote()
    )
