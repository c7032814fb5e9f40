"""Two ways of doing the same work, timed in turn in one process."""

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

_SELF = Path("/proc/self")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names in malloc.h


class Way(NamedTuple):
    """One of the two ways.

    Attributes:
        what: In words.
        run: Does the work once; returns the tensors that the two ways must agree on.
    """

    what: str
    run: Callable[[], Sequence[Tensor]]


class Measured(NamedTuple):
    """Time and memory of one way.

    Attributes:
        what: In words.
        median_s: Median of the repeats, seconds.
        min_s: Fastest.
        max_s: Slowest.
        peak_bytes: Largest memory of one repeat above what was held before it.
    """

    what: str
    median_s: float
    min_s: float
    max_s: float
    peak_bytes: int


class Comparison(NamedTuple):
    """What ``compare`` found; ``max_rel_error`` is None where nothing is compared."""

    a: Measured
    b: Measured
    max_rel_error: float | None

    @property
    def time_ratio(self) -> float:
        """Median time of a over that of b."""
        return self.a.median_s / self.b.median_s

    @property
    def memory_ratio(self) -> float:
        """Peak memory of a over that of b."""
        return self.a.peak_bytes / max(1, self.b.peak_bytes)


def compare(a: Way, b: Way, *, device: torch.device, repeats: int) -> Comparison:
    """Run both ways in turn, ``repeats`` times after warm-ups that are not counted.

    Memory is measured first: it gives freed memory back, which the next run takes page by page.

    Args:
        a: The way the ratio's numerator comes from.
        b: The way it is divided by.
        device: Where the ways compute; CUDA is timed by events.
        repeats: Timed runs of each way, 1 or more.
    """
    ways = (a, b)
    error = _max_rel_error(*(way.run() for way in ways))
    peaks = [_peak_bytes(way.run, device) for way in ways]
    for way in ways:
        way.run()
    times: list[list[float]] = [[], []]
    for _ in range(repeats):
        for seconds, way in zip(times, ways, strict=True):
            seconds.append(_seconds(way.run, device))
    measured = [
        Measured(way.what, statistics.median(seconds), min(seconds), max(seconds), peak)
        for way, seconds, peak in zip(ways, times, peaks, strict=True)
    ]
    return Comparison(measured[0], measured[1], error)


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks, as a GPU's allocator does, instead of returning them.

    Otherwise either way spends most of its time on page faults, one for each 4 KiB of a new tensor.
    Before torch makes its first tensor, large ones get pages of 2 MiB, too, where Linux has them.
    """
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Memory of one run: of the CUDA allocator, or of the process where Linux can tell."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)
    (_SELF / "clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = (_SELF / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _max_rel_error(one: Sequence[Tensor], other: Sequence[Tensor]) -> float | None:
    """Largest difference over all tensors, each relative to its own largest value."""
    errors = [
        float((x.double() - y.double()).abs().max() / x.double().abs().max().clamp(min=1e-300))
        for x, y in zip(one, other, strict=True)
    ]
    return max(errors, default=None)
