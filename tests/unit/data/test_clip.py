from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsts_ray.data.clip import ClipSpec
from dsts_ray.errors import DataError
from tests.support.videos import read_index, write_video

SPEC = ClipSpec(num_frames=4, short_side=48, crop_size=32, crop_scale=(0.5, 1.0))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_video(tmp_path_factory.mktemp("videos") / "a.mp4", num_frames=16)
    return {"path": str(path), "start_frame": 0, "end_frame": None}


def test_test_clips_are_the_middle_frames_of_the_segments_and_always_the_same(
    video: dict[str, Any],
) -> None:
    clip = SPEC.test_clip(video)
    assert (clip.shape, clip.dtype) == (SPEC.shape, np.uint8)
    np.testing.assert_array_equal(clip, SPEC.test_clip(video))
    whole = ClipSpec(num_frames=4, short_side=48, crop_size=48).test_clip(
        {**video, "start_frame": 0}
    )
    assert len({frame.tobytes() for frame in whole}) == 4


def test_training_clips_are_named_by_seed_epoch_and_sample(video: dict[str, Any]) -> None:
    clip = SPEC.training_clip(video, epoch=1, sample_id=2)
    assert (clip.shape, clip.dtype) == (SPEC.shape, np.uint8)
    np.testing.assert_array_equal(clip, SPEC.training_clip(video, epoch=1, sample_id=2))
    other_seed = ClipSpec(num_frames=4, short_side=48, crop_size=32, crop_scale=(0.5, 1.0), seed=1)
    for other in (
        SPEC.training_clip(video, epoch=2, sample_id=2),
        SPEC.training_clip(video, epoch=1, sample_id=3),
        other_seed.training_clip(video, epoch=1, sample_id=2),
    ):
        assert not np.array_equal(clip, other)


def test_only_frames_of_the_span_are_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "b.mp4", num_frames=20, width=64, height=64)
    spec = ClipSpec(num_frames=3, short_side=64, crop_size=64)
    row = {"path": str(path), "start_frame": 6, "end_frame": 12}
    for clip in (spec.test_clip(row), spec.training_clip(row, epoch=0, sample_id=0)):
        indices = [read_index(frame) for frame in clip]
        assert indices == sorted(indices)
        assert all(6 <= index < 12 for index in indices)


def test_a_broken_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    row = {"path": str(path), "start_frame": 0, "end_frame": None}
    with pytest.raises(DataError, match=r"broken\.mp4"):
        SPEC.test_clip(row)
    with pytest.raises(DataError, match=r"broken\.mp4"):
        SPEC.training_clip(row, epoch=0, sample_id=0)
