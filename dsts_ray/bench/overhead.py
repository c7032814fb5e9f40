"""What DSTS and UDL cost on top of the backbone, in training and at test time."""

import math
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from dsts_ray.bench.compare import Way, compare
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.rows import Row
from dsts_ray.build import build_step, torch_engine
from dsts_ray.data.batch import ClipBatch
from dsts_ray.train.step import TrainingStep

_PHASES = ("backbone pass", "simulated update", "meta update", "actual update")

_LR = 1e-6  # moves nothing far


class _Variant(NamedTuple):
    name: str
    overrides: tuple[str, ...]
    bound: float | None


_TRAINING = (
    _Variant("sparse, equal held-out batch", ("dsts.dispatch=sparse",), 1.45),
    _Variant(
        "sparse, a quarter held out", ("dsts.dispatch=sparse", "udl.held_out_ratio=0.25"), 1.30
    ),
    _Variant("dense, equal held-out batch", ("dsts.dispatch=dense",), None),
    _Variant(
        "sparse, features of the previous iteration",
        ("dsts.dispatch=sparse", "udl.held_out=previous_features"),
        None,
    ),
)


def train_overhead(setting: Setting) -> list[Row]:
    """An optimizer step of backbone, DSTS and UDL over one of the backbone alone."""
    plain = setting.config("dsts.enabled=false")
    plain_step = build_step(plain, setting.model(plain), torch_engine)
    train = setting.batch(plain, 0)
    rows = []
    for variant in (one for one in _TRAINING if setting.only in one.name):
        config = setting.config(*variant.overrides)
        step = build_step(config, setting.model(config), torch_engine)
        num_held_out = math.ceil(setting.batch_size * config.udl.held_out_ratio)
        held_out = setting.batch(config, 1, num_held_out)
        comparison = compare(
            Way("backbone, DSTS, UDL", lambda s=step, h=held_out: _run(s, train, [h])),
            Way("backbone alone", lambda: _run(plain_step, train, [])),
            device=setting.device,
            repeats=setting.repeats,
        )
        ratio = comparison.time_ratio
        rows.append(
            Row(
                "train_overhead",
                variant.name,
                setting.device_name,
                setting.shapes(config),
                comparison,
                ratio,
                "" if variant.bound is None else f"at most {variant.bound:.2f}",
                None if variant.bound is None else ratio <= variant.bound,
                _shares(step, train, held_out),
            )
        )
    return rows


def inference_overhead(setting: Setting) -> list[Row]:
    """A test-time pass of backbone and DSTS over one of the backbone alone."""
    config, plain = setting.config(), setting.config("dsts.enabled=false")
    clips = setting.batch(config, 0).clips
    whole, backbone = (setting.model(c).eval() for c in (config, plain))

    def passing(model: torch.nn.Module) -> list[torch.Tensor]:
        with torch.no_grad():
            model(clips)
        return []

    comparison = compare(
        Way("backbone and DSTS", lambda: passing(whole)),
        Way("backbone alone", lambda: passing(backbone)),
        device=setting.device,
        repeats=setting.repeats,
    )
    ratio = comparison.time_ratio
    return [
        Row(
            "inference_overhead",
            "sparse",
            setting.device_name,
            setting.shapes(config),
            comparison,
            ratio,
            "at most 1.10",
            ratio <= 1.10,
        )
    ]


def _run(step: TrainingStep, train: ClipBatch, held_out: list[ClipBatch]) -> list[torch.Tensor]:
    step(0, [train], held_out, lr=_LR, upstream_lr=_LR)
    return []


def _shares(step: TrainingStep, train: ClipBatch, held_out: ClipBatch) -> str:
    """Share of a step's time in each of its phases."""
    activities = [ProfilerActivity.CPU]
    if train.clips.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        _run(step, train, [held_out])
    events = {event.key: event for event in profiled.key_averages()}
    spent = {
        name: max(events[name].cpu_time_total, events[name].device_time_total)
        for name in _PHASES
        if name in events
    }
    total = sum(spent.values())
    return ", ".join(f"{name} {time / total:.0%}" for name, time in spent.items())
