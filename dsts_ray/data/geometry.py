"""Crops of a decoded clip, one box for all of its frames: uint8 T H W C in and out, on the CPU."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from dsts_ray.errors import ConfigError

_NUM_ATTEMPTS = 10
_QUARTERS = [(row, column) for row in range(5) for column in range(5) if row % 2 == column % 2]
"""Rows and columns of TSN's places, in quarters of the space that a box leaves in the frame."""


def random_resized_crop(
    frames: np.ndarray,
    *,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Crop a random box and resize it to a square.

    Ten boxes are tried; where none fits the frame, the largest centred box of an allowed aspect is
    taken.

    Args:
        frames: Clip, uint8 [T, H, W, 3].
        size: Pixels of the square's side.
        scale: Smallest and largest area of the box as a fraction of the frame's, in (0, 1].
        ratio: Smallest and largest width / height of the box, above 0; drawn log-uniformly.
        rng: Source of the draws.

    Returns:
        uint8 [T, size, size, 3].
    """
    height, width = frames.shape[1:3]
    top, left, box_height, box_width = _random_box(height, width, scale, ratio, rng)
    box = frames[:, top : top + box_height, left : left + box_width]
    return _resize(box, height=size, width=size)


def multi_scale_crop(
    frames: np.ndarray, *, size: int, sides: Sequence[float], rng: np.random.Generator
) -> np.ndarray:
    """Crop one of TSN's boxes and resize it to a square.

    Width and height are drawn from shares of the frame's short side that are the same or neighbours
    in ``sides``; the box lies at one of thirteen places: the nine of a grid of corners, edges and
    centre, and the four half-way between centre and corners.

    Args:
        frames: Clip, uint8 [T, H, W, 3].
        size: Pixels of the square's side.
        sides: Shares of the short side, falling, in (0, 1].
        rng: Source of the draws.

    Returns:
        uint8 [T, size, size, 3].
    """
    height, width = frames.shape[1:3]
    pixels = [max(1, int(min(height, width) * side)) for side in sides]
    pairs = [
        (box_height, box_width)
        for i, box_height in enumerate(pixels)
        for j, box_width in enumerate(pixels)
        if abs(i - j) <= 1
    ]
    box_height, box_width = pairs[rng.integers(len(pairs))]
    row, column = _QUARTERS[rng.integers(len(_QUARTERS))]
    top, left = (height - box_height) * row // 4, (width - box_width) * column // 4
    box = frames[:, top : top + box_height, left : left + box_width]
    return _resize(box, height=size, width=size)


def center_crop(frames: np.ndarray, *, size: int) -> np.ndarray:
    """Crop the central square; a clip whose short side is below ``size`` is resized up to it first.

    Args:
        frames: Clip, uint8 [T, H, W, 3].
        size: Pixels of the square's side.

    Returns:
        uint8 [T, size, size, 3].
    """
    return view_crop(frames, size=size, view=0, num_crops=1)


def view_crop(frames: np.ndarray, *, size: int, view: int, num_crops: int) -> np.ndarray:
    """Crop one of the squares that a test views: spread along the longer side, centred across.

    Three crops are left, centre and right of a wide clip, top, centre and bottom of a tall one;
    one crop is the centre. A clip whose short side is below ``size`` is resized up to it first.

    Args:
        frames: Clip, uint8 [T, H, W, 3].
        size: Pixels of the square's side.
        view: Which crop, in [0, num_crops).
        num_crops: Crops there are, 1 or more.

    Returns:
        uint8 [T, size, size, 3].

    Raises:
        ConfigError: ``view`` is not one of the crops.
    """
    if not 0 <= view < num_crops:
        raise ConfigError(f"view {view} of {num_crops} crops: must be in [0, {num_crops})")
    frames = enlarge(frames, size)
    slack_y, slack_x = frames.shape[1] - size, frames.shape[2] - size
    top, left = slack_y // 2, slack_x // 2
    if num_crops > 1:
        if slack_y > slack_x:
            top = slack_y * view // (num_crops - 1)
        else:
            left = slack_x * view // (num_crops - 1)
    return np.ascontiguousarray(frames[:, top : top + size, left : left + size])


def _random_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a box within the frame."""
    for _ in range(_NUM_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_width = max(1, min(width, round(height * aspect)))
    box_height = max(1, min(height, round(width / aspect)))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def enlarge(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize a clip whose short side is below ``size`` up to it, uint8 T H W C."""
    height, width = frames.shape[1:3]
    if min(height, width) >= size:
        return frames
    factor = size / min(height, width)
    return _resize(
        frames, height=max(size, round(height * factor)), width=max(size, round(width * factor))
    )


def _resize(frames: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Resize bilinearly, with antialiasing where it shrinks."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    resized = F.interpolate(pictures, size=(height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())
