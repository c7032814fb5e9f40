"""Which frames of a video make a clip: integer arithmetic on frame counts, no pixels.

A video of n frames is sampled in one of three ways, ``sampling``. Two divide the whole of it:

- ``segments`` (TSN, TSM, TPN): segment i of T is the half-open range [i*n // T, (i+1)*n // T). In
  training one frame is drawn uniformly from each; a test takes the middle, (2*i + 1)*n // (2*T).
- ``uniform`` (Swin and SlowFast on Something-Something): T + 1 frames b_i = round(i*(n - 1) / T)
  are spread from the first to the last. In training one frame is drawn uniformly from each closed
  range [b_i, b_(i+1)]; a test takes its middle, (b_i + b_(i+1)) // 2.

A test with C clips then takes the middle frames of C*T segments and deals them out in turn: clip c
has the frames c, c + C, c + 2*C, ... of these. For C = 2 these are TPN's even and odd ones of 16
segments; for C = 1 it is the clip above. No two clips are the same but where the video is too
short to tell them apart: with fewer frames than C*T, frames repeat, in order and evenly.

The third takes a stretch of it at a constant pace:

- ``dense`` (Kinetics recipes, "frames x stride"): frames s, s + stride, s + 2*stride, ... span
  L = (T - 1)*stride + 1. There are n - L + 1 places for s. In training s is drawn uniformly from
  these; in a test the places are divided into C equal parts, and clip c begins in the middle of
  its own, s = (2*c + 1)*(n - L + 1) // (2*C). In a video shorter than the span, s is 0 and the
  last frame is repeated.

Worked examples:
    n = 10, T = 4: the segments are 0-1, 2-4, 5-6, 7-9.

    >>> middle_frames(10, clip_length=4, sampling="segments").tolist()
    [[1, 3, 6, 8]]
    >>> random_frames(10, clip_length=4, sampling="segments", rng=np.random.default_rng(0)).tolist()
    [1, 3, 6, 7]

    The spread frames are 0, 2, 4, 7, 9 (2.25, 4.5, 6.75 rounded, halves to the even number).

    >>> middle_frames(10, clip_length=4, sampling="uniform").tolist()
    [[1, 3, 5, 8]]
    >>> random_frames(10, clip_length=4, sampling="uniform", rng=np.random.default_rng(0)).tolist()
    [2, 3, 6, 7]

    Two clips of 4 from 16 frames, and of 4 from 3 frames, fewer than one clip has.

    >>> middle_frames(16, clip_length=4, num_clips=2, sampling="segments").tolist()
    [[1, 5, 9, 13], [3, 7, 11, 15]]
    >>> middle_frames(3, clip_length=4, num_clips=2, sampling="segments").tolist()
    [[0, 0, 1, 2], [0, 1, 2, 2]]
    >>> middle_frames(3, clip_length=8, sampling="uniform").tolist()
    [[0, 0, 0, 1, 1, 1, 2, 2]]

    A dense clip 3x2 spans 5 frames; in a video of 10 it begins at one of 0 to 5. Three clips begin
    in the middles of 0-1, 2-3 and 4-5; a video of 4 frames is shorter than the clip.

    >>> middle_frames(10, clip_length=3, sampling="dense", stride=2).tolist()
    [[3, 5, 7]]
    >>> middle_frames(10, clip_length=3, num_clips=3, sampling="dense", stride=2).tolist()
    [[1, 3, 5], [3, 5, 7], [5, 7, 9]]
    >>> rng = np.random.default_rng(0)
    >>> random_frames(10, clip_length=3, sampling="dense", stride=2, rng=rng).tolist()
    [5, 7, 9]
    >>> middle_frames(4, clip_length=3, sampling="dense", stride=2).tolist()
    [[0, 2, 3]]
"""

from typing import Literal, get_args

import numpy as np

from dsts_ray.errors import ConfigError, DataError

Sampling = Literal["segments", "uniform", "dense"]


def random_frames(
    num_frames: int,
    *,
    clip_length: int,
    sampling: Sampling,
    stride: int = 1,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the frames of a training clip: one from each part of the video, or a random stretch.

    Args:
        num_frames: Frames the video has, 1 or more.
        clip_length: Frames the clip gets, 1 or more.
        sampling: How the video is sampled.
        stride: ``dense``: frames from one of the clip to the next, 1 or more.
        rng: Source of exactly ``clip_length`` draws, of one for ``dense``.

    Returns:
        Frame indices, int64 [clip_length], ascending, each in [0, num_frames).

    Raises:
        ConfigError: Unknown sampling, or a clip length or stride below 1.
        DataError: The video has no frame.
    """
    if sampling == "dense":
        start = rng.integers(_num_starts(num_frames, clip_length, stride))
        return _stretch(start, num_frames, clip_length, stride)
    first, last = _parts(num_frames, clip_length, sampling)
    return first + rng.integers(last - first + 1)


def middle_frames(
    num_frames: int, *, clip_length: int, num_clips: int = 1, sampling: Sampling, stride: int = 1
) -> np.ndarray:
    """Choose the frames of a video's test clips, always the same.

    Args:
        num_frames: Frames the video has, 1 or more.
        clip_length: Frames a clip gets, 1 or more.
        num_clips: Clips, 1 or more.
        sampling: How the video is sampled.
        stride: ``dense``: frames from one of the clip to the next, 1 or more.

    Returns:
        Frame indices, int64 [num_clips, clip_length], each row ascending, each index in
        [0, num_frames).

    Raises:
        ConfigError: Unknown sampling, or a clip length, stride or number of clips below 1.
        DataError: The video has no frame.
    """
    num_parts = num_clips * clip_length
    if sampling == "dense":
        num_starts = _num_starts(num_frames, num_parts and clip_length, stride)
        starts = (2 * np.arange(num_clips) + 1) * num_starts // (2 * num_clips)
        return _stretch(starts[:, None], num_frames, clip_length, stride)
    first, last = _parts(num_frames, num_parts, sampling)
    middle = (first + last) // 2
    if sampling == "segments":  # TSN rounds the other way
        middle = (2 * np.arange(num_parts) + 1) * num_frames // (2 * num_parts)
    return middle.reshape(clip_length, num_clips).T


def _num_starts(num_frames: int, clip_length: int, stride: int) -> int:
    """Places where a dense clip can begin; 1 where the video is shorter."""
    _check_counts(num_frames, clip_length)
    if stride < 1:
        raise ConfigError(f"a stride of {stride} frames: it must be 1 or more")
    return max(num_frames - (clip_length - 1) * stride, 1)


def _stretch(
    start: np.ndarray | np.int64, num_frames: int, clip_length: int, stride: int
) -> np.ndarray:
    return np.minimum(start + stride * np.arange(clip_length), num_frames - 1)


def _check_counts(num_frames: int, num_parts: int) -> None:
    if num_parts < 1:
        raise ConfigError(
            f"a clip of {num_parts} frames: clip length and number of clips must be 1 or more"
        )
    if num_frames < 1:
        raise DataError(f"cannot sample a clip from {num_frames} frames: a video needs at least 1")


def _parts(num_frames: int, num_parts: int, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame of every part of the video."""
    _check_counts(num_frames, num_parts)
    if sampling == "segments":
        bounds = np.arange(num_parts + 1, dtype=np.int64) * num_frames // num_parts
        return bounds[:-1], np.maximum(bounds[1:] - 1, bounds[:-1])
    if sampling == "uniform":
        bounds = np.rint((num_frames - 1) / num_parts * np.arange(num_parts + 1)).astype(np.int64)
        return bounds[:-1], bounds[1:]
    allowed = ", ".join(get_args(Sampling))
    raise ConfigError(f"unknown sampling {sampling!r}: choose one of {allowed}")
