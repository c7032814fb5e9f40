"""Whether the nodes of a cluster can hold a run, and what would fit; no cluster is asked here.

Sums are not enough: a worker or a decoder runs on one node. Nodes and bundles are resources by
name, as Ray counts them (``CPU``, ``GPU``, custom ones).
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsts_ray.build import build_decoder_pool
from dsts_ray.config.schema import Config
from dsts_ray.data.pipeline import CPUS_TO_COUNT

Resources = Mapping[str, float]

_ROUNDING = 1e-6
_ONE_NODE, _OWN_NODES = "STRICT_PACK", "STRICT_SPREAD"


@dataclass(frozen=True)
class Request:
    """What must find its place: workers, and beside them decoders and counters of rows.

    Attributes:
        num_workers: Training or forward passes.
        worker: Resources of each.
        num_decoders: Of all streams.
        decoder: Resources of each.
        num_counters: One a stream, of ``CPUS_TO_COUNT`` each.
        strategy: Ray's placement strategy of the workers.
    """

    num_workers: int
    worker: Resources
    num_decoders: int
    decoder: Resources
    num_counters: int
    strategy: str = "PACK"

    @property
    def cpus(self) -> float:
        """All CPUs."""
        return (
            self.num_workers * self.worker["CPU"]
            + self.num_decoders * self.decoder["CPU"]
            + self.num_counters * CPUS_TO_COUNT
        )

    @property
    def bundles(self) -> list[Resources]:
        """Every bundle, as Ray's autoscaler is asked for them."""
        counters = [{"CPU": CPUS_TO_COUNT}] * self.num_counters
        return [self.worker] * self.num_workers + [self.decoder] * self.num_decoders + counters


def training_request(config: Config) -> Request:
    """What a training run asks for at least; it has a stream for training, one for evaluation."""
    scaling = config.scaling
    return Request(
        num_workers=scaling.fewest_workers,
        worker=worker_resources(config, use_gpu=scaling.use_gpu),
        num_decoders=2 * config.data.num_decoders,
        decoder=decoder_resources(config),
        num_counters=2,
        strategy=scaling.placement_strategy,
    )


def evaluation_request(config: Config, *, num_workers: int, use_gpu: bool) -> Request:
    """What the evaluation of a trained model asks for."""
    return Request(
        num_workers=num_workers,
        worker=worker_resources(config, use_gpu=use_gpu),
        num_decoders=config.data.num_decoders,
        decoder=decoder_resources(config),
        num_counters=1,
    )


def worker_resources(config: Config, *, use_gpu: bool) -> dict[str, float]:
    """Resources of a worker."""
    return {"CPU": config.scaling.cpus_per_worker} | ({"GPU": 1.0} if use_gpu else {})


def decoder_resources(config: Config) -> dict[str, float]:
    """Resources of a decoder: CPUs, and as much of ``data.decoder_resource``."""
    decoders = build_decoder_pool(config)
    return {"CPU": decoders.cpus} | decoders.custom_resources


def fits(request: Request, nodes: Sequence[Resources]) -> bool:
    """Tell whether every worker, decoder and counter finds room on a node."""
    return num_fitting_workers(request, nodes) == request.num_workers


def fits_beside(request: Request, others: Sequence[Request], nodes: Sequence[Resources]) -> bool:
    """Tell whether a request fits the room that others leave, each bundle of theirs on a node.

    Bundles of the others are put one by one, the choosiest and largest first, each on a node that
    offers the least beside what it needs: not every room there is is found.
    """
    left = [dict(node) for node in nodes]
    bundles = [bundle for other in others for bundle in other.bundles]
    named = {name for one in (request, *others) for name in resource_names(one)}
    for bundle in sorted(bundles, key=lambda b: (len(b), b["CPU"]), reverse=True):
        with_room = [node for node in left if _times(bundle, node)]
        if not with_room:
            return False
        node = min(with_room, key=lambda node: sum(name in node for name in named))
        for name, need in bundle.items():
            node[name] -= need
    return fits(request, left)


def num_fitting_workers(request: Request, nodes: Sequence[Resources]) -> int:
    """The most workers, up to those asked for, that fit beside all decoders and counters.

    Returns:
        -1 where the decoders do not fit even without workers.
    """
    num_cpus = sum(node.get("CPU", 0.0) for node in nodes)
    decoders = _decoders_beside(request, nodes)
    for num_workers in range(request.num_workers, -1, -1):
        needed = replace(request, num_workers=num_workers).cpus
        if decoders[num_workers] >= request.num_decoders and not exceeds(needed, num_cpus):
            return num_workers
    return -1


def exceeds(asked: float, available: float) -> bool:
    """Compare CPUs; a sum of fractions may be off by a rounding error."""
    return asked > available + _ROUNDING


def resource_names(request: Request) -> tuple[str, ...]:
    """Names of the resources that matter to a request."""
    return tuple(dict.fromkeys([*request.worker, *request.decoder]))


def describe_nodes(nodes: Sequence[Resources], named: Sequence[str]) -> str:
    """Say what nodes there are, by the resources that matter, as in ``2 nodes of 16 CPU, 4 GPU``.

    Args:
        nodes: All of them.
        named: Resources to tell.
    """
    shapes = Counter(
        ", ".join(f"{node[name]:g} {name}" for name in named if node.get(name)) or "none of these"
        for node in nodes
    )
    total = ", ".join(f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in named)
    listed = "; ".join(
        f"{count} node{'s' * (count > 1)} of {shape}" for shape, count in sorted(shapes.items())
    )
    return f"{total} ({listed})" if nodes else "no nodes"


def _decoders_beside(request: Request, nodes: Sequence[Resources]) -> list[float]:
    """The most decoders that fit beside 0, 1, ... workers; minus infinity where those do not."""
    rooms = [_decoders_on(node, request) for node in nodes]
    none = [-math.inf] * request.num_workers
    if request.strategy == _ONE_NODE:
        alone = float(sum(room[0] for room in rooms))
        hosts = [
            [alone - room[0] + room[n] for room in rooms if n < len(room)]
            for n in range(1, request.num_workers + 1)
        ]
        return [alone, *(max(host, default=-math.inf) for host in hosts)]
    best: list[float] = [0.0, *none]
    for room in rooms:
        joined: list[float] = [-math.inf, *none]
        for before, here in itertools.product(range(len(best)), range(len(room))):
            if before + here < len(joined):
                joined[before + here] = max(joined[before + here], best[before] + room[here])
        best = joined
    return best


def _decoders_on(node: Resources, request: Request) -> list[int]:
    """The most decoders on a node that holds 0, 1, ... workers, as far as workers fit."""
    most = min(request.num_workers, _times(request.worker, node))
    if request.strategy == _OWN_NODES:
        most = min(most, 1)
    return [
        _times(
            request.decoder,
            {name: has - n * request.worker.get(name, 0.0) for name, has in node.items()},
        )
        for n in range(most + 1)
    ]


def _times(bundle: Resources, free: Resources) -> int:
    """How often a bundle fits into free resources."""
    return min(math.floor(free.get(name, 0.0) / need + _ROUNDING) for name, need in bundle.items())
