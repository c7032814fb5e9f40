"""Where the CPU time of a streamed clip goes."""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

import psutil

_DECODER = "DecodingActor"


class Spent(NamedTuple):
    """CPU seconds of this process and all it has started, by what they do.

    Attributes:
        decoders: Of processes that decode.
        others: Of all others: Ray's own, and this one, which takes the clips.
    """

    decoders: float
    others: float


def spent() -> Spent:
    """Read the CPU seconds that have been spent so far; those of dead processes are left out."""
    seconds = {True: 0.0, False: 0.0}
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds[_DECODER in " ".join(process.cmdline())] += times.user + times.system
    return Spent(seconds[True], seconds[False])


def stages_of(
    clips: Iterable[object],
    *,
    num_batches: int,
    clips_each: int,
    margin: int,
    decoding: dict[str, float],
) -> str:
    """Say what shares of a streamed clip's CPU time go where.

    Args:
        clips: The stream, batch by batch.
        num_batches: Of the stream.
        clips_each: Clips in a batch.
        margin: Batches at either end that are not counted.
        decoding: CPU seconds that a clip takes by stage of decoding, measured apart.
    """
    ends = (margin, num_batches - margin - 1)
    first, last = [spent() for number, _ in enumerate(clips) if number in ends]
    num_clips = clips_each * (ends[1] - ends[0])
    decoders = (last.decoders - first.decoders) / num_clips
    stages = decoding | {
        "serialize": max(0.0, decoders - sum(decoding.values())),
        "transfer, and Ray itself": (last.others - first.others) / num_clips,
    }
    total = sum(stages.values())
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in stages.items())
    return f"{shares} of {1000 * total:.1f} ms of CPU a clip"
