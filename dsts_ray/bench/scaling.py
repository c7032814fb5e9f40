"""Throughput of whole runs on one and on two workers, and where their time goes.

A run is what ``jobs/train.py`` starts, with a local cluster, decoders, checkpoints and a store of
MLflow of its own. The share of collectives is measured apart, by torch's profiler around steps of
the same configuration on noise: what a worker waits there for a slower one counts as well.
"""

import os
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from rich.console import Console
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.profiler import ProfilerActivity, profile

from dsts_ray.bench.compare import Comparison, Measured
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.rows import Row
from dsts_ray.build import build_step
from dsts_ray.launch.trainer import train

_RUN = (
    "train.num_epochs=2",
    "train.evaluate_every_epochs=2",
    "train.checkpoint_every_steps=20",
    "tracking.model_name=",
    "tracking.figures_every=0",
)
_NUM_WARM_UPS, _NUM_STEPS = 2, 5
_LR = 1e-6  # moves nothing far


class _Run(NamedTuple):
    """Seconds a clip, and shares of the training time."""

    clip_s: float
    data_wait: float
    checkpoint: float


def scaling(setting: Setting) -> list[Row]:
    """Clips per second of two workers over twice those of one."""
    runs: dict[int, list[_Run]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat, number in product(range(setting.repeats), runs):
            runs[number].append(_run(setting, number, f"{folder}/runs", repeat))
        notes = [
            f"{number} worker{'s' * (number > 1)}: collectives "
            f"{_collectives(setting, number, Path(folder)):.1%} of a step, waiting for data "
            f"{median(run.data_wait for run in found):.1%}, checkpoints "
            f"{median(run.checkpoint for run in found):.1%}"
            for number, found in runs.items()
        ]
    one, two = (_measured(number, found) for number, found in runs.items())
    return [
        Row(
            "scaling",
            "2 workers, clips per second over twice those of 1",
            setting.device_name,
            f"{setting.preset}, {setting.shapes(setting.config())}",
            Comparison(one, two, None),
            one.median_s / two.median_s / 2,
            note="\n".join(notes),
        )
    ]


def _run(setting: Setting, num_workers: int, storage: str, repeat: int) -> _Run:
    config = setting.config(
        *_RUN,
        f"name=workers-{num_workers}-{repeat}",
        f"storage.path={storage}",
        f"scaling.num_workers={num_workers}",
        f"scaling.use_gpu={setting.device.type == 'cuda'}",
    )
    summary = train(config, Console(quiet=True)).summary
    return _Run(1 / summary["clips_per_s"], summary["data_wait_ratio"], summary["checkpoint_ratio"])


def _measured(num_workers: int, runs: list[_Run]) -> Measured:
    seconds = [run.clip_s for run in runs]
    what = f"seconds a clip, {num_workers} worker{'s' * (num_workers > 1)}"
    return Measured(what, median(seconds), min(seconds), max(seconds), 0)


def _collectives(setting: Setting, num_workers: int, folder: Path) -> float:
    """Share of a step that rank 0 spends in collectives."""
    shares = folder / f"collectives-{num_workers}"
    spawn(partial(_profile, setting, num_workers, str(shares)), nprocs=num_workers)
    return float(shares.read_text())


def _profile(setting: Setting, num_workers: int, shares: str, rank: int) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # DeepSpeed asks for it
    on_gpu = setting.device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{shares}-store",
        rank=rank,
        world_size=num_workers,
    )
    config = setting.config(f"scaling.num_workers={num_workers}")
    step = build_step(config, setting.model(config))
    size = config.train.batch_size // num_workers
    batches = [setting.batch(config, 2 * rank + number, size) for number in range(2)]

    def run(index: int) -> None:
        step(index, batches[:1], batches[1:], lr=_LR, upstream_lr=_LR)

    for index in range(_NUM_WARM_UPS):
        run(index)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        for index in range(_NUM_STEPS):
            run(_NUM_WARM_UPS + index)
    if rank == 0:
        Path(shares).write_text(str(_share_of_collectives(profiled)))
    dist.barrier()
    dist.destroy_process_group()


def _share_of_collectives(profiled: profile) -> float:
    ranges = [(event.name, event.time_range) for event in profiled.events() or ()]
    whole = max(r.end for _, r in ranges) - min(r.start for _, r in ranges)
    inside = (r.elapsed_us() for name, r in ranges if name.startswith(("gloo:", "nccl:")))
    return sum(inside) / whole
