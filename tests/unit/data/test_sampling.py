import numpy as np
import pytest

from dsts_ray.data.sampling import SamplingPolicy, sample_frames
from dsts_ray.errors import ConfigError, DataError

POLICIES: tuple[SamplingPolicy, ...] = ("segments_random", "segments_middle", "uniform")


@pytest.mark.parametrize(
    ("policy", "num_frames", "clip_length", "expected"),
    [
        ("segments_middle", 10, 4, [1, 3, 6, 8]),
        ("segments_middle", 8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("segments_middle", 3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
        ("segments_middle", 1, 3, [0, 0, 0]),
        ("uniform", 10, 4, [0, 3, 6, 9]),
        ("uniform", 3, 8, [0, 0, 0, 0, 1, 1, 1, 2]),
        ("uniform", 9, 1, [4]),
        ("segments_random", 4, 4, [0, 1, 2, 3]),
        ("segments_random", 2, 4, [0, 0, 1, 1]),
    ],
)
def test_worked_examples(
    policy: SamplingPolicy, num_frames: int, clip_length: int, expected: list[int]
) -> None:
    rng = np.random.default_rng(0)
    frames = sample_frames(num_frames, clip_length=clip_length, policy=policy, rng=rng)
    assert frames.tolist() == expected
    assert frames.dtype == np.int64


@pytest.mark.parametrize("policy", POLICIES)
def test_any_length_gives_a_sorted_clip_in_range(policy: SamplingPolicy) -> None:
    rng = np.random.default_rng(0)
    for num_frames in range(1, 41):
        for clip_length in (1, 2, 3, 8, 16, 32):
            frames = sample_frames(num_frames, clip_length=clip_length, policy=policy, rng=rng)
            assert frames.shape == (clip_length,)
            assert (np.diff(frames) >= 0).all()
            assert frames[0] >= 0
            assert frames[-1] < num_frames


def test_random_segments_reach_every_frame_and_stay_in_their_segment() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack(
        [sample_frames(10, clip_length=4, policy="segments_random", rng=rng) for _ in range(300)]
    )
    assert [sorted(set(column)) for column in draws.T.tolist()] == [
        [0, 1],
        [2, 3, 4],
        [5, 6],
        [7, 8, 9],
    ]


def test_the_same_seed_draws_the_same_clip() -> None:
    clips = [
        sample_frames(
            99, clip_length=8, policy="segments_random", rng=np.random.default_rng([3, 1])
        )
        for _ in range(2)
    ]
    assert np.array_equal(clips[0], clips[1])


def test_bad_requests_are_named() -> None:
    with pytest.raises(DataError, match="0 frames"):
        sample_frames(0, clip_length=8, policy="uniform")
    with pytest.raises(ConfigError, match="clip length is 0"):
        sample_frames(9, clip_length=0, policy="uniform")
    with pytest.raises(ConfigError, match="needs a random generator"):
        sample_frames(9, clip_length=8, policy="segments_random")
    with pytest.raises(ConfigError, match=r"'dense'.*segments_random, segments_middle, uniform"):
        sample_frames(9, clip_length=8, policy="dense")  # pyright: ignore[reportArgumentType]
