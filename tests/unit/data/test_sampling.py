import doctest

import numpy as np
import pytest

from dsts_ray.data import sampling
from dsts_ray.data.sampling import Sampling, middle_frames, random_frames
from dsts_ray.errors import ConfigError, DataError

SAMPLINGS: tuple[Sampling, ...] = ("segments", "uniform")  # of the whole video


def test_worked_examples_of_the_module() -> None:
    results = doctest.testmod(sampling)
    assert results.attempted == 12
    assert results.failed == 0


@pytest.mark.parametrize(
    ("policy", "num_frames", "clip_length", "expected"),
    [
        ("segments", 8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("segments", 3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
        ("segments", 1, 3, [0, 0, 0]),
        ("uniform", 9, 1, [4]),
        # SlowFast's get_seq_frames(45 frames, 8) in test mode, by hand: rounded multiples of 5.5
        ("uniform", 45, 8, [3, 8, 13, 19, 25, 30, 35, 41]),
        ("uniform", 1, 3, [0, 0, 0]),
    ],
)
def test_middle_frames_of_one_clip(
    policy: Sampling, num_frames: int, clip_length: int, expected: list[int]
) -> None:
    frames = middle_frames(num_frames, clip_length=clip_length, sampling=policy)
    assert frames.tolist() == [expected]
    assert frames.dtype == np.int64


def test_tpn_takes_sixteen_segments_and_deals_them_even_and_odd() -> None:
    sixteen = middle_frames(64, clip_length=16, sampling="segments")[0]
    even, odd = middle_frames(64, clip_length=8, num_clips=2, sampling="segments")
    assert even.tolist() == sixteen[::2].tolist() == [2, 10, 18, 26, 34, 42, 50, 58]
    assert odd.tolist() == sixteen[1::2].tolist() == [6, 14, 22, 30, 38, 46, 54, 62]


@pytest.mark.parametrize("policy", SAMPLINGS)
def test_any_length_gives_sorted_clips_in_range(policy: Sampling) -> None:
    rng = np.random.default_rng(0)
    for num_frames in range(1, 41):
        for clip_length in (1, 2, 3, 8, 16, 32):
            drawn = random_frames(num_frames, clip_length=clip_length, sampling=policy, rng=rng)
            clips = middle_frames(num_frames, clip_length=clip_length, num_clips=3, sampling=policy)
            assert clips.shape == (3, clip_length)
            assert (np.diff(clips.T.flatten()) >= 0).all()
            for frames in (drawn, *clips):
                assert frames.shape == (clip_length,)
                assert (np.diff(frames) >= 0).all()
                assert frames[0] >= 0
                assert frames[-1] < num_frames


@pytest.mark.parametrize("policy", SAMPLINGS)
def test_the_clips_of_a_long_enough_video_differ_everywhere(policy: Sampling) -> None:
    clips = middle_frames(100, clip_length=8, num_clips=10, sampling=policy)
    assert len(set(clips.flatten().tolist())) == 80


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("segments", [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]),
        ("uniform", [[0, 1, 2], [2, 3, 4], [4, 5, 6, 7], [7, 8, 9]]),
    ],
)
def test_random_frames_reach_every_frame_of_their_part(
    policy: Sampling, expected: list[list[int]]
) -> None:
    rng = np.random.default_rng(0)
    draws = np.stack(
        [random_frames(10, clip_length=4, sampling=policy, rng=rng) for _ in range(300)]
    )
    assert [sorted(set(column)) for column in draws.T.tolist()] == expected


def test_the_same_seed_draws_the_same_clip() -> None:
    clips = [
        random_frames(99, clip_length=8, sampling="segments", rng=np.random.default_rng([3, 1]))
        for _ in range(2)
    ]
    assert np.array_equal(clips[0], clips[1])


def test_bad_requests_are_named() -> None:
    with pytest.raises(DataError, match="0 frames"):
        middle_frames(0, clip_length=8, sampling="uniform")
    with pytest.raises(ConfigError, match="a clip of 0 frames"):
        middle_frames(9, clip_length=0, sampling="uniform")
    with pytest.raises(ConfigError, match=r"'sparse'.*segments, uniform, dense"):
        middle_frames(9, clip_length=8, sampling="sparse")  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match="0 frames"):
        middle_frames(0, clip_length=8, sampling="dense")
    with pytest.raises(ConfigError, match="a clip of 0 frames"):
        middle_frames(9, clip_length=8, num_clips=0, sampling="dense")
    with pytest.raises(ConfigError, match="a stride of 0 frames"):
        random_frames(9, clip_length=8, sampling="dense", stride=0, rng=np.random.default_rng(0))


def test_dense_clips_keep_their_pace_and_stay_within_the_video() -> None:
    rng = np.random.default_rng(0)
    for num_frames in range(1, 60):
        for clip_length, stride in ((1, 1), (2, 7), (8, 1), (8, 4), (5, 3)):
            options = {"clip_length": clip_length, "stride": stride}
            drawn = random_frames(num_frames, sampling="dense", rng=rng, **options)
            clips = middle_frames(num_frames, num_clips=3, sampling="dense", **options)
            for frames in (drawn, *clips):
                assert frames.shape == (clip_length,)
                pace = stride * np.arange(clip_length)
                assert frames.tolist() == np.minimum(frames[0] + pace, num_frames - 1).tolist()
                assert frames[0] == 0 or frames[-1] == frames[0] + pace[-1] < num_frames


def test_dense_clips_begin_everywhere_they_can() -> None:
    rng = np.random.default_rng(0)
    options = {"clip_length": 3, "sampling": "dense", "stride": 2}
    starts = {int(random_frames(10, rng=rng, **options)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4, 5}


def test_dense_test_clips_are_those_of_kinetics_recipes() -> None:
    """8x8 of 300 frames in 10 clips, which can begin at 244 frames: every 24.4th from 12.2 on."""
    clips = middle_frames(300, clip_length=8, num_clips=10, sampling="dense", stride=8)
    assert clips[:, 0].tolist() == [12, 36, 61, 85, 109, 134, 158, 183, 207, 231]
