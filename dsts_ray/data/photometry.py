"""Colour jitter and RandAugment of one clip: uint8 (3, time, height, width) in and out.

A clip is treated as one picture: an operation is drawn once, and what it measures (mean, smallest
and largest value, histogram) it measures over all frames, so that equal pixels of different frames
stay equal.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

MAX_MAGNITUDE = 30
_FILL = [123.675, 116.28, 103.53]  # ImageNet's mean, 0 after normalization

Operation = Callable[[Tensor, float], Tensor]


def color_jitter(clip: Tensor, strengths: Sequence[float], draws: Sequence[float]) -> Tensor:
    """Change brightness, contrast, saturation and hue in random order.

    Args:
        clip: uint8 (3, time, height, width).
        strengths: Largest relative change of the first three, at least 0, and of the hue, in
            [0, 0.5].
        draws: Eight uniform numbers in (0, 1): four changes, then four that are sorted for the
            order.
    """
    order = sorted(range(4), key=lambda index: draws[4 + index])
    for index in order:
        if strengths[index] > 0:
            change = (2.0 * draws[index] - 1.0) * strengths[index]
            clip = _jitter(clip, index, change)
    return clip


def _jitter(clip: Tensor, index: int, change: float) -> Tensor:
    if index == 3:
        return as_picture(functional.adjust_hue, clip, change)
    adjust = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
    )[index]
    return as_picture(adjust, clip, max(0.0, 1.0 + change))


def rand_augment(clip: Tensor, magnitude: int, draws: Sequence[float]) -> Tensor:
    """Apply randomly drawn operations in turn (Cubuk et al., RandAugment, 2020).

    The operations and their ranges are torchvision's: at magnitude 30 shears reach 0.3,
    translations 150/331 of the side, rotations 30 degrees, brightness, colour, contrast and
    sharpness change by 0.9, posterizing leaves 4 bits, solarizing inverts everything.

    Args:
        clip: uint8 (3, time, height, width).
        magnitude: Of every operation, in [0, 30].
        draws: Two uniform numbers in (0, 1) for each operation: which one, and its direction.
    """
    strength = magnitude / MAX_MAGNITUDE
    for choice, direction in zip(draws[::2], draws[1::2], strict=True):
        operation = _OPERATIONS[int(choice * len(_OPERATIONS))]
        clip = operation(clip, strength if direction < 0.5 else -strength)
    return clip


def as_picture(operation: Callable[..., Tensor], clip: Tensor, *arguments: float) -> Tensor:
    """Apply an operation to the frames of a clip laid under each other, and cut them apart."""
    picture = operation(rearrange(clip, "c t h w -> c (t h) w"), *arguments)
    return rearrange(picture, "c (t h) w -> c t h w", t=clip.shape[1])


def frame_by_frame(operation: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """Apply an operation that moves or mixes pixels to every frame alike."""
    frames = operation(rearrange(clip, "c t h w -> t c h w"))
    return rearrange(frames, "t c h w -> c t h w").contiguous()


def _affine(
    clip: Tensor,
    *,
    angle: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    shear: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Move the pixels; ``translate`` in pixels, ``shear`` as tangents, both (x, y)."""
    degrees = torch.tensor(shear).atan().rad2deg().tolist()
    return frame_by_frame(
        lambda frames: functional.affine(
            frames,
            angle=angle,
            translate=[round(pixels) for pixels in translate],
            scale=1.0,
            shear=degrees,
            interpolation=InterpolationMode.BILINEAR,
            fill=_FILL,
        ),
        clip,
    )


def _adjusted(adjust: Callable[[Tensor, float], Tensor]) -> Operation:
    return lambda clip, strength: as_picture(adjust, clip, 1.0 + 0.9 * strength)


_REACH = 150 / 331
_OPERATIONS: tuple[Operation, ...] = (
    lambda clip, strength: clip,
    lambda clip, strength: _affine(clip, shear=(0.3 * strength, 0.0)),
    lambda clip, strength: _affine(clip, shear=(0.0, 0.3 * strength)),
    lambda clip, strength: _affine(clip, translate=(_REACH * strength * clip.shape[3], 0.0)),
    lambda clip, strength: _affine(clip, translate=(0.0, _REACH * strength * clip.shape[2])),
    lambda clip, strength: _affine(clip, angle=30.0 * strength),
    _adjusted(functional.adjust_brightness),
    _adjusted(functional.adjust_saturation),
    _adjusted(functional.adjust_contrast),
    lambda clip, strength: frame_by_frame(
        lambda frames: functional.adjust_sharpness(frames, 1.0 + 0.9 * strength), clip
    ),
    lambda clip, strength: functional.posterize(clip, 8 - round(4 * abs(strength))),
    lambda clip, strength: functional.solarize(clip, 255.0 * (1.0 - abs(strength))),
    lambda clip, strength: as_picture(functional.autocontrast, clip),
    lambda clip, strength: as_picture(functional.equalize, clip),
)
