"""Connecting to a Ray cluster and checking that a run fits it."""

import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import ray
from ray.data import DataContext
from ray.exceptions import RaySystemError

from dsts_ray.config.schema import Config
from dsts_ray.data.pipeline import CPUS_TO_COUNT
from dsts_ray.errors import ClusterError

_LOCAL = "local"
_OBJECT_STORE_BYTES = 1 << 30
_WORKER_ENVIRONMENT = {"RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS`` (a Ray job has it), or start a local one.

    A local cluster lives as long as this context and writes no authentication token into the home
    folder. A cluster that somebody has started on this machine is left alone.

    Raises:
        ClusterError: There is no cluster at ``RAY_ADDRESS``.
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
    except (ConnectionError, RaySystemError, RuntimeError, ValueError) as error:
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
        f"Ray did not start on this machine ({error}); with RAY_AUTH_MODE=token it needs a token "
        "(`ray get-auth-token --generate`), without RAY_AUTH_MODE it needs none"
    )


def num_runs_at_once(configs: Iterable[Config]) -> int:
    """Runs of these configurations that the cluster carries at the same time, at least one.

    Raises:
        ClusterError: One of them does not fit the cluster.
    """
    has = ray.cluster_resources()
    numbers: list[float] = []
    for config in configs:
        check_resources(config)
        numbers.append(has.get("CPU", 0.0) / needed_cpus(config))
        if config.scaling.use_gpu:
            numbers.append(has.get("GPU", 0.0) / config.scaling.num_workers)
    return max(1, math.floor(min(numbers) + 1e-6))


def needed_cpus(config: Config) -> float:
    """CPUs of a training run: its workers, and two streams' decoders and counters of rows."""
    scaling, data = config.scaling, config.data
    for_a_stream = data.num_decoders * data.cpus_per_decoder + CPUS_TO_COUNT
    return scaling.num_workers * scaling.cpus_per_worker + 2 * for_a_stream


def check_resources(config: Config) -> None:
    """Refuse a run that would wait for ever for resources the cluster does not have.

    Raises:
        ClusterError: Says what is asked, what the cluster has, and which keys to change.
    """
    has = ray.cluster_resources()
    scaling, data = config.scaling, config.data
    asked = needed_cpus(config)
    num_cpus, num_gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
    if exceeds(asked, num_cpus):
        raise ClusterError(
            f"the run asks for {asked:g} CPUs: {scaling.num_workers} workers x "
            f"{scaling.cpus_per_worker:g}, and for training and evaluation each "
            f"{data.num_decoders} decoders x {data.cpus_per_decoder:g} and {CPUS_TO_COUNT:g} to "
            f"count the rows; the cluster has {num_cpus:g}. Lower scaling.num_workers, "
            "scaling.cpus_per_worker or data.cpus_per_decoder (fractions are allowed), or add nodes"
        )
    if scaling.use_gpu and scaling.num_workers > num_gpus:
        raise ClusterError(
            f"scaling.num_workers={scaling.num_workers} with scaling.use_gpu=true asks for as many "
            f"GPUs; the cluster has {num_gpus:g}. Lower scaling.num_workers, or set "
            "scaling.use_gpu=false"
        )


def check_evaluation_resources(config: Config, num_workers: int) -> None:
    """Refuse an evaluation that would wait for ever for resources the cluster does not have.

    Raises:
        ClusterError: Says what is asked, what the cluster has, and what to change.
    """
    has = ray.cluster_resources()
    scaling, data = config.scaling, config.data
    asked = num_workers * scaling.cpus_per_worker + data.num_decoders * data.cpus_per_decoder
    asked += CPUS_TO_COUNT
    num_cpus = has.get("CPU", 0.0)
    if exceeds(asked, num_cpus):
        raise ClusterError(
            f"the evaluation asks for {asked:g} CPUs: {num_workers} workers x "
            f"{scaling.cpus_per_worker:g}, {data.num_decoders} decoders x "
            f"{data.cpus_per_decoder:g} and {CPUS_TO_COUNT:g} to count the rows; the cluster has "
            f"{num_cpus:g}. Lower --num-workers, scaling.cpus_per_worker or data.cpus_per_decoder "
            "(fractions are allowed), or add nodes"
        )
    if 0 < has.get("GPU", 0.0) < num_workers:
        raise ClusterError(
            f"{num_workers} workers take a GPU each, the cluster has {has['GPU']:g}: lower "
            "--num-workers, or hide the GPUs from Ray"
        )


def exceeds(asked: float, available: float) -> bool:
    """Compare CPUs; a sum of fractions may be off by a rounding error."""
    return asked > available + 1e-6


def _quiet() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
