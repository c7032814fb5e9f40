import numpy as np
import pytest

from dsts_ray.data.geometry import center_crop, multi_scale_crop, random_resized_crop, view_crop
from dsts_ray.errors import ConfigError


def coordinates(height: int, width: int, num_frames: int = 3) -> np.ndarray:
    """Draw frames whose red is the row, green the column and blue the frame."""
    frames = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
    frames[..., 0] = np.arange(height)[None, :, None]
    frames[..., 1] = np.arange(width)[None, None, :]
    frames[..., 2] = np.arange(num_frames)[:, None, None]
    return frames


def corner(frames: np.ndarray) -> tuple[int, int]:
    return int(frames[0, 0, 0, 0]), int(frames[0, 0, 0, 1])


def test_center_crop_takes_the_middle() -> None:
    cropped = center_crop(coordinates(40, 60), size=32)
    assert cropped.shape == (3, 32, 32, 3)
    assert cropped.dtype == np.uint8
    assert cropped.flags["C_CONTIGUOUS"]
    assert corner(cropped) == (4, 14)
    assert cropped[:, 0, 0, 2].tolist() == [0, 1, 2]


def test_a_clip_smaller_than_the_crop_is_resized_up() -> None:
    cropped = center_crop(coordinates(20, 30), size=40)
    assert cropped.shape == (3, 40, 40, 3)
    rows = cropped[0, :, 0, 0].astype(int)
    columns = cropped[0, 0, :, 1].astype(int)
    assert (rows[0], rows[-1]) == (0, 19)
    assert (columns[0], columns[-1]) == (5, 24)
    assert center_crop(coordinates(20, 60), size=40).shape == (3, 40, 40, 3)


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [
        (40, 60, [(4, 0), (4, 14), (4, 28)]),
        (60, 40, [(0, 4), (14, 4), (28, 4)]),
        (32, 32, [(0, 0), (0, 0), (0, 0)]),
    ],
)
def test_three_views_run_along_the_longer_side(
    height: int, width: int, corners: list[tuple[int, int]]
) -> None:
    frames = coordinates(height, width)
    views = [view_crop(frames, size=32, view=view, num_crops=3) for view in range(3)]
    assert [corner(view) for view in views] == corners
    assert {view.shape for view in views} == {(3, 32, 32, 3)}


def test_one_view_is_the_centre() -> None:
    frames = coordinates(40, 60)
    assert np.array_equal(
        view_crop(frames, size=32, view=0, num_crops=1), center_crop(frames, size=32)
    )


def test_a_view_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="view 3 of 3 crops"):
        view_crop(coordinates(40, 60), size=32, view=3, num_crops=3)


def test_random_crop_is_one_box_of_the_allowed_area_and_aspect() -> None:
    rng = np.random.default_rng(0)
    frames = coordinates(120, 200)
    boxes = set()
    for _ in range(50):
        crop = random_resized_crop(frames, size=32, scale=(0.4, 0.9), ratio=(0.75, 4 / 3), rng=rng)
        assert crop.shape == (3, 32, 32, 3)
        assert np.array_equal(crop[0, ..., :2], crop[2, ..., :2])
        assert crop[:, 5, 5, 2].tolist() == [0, 1, 2]
        height = float(np.ptp(crop[0, :, 0, 0])) * 32 / 31
        width = float(np.ptp(crop[0, 0, :, 1])) * 32 / 31
        assert 0.35 <= height * width / (120 * 200) <= 0.95
        assert 0.7 <= width / height <= 1.4
        boxes.add(corner(crop))
    assert len({top for top, _ in boxes}) > 10
    assert len({left for _, left in boxes}) > 10


def test_random_crop_of_everything_is_a_resize() -> None:
    frames = coordinates(64, 64)
    rng = np.random.default_rng(0)
    crop = random_resized_crop(frames, size=64, scale=(1.0, 1.0), ratio=(1.0, 1.0), rng=rng)
    assert np.array_equal(crop, frames)


def test_the_same_seed_crops_the_same_box() -> None:
    frames = coordinates(48, 64)
    crops = [
        random_resized_crop(
            frames, size=16, scale=(0.1, 1.0), ratio=(0.5, 2.0), rng=np.random.default_rng([1, 2])
        )
        for _ in range(2)
    ]
    assert np.array_equal(crops[0], crops[1])


def test_where_no_box_fits_the_centre_is_taken() -> None:
    rng = np.random.default_rng(0)
    frames = coordinates(10, 200)
    crop = random_resized_crop(frames, size=10, scale=(0.9, 1.0), ratio=(1.0, 1.0), rng=rng)
    assert corner(crop) == (0, 95)


def test_multi_scale_boxes_have_neighbouring_sides_at_thirteen_places() -> None:
    frames = coordinates(100, 140)
    sides = (1.0, 0.75, 0.5)
    allowed = {100: {100, 75}, 75: {100, 75, 50}, 50: {75, 50}}
    boxes = set()
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        crop = multi_scale_crop(frames, size=50, sides=sides, rng=rng)
        assert crop.shape == (3, 50, 50, 3)
        assert (crop[..., :2] == crop[:1, ..., :2]).all()
        assert crop[:, 0, 0, 2].tolist() == [0, 1, 2]
        rng = np.random.default_rng(seed)
        pairs = [(h, w) for h in (100, 75, 50) for w in (100, 75, 50) if w in allowed[h]]
        height, width = pairs[rng.integers(len(pairs))]
        top, left = (round(float(crop[0, 0, 0, axis])) for axis in (0, 1))
        bottom, right = (round(float(crop[0, -1, -1, axis])) for axis in (0, 1))
        assert abs(bottom - top + 1 - height) <= 2
        assert abs(right - left + 1 - width) <= 2
        boxes.add((height, width, top, left))
    corners = {(top, left) for height, width, top, left in boxes if (height, width) == (50, 50)}
    places = {(0, 0), (0, 45), (0, 90), (12, 22), (12, 67), (25, 0), (25, 45), (25, 90)}
    places |= {(37, 22), (37, 67), (50, 0), (50, 45), (50, 90)}
    assert corners == places


def test_a_whole_side_of_a_square_clip_is_the_whole_clip() -> None:
    frames = coordinates(32, 32)
    crop = multi_scale_crop(frames, size=32, sides=(1.0,), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(crop, frames)
