"""What the driver needs until the first batch arrives, against the number of videos."""

import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from dsts_ray.bench.compare import Comparison, Measured
from dsts_ray.bench.data import SPEC
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.rows import Row
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.data.order import TrainingOrder
from dsts_ray.data.pipeline import batches, training_stream

_SIZES = (10**4, 10**5, 10**6, 10**7)
_BATCH_SIZE = 8
_NUM_EPOCHS = 150


def growth(setting: Setting) -> list[Row]:
    """Time to the first batch and the driver's memory, from 10^4 to 10^7 videos.

    The rows are synthetic and name no files, so that nothing is decoded. Every figure comes from a
    process with a local cluster of its own, after a first stream of few videos.
    """
    rows: list[Row] = []
    few = _manifest(setting, _BATCH_SIZE)
    for size in _SIZES:
        num_videos = round(size * setting.scale)
        path = _manifest(setting, num_videos)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            found = [pool.submit(_measure, few, path).result() for _ in range(setting.repeats)]
        seconds, peaks, columns = (list(values) for values in zip(*found, strict=True))
        measured = Measured(
            f"{num_videos} videos", median(seconds), min(seconds), max(seconds), max(peaks)
        )
        first = rows[0].comparison.a if rows else measured
        rows.append(
            Row(
                "growth",
                measured.what,
                "cpu",
                f"{_NUM_EPOCHS} epochs in batches of {_BATCH_SIZE}",
                Comparison(measured, first, None),
                measured.median_s / first.median_s,
                note=f"the manifest's columns are {columns[0] / 2**20:.0f} MiB in memory",
            )
        )
    return rows


def _measure(few: Path, path: Path) -> tuple[float, int, int]:
    """Seconds to the first batch, bytes of memory that took, bytes of the manifest's columns."""
    _read_first_batch(few)
    before = _peak_bytes()
    started = time.perf_counter()
    num_bytes = _read_first_batch(path)
    return time.perf_counter() - started, _peak_bytes() - before, num_bytes


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _manifest(setting: Setting, num_videos: int) -> Path:
    path = setting.folder / f"bench-growth-{num_videos}.parquet"
    if path.exists():
        return path
    numbers = pa.array(np.arange(num_videos)).cast(pa.string())
    constant = {
        "split": "train",
        "start_frame": 0,
        "end_frame": 45,
        "num_frames": 45,
        "fps": 12.0,
        "width": 320,
        "height": 240,
        "rotation": 0,
    }
    columns = {
        "video_id": numbers,
        "group": numbers,
        "label": pa.array(np.arange(num_videos) % 174),
        "path": numbers,
        **{name: pa.nulls(num_videos, SCHEMA.field(name).type) for name in ("shard", "row")},
        **{
            name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), num_videos)
            for name, value in constant.items()
        },
    }
    table = pa.table([columns[name] for name in SCHEMA.names], SCHEMA)
    Manifest(table, tuple(map(str, range(174)))).write(path)
    return path


def _read_first_batch(path: Path) -> int:
    """As a run does; returns the bytes of the manifest's columns."""
    table = Manifest.read(path).table
    dataset = training_stream(
        manifest=str(path),
        split="train",
        spec=SPEC,
        order=TrainingOrder(num_clips=len(table), batch_size=_BATCH_SIZE),
        first_batch=0,
        num_batches=len(table) * _NUM_EPOCHS // _BATCH_SIZE,
        decoders=DecoderPool(num_decoders=1, cpus=1.0, timeout_s=60.0),
    )
    (shard,) = dataset.streaming_split(1, equal=True)
    next(batches(shard, batch_size=_BATCH_SIZE, prefetch_blocks=1))
    return table.nbytes
