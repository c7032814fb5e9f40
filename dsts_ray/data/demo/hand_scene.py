"""One clip of a hand and objects on a table: the motion of a template under nuisances."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsts_ray.data.demo import render
from dsts_ray.data.demo.hand_motion import Motion, Slope, Track, move
from dsts_ray.data.demo.render import Colour, Point, Stroke

OBJECT_RADIUS = (0.1, 0.13)  # frame heights
SCALE_STD = 0.06  # zoom of a clip, natural logarithm
CAMERA_OFFSET = 0.03  # standard deviation of where the camera looks, frame heights
PAN_AMPLITUDE = 0.02  # slow swing of the camera, frame heights
SHAKE_STD = 0.004  # camera shake between frames, frame heights
SPEED_JITTER = 0.15  # how unevenly time passes within a clip, share of its length
COLOUR_STD = 18.0  # table, sleeve and objects of a clip around the colours below, grey levels
MAX_DISTRACTORS = 2  # other things that lie on the table
SKINS: tuple[Colour, ...] = ((232, 190, 160), (198, 146, 110), (141, 95, 66), (96, 62, 45))
TABLE: Colour = (120, 130, 125)
SLEEVE: Colour = (50, 80, 215)
SLOPE: Colour = (70, 65, 60)
OBJECT: tuple[Colour, Colour] = ((225, 60, 50), (235, 200, 60))
DISTRACTOR: tuple[Colour, Colour] = ((60, 140, 70), (90, 170, 160))
MARGIN = 0.9  # drawn around the frame for the camera to turn to, frame heights

Polygon = list[Point]
# Outlines in object radii, first the body, then parts in a second colour
SHAPES: dict[str, list[Polygon]] = {
    "box": [
        [(-0.9, -0.8), (0.9, -0.8), (0.9, 0.8), (-0.9, 0.8)],
        [(-0.9, -0.8), (0.9, -0.8), (0.9, -0.45), (-0.9, -0.45)],
    ],
    "book": [
        [(-1.2, -0.4), (1.2, -0.4), (1.2, 0.4), (-1.2, 0.4)],
        [(-1.2, -0.15), (1.0, -0.15), (1.0, 0.15), (-1.2, 0.15)],
    ],
    "cup": [
        [(-0.8, -0.9), (0.8, -0.9), (0.6, 0.8), (-0.6, 0.8)],
        [(0.7, -0.5), (1.15, -0.5), (1.1, 0.3), (0.6, 0.4)],
    ],
    "bottle": [
        [(-0.45, 1.0), (0.45, 1.0), (0.45, -0.3), (0.2, -0.7), (-0.2, -0.7), (-0.45, -0.3)],
        [(-0.2, -0.7), (0.2, -0.7), (0.2, -1.2), (-0.2, -1.2)],
    ],
    "ball": [
        [(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24)],
        [(-0.97, -0.22), (0.97, -0.22), (0.97, 0.22), (-0.97, 0.22)],
    ],
}
ANGULAR, ROUND = ("box", "book", "cup", "bottle"), ("ball",)


class Thing(NamedTuple):
    """An object of the scene: its shape, size in frame heights and two colours."""

    shape: str
    radius: float
    colours: tuple[Colour, Colour]


def render_interaction(
    motion: str,
    direction: float,
    shapes: list[str],
    rng: np.random.Generator,
    *,
    num_frames: int,
    height: int,
    width: int,
) -> NDArray[np.uint8]:
    """Render one clip; the same arguments give the same pixels.

    Args:
        motion: A key of ``hand_motion.MOTIONS``.
        direction: 1 or -1, what it means depends on the motion.
        shapes: Keys of ``SHAPES``, one for every object that takes part.
        rng: Source of the clip's nuisances.
        num_frames: Length of the clip.
        height: Pixels.
        width: Pixels.

    Returns:
        Frames (T H W C).
    """
    things = [_draw_thing(rng, shape, OBJECT) for shape in shapes]
    moved = move(motion, _progress(rng, num_frames), direction, rng, things[0].radius)
    images = _draw_frames(moved, things, rng, height, width)
    return render.add_noise(rng, images, width, height)


def _draw_thing(rng: np.random.Generator, shape: str, colours: tuple[Colour, Colour]) -> Thing:
    body, part = (render.vary_colour(rng, colour, COLOUR_STD) for colour in colours)
    return Thing(shape, float(rng.uniform(*OBJECT_RADIUS)), (body, part))


def _progress(rng: np.random.Generator, num_frames: int) -> NDArray[np.float64]:
    """Return the time of every frame in [0, 1], passing unevenly but never backwards."""
    time = np.linspace(0, 1, num_frames)
    bend = rng.uniform(-SPEED_JITTER, SPEED_JITTER, size=2)
    return time + bend[0] * np.sin(np.pi * time) / 2 + bend[1] * np.sin(2 * np.pi * time) / 2


def _draw_frames(
    motion: Motion, things: list[Thing], rng: np.random.Generator, height: int, width: int
) -> Iterator[Image.Image]:
    """Yield supersampled frames, back to front: table, distractors, slope, objects, hands."""
    zoom = height * np.exp(rng.normal(0, SCALE_STD))  # pixels per unit of the motion
    margin = round(MARGIN * zoom)
    size = (width + 2 * margin, height + 2 * margin)
    table = render.draw_texture(rng, *size, render.vary_colour(rng, TABLE, COLOUR_STD))
    skin = render.vary_colour(rng, SKINS[rng.integers(len(SKINS))], 8)
    sleeve = render.vary_colour(rng, SLEEVE, COLOUR_STD)
    slope_colour = render.vary_colour(rng, SLOPE, COLOUR_STD)
    bystanders = [
        (_draw_thing(rng, str(rng.choice(list(SHAPES))), DISTRACTOR), rng.uniform(-0.8, 0.8), y)
        for y in rng.uniform(-0.45, 0.45, size=rng.integers(0, MAX_DISTRACTORS, endpoint=True))
    ]
    shift_x, shift_y = _swing(motion, rng)
    for frame in range(len(shift_x)):
        left, top = shift_x[frame] * zoom, shift_y[frame] * zoom
        image = render.crop_supersampled(table, margin + left, margin + top, width, height)
        origin = (width / 2 - left, height / 2 - top)
        for thing, x, y in bystanders:
            _draw_shape(image, thing, (x, y, 1.0, 0.0), origin, zoom)
        if motion.slope is not None:
            _draw_slope(image, motion.slope, slope_colour, origin, zoom)
        for thing, track in zip(things, motion.objects, strict=True):
            _draw_shape(image, thing, track.at(frame), origin, zoom)
        for track in motion.hands:
            _draw_hand(image, track, frame, (skin, sleeve), origin, zoom)
        yield image


def _swing(
    motion: Motion, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the camera looks in every frame: its own motion, swing, shake and offset."""
    time = np.linspace(0, 1, len(motion.camera))
    paths = []
    for path in (motion.camera, 0 * motion.camera):
        swing = PAN_AMPLITUDE * np.sin(2 * np.pi * (time * rng.uniform(0.3, 1.2) + rng.random()))
        shake = rng.normal(0, SHAKE_STD, size=len(time))
        paths.append(path + swing + shake + rng.normal(0, CAMERA_OFFSET))
    return paths[0], paths[1]


def _draw_shape(
    image: Image.Image,
    thing: Thing,
    place: tuple[float, float, float, float],
    origin: Point,
    zoom: float,
) -> None:
    """Draw ``thing`` at ``place``: x, y, scale and turn."""
    x, y, scale, turn = place
    radius = thing.radius * scale * zoom
    cos, sin = np.cos(turn) * radius, np.sin(turn) * radius
    centre_x, centre_y = origin[0] + x * zoom, origin[1] + y * zoom
    for outline, colour in zip(SHAPES[thing.shape], thing.colours, strict=True):
        points = [(centre_x + u * cos - v * sin, centre_y + u * sin + v * cos) for u, v in outline]
        render.draw_polygon(image, points, colour)


def _draw_slope(
    image: Image.Image, slope: Slope, colour: Colour, origin: Point, zoom: float
) -> None:
    (x0, y0), (x1, y1) = slope.top, slope.bottom
    corners = [(x0, y0), (x1, y1), (x0, y1)]
    points = [(origin[0] + x * zoom, origin[1] + y * zoom) for x, y in corners]
    render.draw_polygon(image, points, colour)


def _draw_hand(
    image: Image.Image,
    track: Track,
    frame: int,
    colours: tuple[Colour, Colour],
    origin: Point,
    zoom: float,
) -> None:
    """Draw palm, fingers and sleeve; the track's turn says where the forearm comes from."""
    x, y, scale, turn = track.at(frame)
    skin, sleeve = colours
    unit = scale * zoom
    palm = (origin[0] + x * zoom, origin[1] + y * zoom)
    arm = (float(np.cos(turn)) * unit, float(np.sin(turn)) * unit)
    wrist = (palm[0] + 0.16 * arm[0], palm[1] + 0.16 * arm[1])
    elbow = (palm[0] + 1.6 * arm[0], palm[1] + 1.6 * arm[1])
    strokes = [Stroke(wrist, elbow, 0.055 * unit, sleeve), Stroke(palm, wrist, 0.04 * unit, skin)]
    for spread in (-0.5, -0.15, 0.2, 0.9):
        angle = turn + np.pi + spread
        tip = (
            palm[0] + 0.095 * unit * float(np.cos(angle)),
            palm[1] + 0.095 * unit * float(np.sin(angle)),
        )
        strokes.append(Stroke(palm, tip, 0.016 * unit, skin))
    strokes.append(Stroke(palm, palm, 0.055 * unit, skin))
    render.draw_strokes(image, strokes)
