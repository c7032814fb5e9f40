"""How fast clips come: the stream against the bare decoder and against a torch DataLoader.

All ways deal with the same files of the demo's writers. The stream and the DataLoader make clips,
uint8 of 8 x 224 x 224 x 3, the DataLoader out of frames whose short side is 256 pixels, the stream
out of frames of at most that; the bare decoder makes the stream's frames and nothing of them. A
rate is taken between two moments in mid-stream, when all processes are busy, so neither their start
nor what they hold ready counts.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import NamedTuple

import decord
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from dsts_ray.bench.compare import Comparison, Measured
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.rows import Row
from dsts_ray.bench.stages import stages_of
from dsts_ray.bench.videos import KINDS, Files, Kind, Video, find_files
from dsts_ray.data.clip import ClipSpec
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.geometry import multi_scale_crop
from dsts_ray.data.order import TrainingOrder
from dsts_ray.data.pipeline import batches, training_stream
from dsts_ray.data.sampling import random_frames

NUM_PROCESSES = 2
"""Decoders, DataLoader workers, bare loops: one a core."""

_BATCH_SIZE = 8
_MARGIN = 4
"""Batches at either end of a stream that no rate is taken from."""

SPEC = ClipSpec(
    num_frames=8, short_side=256, crop_size=224, crop="multi_scale", crop_sides=(0.875,)
)


class Way(NamedTuple):
    """Another way to the same clips, and its rate in clips per second."""

    what: str
    rate: Callable[[], float]


def data(setting: Setting) -> list[Row]:
    """The stream over other ways to the same clips, and the share of time that a step waits."""
    return [
        row
        for kind in KINDS
        if setting.only in kind.name
        for row in _rows(kind, find_files(kind, setting), setting)
    ]


def _rows(kind: Kind, files: Files, setting: Setting) -> list[Row]:
    num_batches = max(4 * _MARGIN, round(kind.num_batches * setting.scale))

    def ours() -> float:
        return _rate(_stream(files.manifest, len(files.videos), num_batches))

    def packed() -> float:
        return _rate(_stream(files.packed, len(files.videos), num_batches))

    return [
        _compared(
            f"{kind.name}, stream / bare decoder",
            files,
            ours,
            Way("a bare loop of decord", lambda: _bare_rate(files, num_batches)),
            repeats=setting.repeats,
            bound=0.85,
            note=_stages(files, num_batches),
        ),
        _compared(
            f"{kind.name}, stream / DataLoader",
            files,
            ours,
            Way("a torch DataLoader", lambda: _rate(_loader(files, num_batches))),
            repeats=setting.repeats,
            bound=kind.bound,
        ),
        _compared(
            f"{kind.name}, packed / indexed",
            files,
            packed,
            Way("the stream from single files", ours),
            repeats=setting.repeats,
            bound=1.0,
        ),
        _waiting(kind, files, num_batches),
    ]


def _stream(manifest: Path, num_clips: int, num_batches: int) -> Iterator[Tensor]:
    dataset = training_stream(
        manifest=str(manifest),
        split="train",
        spec=SPEC,
        order=TrainingOrder(num_clips=num_clips, batch_size=_BATCH_SIZE),
        first_batch=0,
        num_batches=num_batches,
        decoders=DecoderPool(num_decoders=NUM_PROCESSES, cpus=0.75, timeout_s=60.0),
    )
    (shard,) = dataset.streaming_split(1, equal=True)
    for rows in batches(shard, batch_size=_BATCH_SIZE, prefetch_blocks=2):
        yield torch.from_numpy(rows["clip"].copy())


class _Clips(Dataset[Tensor]):
    """The usual pipeline: decode, resize the short side, crop, to a tensor."""

    def __init__(self, videos: Sequence[Video], num_clips: int) -> None:
        self.videos, self.num_clips = videos, num_clips
        self.transform = v2.Compose(
            [v2.Resize(SPEC.short_side, antialias=True), v2.RandomCrop(SPEC.crop_size)]
        )

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> Tensor:
        epoch, index = divmod(index, len(self.videos))
        reader = decord.VideoReader(self.videos[index].path, num_threads=1)
        frames = _get_frames(reader, epoch, index)
        return self.transform(torch.from_numpy(frames).permute(0, 3, 1, 2))


def _loader(files: Files, num_batches: int) -> Iterable[Tensor]:
    return DataLoader(
        _Clips(files.videos, num_batches * _BATCH_SIZE),
        batch_size=_BATCH_SIZE,
        num_workers=NUM_PROCESSES,
        multiprocessing_context="spawn",
    )


def _bare_rate(files: Files, num_batches: int) -> float:
    """Clips per second of as many processes that decode as many clips and do nothing else."""
    num_epochs = -(-num_batches * _BATCH_SIZE // (NUM_PROCESSES * len(files.videos)))
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(NUM_PROCESSES, context) as pool:
        work = (_decode_all, files.videos, num_epochs, manager.Barrier(NUM_PROCESSES))
        tasks = [pool.submit(*work) for _ in range(NUM_PROCESSES)]
        return sum(num_epochs * len(files.videos) / task.result() for task in tasks)


def _decode_all(videos: Sequence[Video], num_epochs: int, others: Barrier) -> float:
    """Seconds of some epochs, begun by all processes at once, after one more."""
    _decode_epoch(videos, 0)
    others.wait()
    started = time.perf_counter()
    for epoch in range(num_epochs):
        _decode_epoch(videos, epoch)
    return time.perf_counter() - started


def _decode_epoch(videos: Sequence[Video], epoch: int) -> None:
    for index, video in enumerate(videos):
        _get_frames(_open(video), epoch, index)


def _open(video: Video) -> decord.VideoReader:
    """Open a video for frames of the stream's size."""
    scale = min(1.0, SPEC.short_side / min(video.width, video.height))
    width, height = (2 * round(side * scale / 2) for side in (video.width, video.height))
    return decord.VideoReader(video.path, width=width, height=height, num_threads=1)


def _get_frames(reader: decord.VideoReader, epoch: int, index: int) -> np.ndarray:
    """Decode the frames that the stream takes of this clip in an epoch."""
    rng = np.random.default_rng([SPEC.seed, epoch, index])
    indices = random_frames(
        len(reader), clip_length=SPEC.num_frames, sampling=SPEC.sampling, rng=rng
    )
    return reader.get_batch(indices).asnumpy()


def _rate(clips: Iterable[Tensor]) -> float:
    """Clips per second in mid-stream."""
    arrivals = [time.perf_counter() for _ in clips]
    inner = arrivals[_MARGIN:-_MARGIN]
    return (len(inner) - 1) * _BATCH_SIZE / (inner[-1] - inner[0])


def _waiting(kind: Kind, files: Files, num_batches: int) -> Row:
    """Share of a step's time spent waiting, where a step takes 1.5 times as long as decoding."""
    rate = _rate(_stream(files.manifest, len(files.videos), num_batches))
    step_s = 1.5 * _BATCH_SIZE / rate
    waits: list[float] = []
    stream = iter(_stream(files.manifest, len(files.videos), num_batches))
    while True:
        started = time.perf_counter()
        if next(stream, None) is None:
            break
        waits.append(time.perf_counter() - started)
        time.sleep(step_s)
    waits = waits[_MARGIN:]
    share = statistics.mean(waits) / (statistics.mean(waits) + step_s)
    comparison = Comparison(
        _measured("waiting for a batch", waits), _measured("a step", [step_s]), None
    )
    return Row(
        "data",
        f"{kind.name}, waiting / step and waiting",
        "cpu",
        files.description,
        comparison,
        share,
        "under 0.05",
        share < 0.05,
    )


def _compared(
    variant: str,
    files: Files,
    ours: Callable[[], float],
    other: Way,
    *,
    repeats: int,
    bound: float,
    note: str = "",
) -> Row:
    """Clips per second of the stream over those of another way, measured in turn."""
    rates = [(ours(), other.rate()) for _ in range(repeats)]
    times = [[1 / rate for rate in one] for one in zip(*rates, strict=True)]
    comparison = Comparison(
        _measured("a clip of the stream", times[0]),
        _measured(f"a clip of {other.what}", times[1]),
        None,
    )
    ratio = 1 / comparison.time_ratio
    return Row(
        "data",
        variant,
        "cpu",
        files.description,
        comparison,
        ratio,
        f"at least {bound:.2f}",
        ratio >= bound,
        note,
    )


def _measured(what: str, seconds: Sequence[float]) -> Measured:
    return Measured(what, statistics.median(seconds), min(seconds), max(seconds), 0)


def _stages(files: Files, num_batches: int) -> str:
    """CPU time of a clip by stage: of decoding in a process of its own, of the rest in a stream."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        decoding = pool.submit(_decoding_stages, files.videos).result()
    stream = _stream(files.manifest, len(files.videos), num_batches)
    return stages_of(
        stream,
        num_batches=num_batches,
        clips_each=_BATCH_SIZE,
        margin=_MARGIN,
        decoding=decoding,
    )


def _decoding_stages(videos: Sequence[Video]) -> dict[str, float]:
    """CPU seconds of a clip by stage, on one thread as in a decoder, after an epoch to warm up."""
    torch.set_num_threads(1)
    _decode_epoch(videos, 0)
    spent: dict[str, float] = dict.fromkeys(("open", "decode and resize", "crop"), 0.0)
    for index, video in enumerate(videos):
        rng = np.random.default_rng([SPEC.seed, 1, index])
        moments = [time.process_time()]
        reader = _open(video)
        moments.append(time.process_time())
        frames = _get_frames(reader, 1, index)
        moments.append(time.process_time())
        multi_scale_crop(frames, size=SPEC.crop_size, sides=SPEC.crop_sides, rng=rng)
        moments.append(time.process_time())
        for stage, (begun, ended) in zip(spent, pairwise(moments), strict=True):
            spent[stage] += (ended - begun) / len(videos)
    return spent
