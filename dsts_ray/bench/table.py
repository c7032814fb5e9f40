"""Benches by name."""

from collections.abc import Callable, Mapping

from dsts_ray.bench.data import data
from dsts_ray.bench.dsts import dispatch, scoring
from dsts_ray.bench.growth import growth
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.overhead import inference_overhead, train_overhead
from dsts_ray.bench.rows import Row
from dsts_ray.bench.scaling import scaling
from dsts_ray.bench.udl import udl

BENCHES: Mapping[str, Callable[[Setting], list[Row]]] = {
    "data": data,
    "growth": growth,
    "scaling": scaling,
    "scoring": scoring,
    "dispatch": dispatch,
    "udl": udl,
    "train_overhead": train_overhead,
    "inference_overhead": inference_overhead,
}
