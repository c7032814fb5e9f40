from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dsts_ray.data import photometry
from dsts_ray.data.photometry import color_jitter, rand_augment

NUM_OPERATIONS = 14
SOME_DRAWS = (0.9, 0.2, 0.7, 0.1, 0.5, 0.3, 0.8, 0.2)


def noise(num_frames: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, num_frames, 24, 32)
    return torch.randint(20, 231, shape, dtype=torch.uint8, generator=generator)


def brightening() -> Tensor:
    """A picture that gets brighter from frame to frame."""
    dark = noise(1) // 2
    return torch.cat([dark, dark + 60, dark + 120], dim=1)


def draws_of(operation: int, direction: float = 0.0) -> list[float]:
    return [(operation + 0.5) / NUM_OPERATIONS, direction]


def lookup(before: Tensor, after: Tensor) -> list[dict[int, int]]:
    """Value after by value before, of each channel; fails where one value becomes two."""
    tables = []
    for channel in range(3):
        table: dict[int, int] = {}
        for old, new in zip(
            before[channel].flatten().tolist(), after[channel].flatten().tolist(), strict=True
        ):
            assert table.setdefault(old, new) == new
        tables.append(table)
    return tables


@pytest.mark.parametrize("direction", [0.0, 0.9])
@pytest.mark.parametrize("operation", range(NUM_OPERATIONS))
def test_equal_frames_stay_equal_and_the_clip_keeps_its_form(
    operation: int, direction: float
) -> None:
    still = noise(1).expand(-1, 3, -1, -1)
    changed = rand_augment(still, 15, draws_of(operation, direction))
    assert (changed.shape, changed.dtype) == (still.shape, torch.uint8)
    assert all(torch.equal(one, other) for one, other in pairwise(changed.unbind(1)))
    assert torch.equal(changed, still) == (operation == 0)


@pytest.mark.parametrize("operation", [6, 8, 10, 11, 12, 13])
def test_a_value_is_changed_in_the_same_way_in_every_frame(operation: int) -> None:
    """Also by what measures the picture: contrast, autocontrast, equalize."""
    clip = brightening()
    if operation == 8:
        clip = clip[:1].expand(3, -1, -1, -1)
    lookup(clip, rand_augment(clip, 15, draws_of(operation)))


def test_autocontrast_and_equalize_measure_the_whole_clip() -> None:
    clip = brightening()
    for operation in (12, 13):
        changed = rand_augment(clip, 15, draws_of(operation))
        means = changed.float().mean((0, 2, 3))
        assert means[0] + 40 < means[1] < means[2] - 40


def test_magnitude_sets_the_strength_and_the_draw_its_direction() -> None:
    picture = torch.zeros(3, 2, 30, 30, dtype=torch.uint8)
    picture[..., 15] = 255
    reach = 150 / 331 * 30
    for magnitude in (0, 10, 30):
        for direction, sign in ((0.2, 1), (0.8, -1)):
            moved = rand_augment(picture, magnitude, draws_of(3, direction))
            column = int(moved[0, 0, 15].argmax())
            expected = 15 + sign * round(reach * magnitude / 30)
            assert column == expected
    assert set(rand_augment(noise(), 30, draws_of(10)).unique().tolist()) <= set(range(0, 256, 16))
    assert torch.equal(rand_augment(noise(), 30, draws_of(11)), 255 - noise())


def test_the_space_a_moved_picture_leaves_is_the_mean_colour() -> None:
    moved = rand_augment(noise(), 30, draws_of(3))
    assert moved[:, 0, 5, 2].tolist() == pytest.approx([123.675, 116.28, 103.53], abs=1.0)


def test_operations_follow_each_other() -> None:
    both = [*draws_of(4), *draws_of(11)]
    one_by_one = rand_augment(rand_augment(noise(), 7, draws_of(4)), 7, draws_of(11))
    assert torch.equal(rand_augment(noise(), 7, both), one_by_one)
    assert len(photometry._OPERATIONS) == NUM_OPERATIONS


def test_color_jitter_changes_all_frames_alike() -> None:
    still = noise(1).expand(-1, 3, -1, -1)
    changed = color_jitter(still, (0.5, 0.5, 0.5, 0.1), SOME_DRAWS)
    assert (changed.shape, changed.dtype) == (still.shape, torch.uint8)
    assert not torch.equal(changed, still)
    assert all(torch.equal(one, other) for one, other in pairwise(changed.unbind(1)))
    gray = brightening()[:1].expand(3, -1, -1, -1)
    lookup(gray, color_jitter(gray, (0.0, 0.5, 0.0, 0.0), SOME_DRAWS))


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.5, 1.0), (0.75, 1.25)])
def test_brightness_reaches_its_strength(draw: float, factor: float) -> None:
    clip = noise() // 2
    changed = color_jitter(clip, (0.5, 0.0, 0.0, 0.0), (draw, *SOME_DRAWS[1:]))
    torch.testing.assert_close(changed.float(), clip * factor, rtol=0, atol=1.0)


def test_the_order_of_color_jitter_is_drawn() -> None:
    clip, strengths = noise(), (0.9, 0.9, 0.0, 0.0)
    forward, backward = (
        color_jitter(clip, strengths, (0.9, 0.1, 0.5, 0.5, *order))
        for order in ((0.1, 0.2, 0.3, 0.4), (0.2, 0.1, 0.3, 0.4))
    )
    assert not torch.equal(forward, backward)


def test_no_strength_leaves_the_clip_alone() -> None:
    assert torch.equal(color_jitter(noise(), (0.0, 0.0, 0.0, 0.0), SOME_DRAWS), noise())
