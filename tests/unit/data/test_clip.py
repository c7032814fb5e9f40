from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.decode import decode_clip
from dsts_ray.data.geometry import center_crop, enlarge
from dsts_ray.errors import DataError
from tests.support.videos import read_index, write_video

SPEC = ClipSpec(num_frames=4, short_side=48, crop_size=32, crop_scale=(0.5, 1.0))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_video(tmp_path_factory.mktemp("videos") / "a.mp4", num_frames=16)
    return {"path": str(path), "start_frame": 0, "end_frame": None}


def test_views_are_the_clips_in_turn_and_the_crops_of_each(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", num_frames=16, width=128, height=64)
    row = {"path": str(path), "start_frame": 0, "end_frame": None}
    whole = ViewSpec(num_clips=2, num_frames=4, short_side=64, crop_size=64)
    frames = decode_clip(str(path), lambda count: np.arange(count), short_side=64)
    spec = replace(whole, num_crops=3)
    views = spec.views(row)
    assert (views.shape, views.dtype) == (spec.shape, np.uint8)
    assert spec.shape == (6, 4, 64, 64, 3)
    for clip, chosen in enumerate(([1, 5, 9, 13], [3, 7, 11, 15])):
        for crop, left in enumerate((0, 32, 64)):
            expected = frames[chosen][:, :, left : left + 64]
            np.testing.assert_array_equal(views[3 * clip + crop], expected)
    np.testing.assert_array_equal(whole.views(row), views[[1, 4]])  # one crop is the centre


def test_a_small_video_is_viewed_as_large_as_others(video: dict[str, Any]) -> None:
    frames = decode_clip(video["path"], lambda _: np.arange(4), short_side=None)
    expected = center_crop(enlarge(frames, 96), size=64)
    spec = ViewSpec(num_frames=4, short_side=96, crop_size=64)
    (view,) = spec.views({**video, "end_frame": 4})
    np.testing.assert_array_equal(view, expected)
    assert frames.shape[1:3] == (48, 64)


def test_dense_views_overlap_and_stand_still_at_the_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=16, width=64, height=64)
    row = {"path": str(path), "start_frame": 0, "end_frame": None}
    spec = ViewSpec(
        num_clips=3, num_frames=4, short_side=64, crop_size=64, sampling="dense", frame_stride=4
    )
    views = [[read_index(frame) for frame in view] for view in spec.views(row)]
    assert views == [[0, 4, 8, 12], [2, 6, 10, 14], [3, 7, 11, 15]]
    short = spec.views({**row, "end_frame": 7})
    assert [[read_index(frame) for frame in view] for view in short] == [[0, 4, 6, 6]] * 3
    training = ClipSpec(
        num_frames=4, short_side=64, crop_size=64, sampling="dense", frame_stride=2
    ).training_clip(row, epoch=0, sample_id=0)
    indices = [read_index(frame) for frame in training]
    assert np.diff(indices).tolist() == [2, 2, 2]


def test_a_video_is_decoded_once_for_all_its_views(
    video: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(source: str, choose: Callable[[int], np.ndarray], **options: Any) -> np.ndarray:  # noqa: ANN401
        def recorded(num_frames: int) -> np.ndarray:
            asked.append(choose(num_frames).tolist())
            return choose(num_frames)

        return decode_clip(source, recorded, **options)

    monkeypatch.setattr("dsts_ray.data.clip.decode_clip", counted)
    ViewSpec(num_clips=4, num_crops=3, num_frames=2, short_side=48, crop_size=32).views(video)
    assert asked == [[1, 3, 5, 7, 9, 11, 13, 15]]


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
    (view,) = ViewSpec(num_frames=3, short_side=64, crop_size=64).views(row)
    for clip in (view, spec.training_clip(row, epoch=0, sample_id=0)):
        indices = [read_index(frame) for frame in clip]
        assert indices == sorted(indices)
        assert all(6 <= index < 12 for index in indices)


def test_a_broken_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    row = {"path": str(path), "start_frame": 0, "end_frame": None}
    with pytest.raises(DataError, match=r"broken\.mp4"):
        ViewSpec(num_frames=4, short_side=48, crop_size=32).views(row)
    with pytest.raises(DataError, match=r"broken\.mp4"):
        SPEC.training_clip(row, epoch=0, sample_id=0)
