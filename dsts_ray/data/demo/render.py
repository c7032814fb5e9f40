"""Drawing with nuisances: textures, anti-aliased shapes and sensor noise, on Pillow images."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 2  # figures are drawn at twice the size and averaged: anti-aliasing
TEXTURE_CONTRAST = 8.0  # standard deviation of the background texture, grey levels
NUM_BOARDS = 4  # coloured rectangles in a background
NOISE_STD = (2.0, 5.0)  # sensor noise of a clip, grey levels


class Stroke(NamedTuple):
    """A round-ended line (a disc when both ends agree) in pixels of the finished frame."""

    start: Point
    end: Point
    radius: float
    colour: Colour


def draw_colour(rng: np.random.Generator, low: int = 20, high: int = 236) -> Colour:
    """Return a random colour with every channel in [low, high)."""
    red, green, blue = rng.integers(low, high, size=3).tolist()
    return red, green, blue


def vary_colour(rng: np.random.Generator, colour: Colour, std: float) -> Colour:
    """Return ``colour`` with normal noise of ``std`` grey levels on every channel."""
    noisy = np.clip(np.array(colour) + rng.normal(0, std, size=3), 0, 255).astype(int)
    red, green, blue = noisy.tolist()
    return red, green, blue


def draw_texture(rng: np.random.Generator, width: int, height: int, base: Colour) -> Image.Image:
    """Return an RGB background: octaves of noise around ``base`` and a few coloured boards."""
    texture = Image.new("RGB", (width, height), base)
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 0.6), (12, 0.5), (48, 0.5)):
        grid = rng.normal(128, 40, size=(cells, cells, 3)).clip(0, 255).astype(np.uint8)
        octave = Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR)
        total += weight * (np.asarray(octave, np.float32) - 128)
    total *= TEXTURE_CONTRAST / 40
    draw = ImageDraw.Draw(texture)
    for _ in range(NUM_BOARDS):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        half_width, half_height = rng.uniform(0.01, 0.07, size=2) * (width, height)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        draw.rectangle(box, fill=vary_colour(rng, base, 2 * TEXTURE_CONTRAST))
    textured = np.asarray(texture, np.float32) + total
    return Image.fromarray(np.clip(textured, 0, 255).astype(np.uint8))


def draw_strokes(image: Image.Image, strokes: list[Stroke]) -> None:
    """Draw ``strokes`` in order on ``image``, which is supersampled."""
    draw = ImageDraw.Draw(image)
    for (x0, y0), (x1, y1), radius, colour in strokes:
        x0, y0, x1, y1, r = (SUPERSAMPLING * value for value in (x0, y0, x1, y1, radius))
        draw.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), fill=colour)
        if x0 != x1 or y0 != y1:
            draw.ellipse((x0 - r, y0 - r, x0 + r, y0 + r), fill=colour)
            draw.line((x0, y0, x1, y1), fill=colour, width=round(2 * r))


def draw_polygon(image: Image.Image, points: list[Point], colour: Colour) -> None:
    """Fill a polygon, given in pixels of the finished frame, on a supersampled ``image``."""
    scaled = [(SUPERSAMPLING * x, SUPERSAMPLING * y) for x, y in points]
    ImageDraw.Draw(image).polygon(scaled, fill=colour)


def crop_supersampled(
    texture: Image.Image, left: float, top: float, width: int, height: int
) -> Image.Image:
    """Cut a window out of ``texture`` (moved inside where it leaves it) and enlarge it."""
    left = min(max(round(left), 0), texture.width - width)
    top = min(max(round(top), 0), texture.height - height)
    window = texture.crop((left, top, left + width, top + height))
    size = (SUPERSAMPLING * width, SUPERSAMPLING * height)
    return window.resize(size, Image.Resampling.NEAREST)


def cover_below(image: Image.Image, cover: Image.Image, surface: float, opacity: float) -> None:
    """Blend ``cover`` over the rows of ``image`` below ``surface``; both are supersampled."""
    top = max(round(SUPERSAMPLING * surface), 0)
    if top < image.height:
        box = (0, top, image.width, image.height)
        image.paste(Image.blend(image.crop(box), cover.crop(box), opacity), box)


def add_noise(
    rng: np.random.Generator, images: Iterator[Image.Image], width: int, height: int
) -> NDArray[np.uint8]:
    """Reduce supersampled ``images`` and add sensor noise; returns frames (T H W C)."""
    margin = 24
    shape = (height + margin, width + margin, 3)
    noise = rng.normal(0, rng.uniform(*NOISE_STD), size=shape).astype(np.int16)
    frames = []
    for image in images:
        top, left = rng.integers(0, margin, size=2)
        clean = np.asarray(image.reduce(SUPERSAMPLING), np.int16)
        noisy = clean + noise[top : top + height, left : left + width]
        frames.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(frames)
