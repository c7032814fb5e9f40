"""Which frames of a video make a clip: integer arithmetic on frame counts, no pixels."""

from typing import Literal, get_args

import numpy as np

from dsts_ray.errors import ConfigError, DataError

SamplingPolicy = Literal["segments_random", "segments_middle", "uniform"]


def sample_frames(
    num_frames: int,
    *,
    clip_length: int,
    policy: SamplingPolicy,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Choose the frames of one clip.

    With n frames and a clip of T, segment i is the half-open range [i*n // T, (i+1)*n // T):

    - ``segments_random`` (TSN in training) draws one frame uniformly from each segment;
    - ``segments_middle`` (TSN in test) takes the middle, (2*i + 1)*n // (2*T);
    - ``uniform`` spreads the clip from the first to the last frame, i*(n - 1) // (T - 1), and takes
      the middle frame (n - 1) // 2 when T is 1.

    A video shorter than the clip has empty segments: its frames repeat, in order and evenly.

    Worked examples:
        n = 10, T = 4: the segments are 0-1, 2-4, 5-6, 7-9.

        >>> sample_frames(10, clip_length=4, policy="segments_middle")
        array([1, 3, 6, 8])
        >>> sample_frames(10, clip_length=4, policy="uniform")
        array([0, 3, 6, 9])
        >>> sample_frames(10, clip_length=4, policy="segments_random",
        ...               rng=np.random.default_rng(0))
        array([1, 3, 6, 7])

        n = 3, T = 8: fewer frames than the clip.

        >>> sample_frames(3, clip_length=8, policy="segments_middle")
        array([0, 0, 0, 1, 1, 2, 2, 2])
        >>> sample_frames(3, clip_length=8, policy="uniform")
        array([0, 0, 0, 0, 1, 1, 1, 2])

    Args:
        num_frames: Frames the video has, 1 or more.
        clip_length: Frames the clip gets, 1 or more.
        policy: One of the three above.
        rng: Source of the draws; ``segments_random`` takes exactly ``clip_length`` of them.

    Returns:
        Frame indices, int64 [clip_length], ascending, each in [0, num_frames).

    Raises:
        ConfigError: Unknown policy, a clip length below 1, or ``segments_random`` without ``rng``.
        DataError: The video has no frame.
    """
    if clip_length < 1:
        raise ConfigError(f"clip length is {clip_length}, must be 1 or more")
    if num_frames < 1:
        raise DataError(f"cannot sample a clip from {num_frames} frames: a video needs at least 1")
    index = np.arange(clip_length, dtype=np.int64)
    match policy:
        case "segments_random":
            if rng is None:
                raise ConfigError("sampling policy 'segments_random' needs a random generator")
            start = index * num_frames // clip_length
            length = np.maximum((index + 1) * num_frames // clip_length - start, 1)
            return start + rng.integers(length)
        case "segments_middle":
            return (2 * index + 1) * num_frames // (2 * clip_length)
        case "uniform":
            if clip_length == 1:
                return (index + num_frames - 1) // 2
            return index * (num_frames - 1) // (clip_length - 1)
        case _:
            allowed = ", ".join(get_args(SamplingPolicy))
            raise ConfigError(f"unknown sampling policy {policy!r}: choose one of {allowed}")
