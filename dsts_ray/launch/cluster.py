"""Connecting to a Ray cluster and checking that a run fits it."""

import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources
from ray.data import DataContext
from rich.console import Console

from dsts_ray.config.schema import Config
from dsts_ray.data.pipeline import CPUS_TO_COUNT
from dsts_ray.errors import ClusterError
from dsts_ray.launch.capacity import (
    Request,
    Resources,
    describe_nodes,
    evaluation_request,
    fits,
    num_fitting_workers,
    resource_names,
    training_request,
)

_LOCAL = "local"
_OBJECT_STORE_BYTES = 1 << 30
_POLL_S = 2.0
_WORKER_ENVIRONMENT = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",  # a stuck worker is waited for in vain
}


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS`` (a Ray job has it), or start a local one.

    A local cluster lives as long as this context and writes no authentication token into the home
    folder. A cluster that somebody has started on this machine is left alone.

    Raises:
        ClusterError: There is no cluster at ``RAY_ADDRESS``, or Ray does not start here.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    if ray.is_initialized():
        _quiet()
        yield
        return
    address = os.environ.get("RAY_ADDRESS") or _LOCAL
    if address == _LOCAL:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(
            address=address,
            logging_level=logging.WARNING,
            log_to_driver=False,
            runtime_env={"env_vars": _WORKER_ENVIRONMENT},
            **(local if address == _LOCAL else {}),
        )
    except Exception as error:  # Ray raises a plain one where a node starts too late
        raise ClusterError(_explain(address, error)) from error
    _quiet()
    try:
        yield
    finally:
        ray.shutdown()


def _explain(address: str, error: Exception) -> str:
    if address != _LOCAL:
        return (
            f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); start one with "
            "`ray start --head`, or unset RAY_ADDRESS to run on this machine alone"
        )
    return (
        f"Ray did not start on this machine ({error}); where it was too slow, try again when less "
        "else runs; with RAY_AUTH_MODE=token it needs a token (`ray get-auth-token --generate`), "
        "without RAY_AUTH_MODE it needs none"
    )


def num_runs_at_once(configs: Iterable[Config], console: Console) -> int:
    """Runs of these configurations that the cluster carries at the same time, at least one.

    Raises:
        ClusterError: One of them does not fit the cluster.
    """
    numbers: list[float] = []
    for config in configs:
        check_resources(config, console)
        has, request = ray.cluster_resources(), training_request(config)
        numbers.append(has.get("CPU", 0.0) / request.cpus)
        if config.scaling.use_gpu:
            numbers.append(has.get("GPU", 0.0) / request.num_workers)
    return max(1, math.floor(min(numbers) + 1e-6))


def check_resources(config: Config, console: Console) -> None:
    """Refuse a run that would wait for ever for resources the cluster does not have.

    Nodes that come within ``scaling.wait_for_nodes_s`` count; an autoscaler is asked for them.

    Raises:
        ClusterError: Says what is asked, what the cluster has, what would fit, and which keys to
            change.
    """
    scaling, data, request = config.scaling, config.data, training_request(config)
    if scaling.wait_for_nodes_s and not fits(request, alive_nodes()):
        _wait_for_nodes(request, scaling.wait_for_nodes_s, console)
    asks = (
        f"the run asks for {request.cpus:g} CPUs: {scaling.fewest_workers} workers x "
        f"{scaling.cpus_per_worker:g}{' and a GPU' * scaling.use_gpu}, and for training and "
        f"evaluation each {data.num_decoders} decoders x {data.cpus_per_decoder:g}"
    )
    key = "min_workers" if scaling.min_workers else "num_workers"
    change = f"scaling.{key}, scaling.cpus_per_worker or data.cpus_per_decoder"
    _refuse_unless_it_fits(asks, request, change, data.decoder_resource)


def check_evaluation_resources(config: Config, num_workers: int) -> None:
    """Refuse an evaluation that would wait for ever for resources the cluster does not have.

    Raises:
        ClusterError: Says what is asked, what the cluster has, what would fit, and what to change.
    """
    scaling, data = config.scaling, config.data
    use_gpu = ray.cluster_resources().get("GPU", 0.0) > 0
    request = evaluation_request(config, num_workers=num_workers, use_gpu=use_gpu)
    asks = (
        f"the evaluation asks for {request.cpus:g} CPUs: {num_workers} workers x "
        f"{scaling.cpus_per_worker:g}{' and a GPU' * use_gpu}, {data.num_decoders} decoders x "
        f"{data.cpus_per_decoder:g}"
    )
    change = "--num-workers, scaling.cpus_per_worker or data.cpus_per_decoder"
    _refuse_unless_it_fits(asks, request, change, data.decoder_resource)


def _refuse_unless_it_fits(asks: str, request: Request, change: str, custom: str) -> None:
    nodes = alive_nodes()
    if fits(request, nodes):
        return
    of = f" and as much {custom}" if custom else ""
    text = (
        f"{asks}{of} and {CPUS_TO_COUNT:g} to count the rows; the cluster has "
        f"{describe_nodes(nodes, resource_names(request))}. {_room(request, nodes)}. Lower "
        f"{change} (fractions are allowed), or add nodes"
    )
    if "GPU" in request.worker and not any(node.get("GPU") for node in nodes):
        text += "; or train without GPUs: scaling.use_gpu=false"
    if custom and not any(node.get(custom) for node in nodes):
        text += (
            f"; no node offers data.decoder_resource={custom} (ray start --resources="
            f"'{{\"{custom}\": 8}}'): leave it empty to decode on any node"
        )
    if request.strategy.startswith("STRICT"):
        text += f"; or loosen scaling.placement_strategy={request.strategy} to PACK or SPREAD"
    raise ClusterError(text)


def _room(request: Request, nodes: Sequence[Resources]) -> str:
    """What of a request that is too large would fit."""
    match num_fitting_workers(request, nodes):
        case -1:
            return "Even without workers not every decoder finds a node with room"
        case 0:
            return "Each worker must find room on a node, and none does beside the decoders"
        case most:
            return f"Each worker must find room on a node: {most} would fit beside the decoders"


def _wait_for_nodes(request: Request, seconds: float, console: Console) -> None:
    """Ask the autoscaler for nodes, and tell of those that come, until a request fits."""
    deadline = time.monotonic() + seconds
    shown = ""
    request_resources(bundles=[dict(bundle) for bundle in request.bundles])
    try:
        while not fits(request, nodes := alive_nodes()) and time.monotonic() < deadline:
            has = describe_nodes(nodes, resource_names(request))
            if has != shown:
                left = max(0.0, deadline - time.monotonic())
                console.print(f"waiting {left:.0f} s at most for nodes; the cluster has {has}")
            shown = has
            time.sleep(_POLL_S)
    finally:
        request_resources(bundles=[])  # what is not used may go again


def alive_nodes() -> list[Resources]:
    """Resources of the cluster's nodes."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _quiet() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
