"""One clip of a diver: the class's motion under the nuisances of its source and of the clip."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dsts_ray.data.demo import render
from dsts_ray.data.demo.dive import FALL, REACH, TOUCH, Dive, DiveMotion, move
from dsts_ray.data.demo.figure import Capsules, build_capsules, rotate
from dsts_ray.data.demo.render import Colour, Stroke

FRAME_HEIGHT = 1.4  # body heights in a frame at scale 1
SCALE_STD = 0.06  # zoom of a clip, natural logarithm
CAMERA_FOLLOWS = (0.95, 1.0)  # share of the diver's path that the camera follows
CAMERA_OFFSET = 0.04  # standard deviation of where the diver sits in the frame, body heights
PAN_AMPLITUDE = 0.05  # slow swing of the camera, body heights
SHAKE_STD = 0.012  # camera shake between frames, body heights
YAW_STD = 0.1  # camera away from the side view, radians
LEAN_STD = 0.06  # under- or over-rotation of the dive, radians
SPEED_JITTER = 0.06  # how unevenly time passes within a clip, share of its length
FOLD_STD = 0.08  # how deep pike and tuck are held, relative
CLOTHING_STD = 13.0  # clothing of a source around CLOTHING, grey levels
MIRRORED_RATIO = 0.0  # sources whose divers leave to the left
CLOTHING: dict[str, Colour] = {
    "hair": (40, 30, 25),
    "front": (225, 60, 50),
    "back": (50, 80, 215),
    "legs": (235, 200, 60),
}
SKINS: tuple[Colour, ...] = ((232, 190, 160), (198, 146, 110), (141, 95, 66), (96, 62, 45))
WALL: Colour = (120, 130, 125)
WALL_STD = 14.0  # wall of a source around WALL, grey levels
FOAM: Colour = (240, 246, 250)
WATER_OPACITY = 0.7
# Extent of the drawn place, body heights
LEFT_OF_EDGE, RIGHT_OF_EDGE, ABOVE_PLATFORM, BELOW_SURFACE = 2.6, 3.6, 3.0, 2.6


class Venue(NamedTuple):
    """What the clips of one source share: place, light, clothing and camera."""

    texture_seed: int
    wall: Colour
    water: Colour
    platform: Colour
    clothing: dict[str, Colour]
    mirrored: bool
    follows: float
    yaw: float


def draw_venue(rng: np.random.Generator) -> Venue:
    """Draw the nuisances of one source."""
    skin = SKINS[rng.integers(len(SKINS))]
    clothing = {
        paint: render.vary_colour(rng, colour, CLOTHING_STD) for paint, colour in CLOTHING.items()
    }
    red, green, blue = rng.integers((0, 90, 120), (70, 170, 230)).tolist()
    return Venue(
        texture_seed=int(rng.integers(2**31)),
        wall=render.vary_colour(rng, WALL, WALL_STD),
        water=(red, green, blue),
        platform=render.draw_colour(rng),
        clothing=clothing | {"skin": render.vary_colour(rng, skin, 8)},
        mirrored=bool(rng.random() < MIRRORED_RATIO),
        follows=float(rng.uniform(*CAMERA_FOLLOWS)),
        yaw=float(rng.normal(0, YAW_STD)),
    )


def render_dive(
    dive: Dive, venue: Venue, rng: np.random.Generator, *, num_frames: int, size: int
) -> NDArray[np.uint8]:
    """Render one clip; the same arguments give the same pixels.

    Args:
        dive: The class.
        venue: Nuisances shared by the clips of a source.
        rng: Source of the clip's own nuisances.
        num_frames: Length of the clip.
        size: Height and width in pixels.

    Returns:
        Frames (T H W C).
    """
    motion = move(dive, _progress(rng, num_frames), depth_of_fold=rng.normal(1, FOLD_STD))
    capsules = build_capsules(motion.pose)
    yaw = venue.yaw + rng.normal(0, YAW_STD / 2)
    somersault = motion.somersault + rng.normal(0, LEAN_STD)
    capsules = capsules._replace(
        starts=rotate(capsules.starts, twist=motion.twist, somersault=somersault, yaw=yaw),
        ends=rotate(capsules.ends, twist=motion.twist, somersault=somersault, yaw=yaw),
    )
    colours = {
        paint: render.vary_colour(rng, colour, CLOTHING_STD / 3)
        for paint, colour in venue.clothing.items()
    }
    images = _draw_frames(capsules, motion, venue, colours, rng, size)
    frames = render.add_noise(rng, images, size, size)
    return np.ascontiguousarray(frames[:, :, ::-1]) if venue.mirrored else frames


def _progress(rng: np.random.Generator, num_frames: int) -> NDArray[np.float64]:
    """Return the time of every frame in [0, 1], passing unevenly but never backwards."""
    time = np.linspace(0, 1, num_frames)
    bend = rng.uniform(-SPEED_JITTER, SPEED_JITTER, size=2)
    return time + bend[0] * np.sin(np.pi * time) / 2 + bend[1] * np.sin(2 * np.pi * time) / 2


def _draw_frames(
    capsules: Capsules,
    motion: DiveMotion,
    venue: Venue,
    colours: dict[str, Colour],
    rng: np.random.Generator,
    size: int,
) -> Iterator[Image.Image]:
    """Yield supersampled frames, back to front: place, diver, water, splash."""
    zoom = size / FRAME_HEIGHT * np.exp(rng.normal(0, SCALE_STD))  # pixels per body height
    camera_x, camera_y = _follow(motion, venue, rng)
    left, top = camera_x * zoom - size / 2, -camera_y * zoom - size / 2
    texture = _draw_place(venue, zoom)
    order = np.argsort(capsules.starts[..., 2] + capsules.ends[..., 2], axis=1)
    centre = np.stack([motion.x * zoom - left, -motion.y * zoom - top], axis=1)[:, None]
    starts = capsules.starts[..., :2] * (zoom, -zoom) + centre
    ends = capsules.ends[..., :2] * (zoom, -zoom) + centre
    drops = rng.normal(0, 0.12, size=(10, 2))
    for frame in range(len(left)):
        x, y = left[frame] + LEFT_OF_EDGE * zoom, top[frame] + ABOVE_PLATFORM * zoom
        place = render.crop_supersampled(texture, x, y, size, size)
        first, last = starts[frame].tolist(), ends[frame].tolist()
        strokes = [
            Stroke(first[i], last[i], capsules.radii[i] * zoom, colours[capsules.paints[i]])
            for i in order[frame].tolist()
        ]
        image = place.copy()
        render.draw_strokes(image, strokes)
        surface = FALL * zoom - top[frame]
        render.cover_below(image, place, surface, WATER_OPACITY)
        if motion.y[frame] < TOUCH - FALL:
            splash = drops * zoom + (centre[frame, 0, 0], surface)
            render.draw_strokes(image, [Stroke((u, v), (u, v), 1.5, FOAM) for u, v in splash])
        yield image


def _follow(
    motion: DiveMotion, venue: Venue, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the camera looks in every frame, body heights from the platform's edge."""
    time = np.linspace(0, 1, len(motion.x))
    paths = []
    for path, resting in ((motion.x, REACH / 2), (motion.y, 0.0)):
        followed = venue.follows * path + (1 - venue.follows) * resting
        swing = PAN_AMPLITUDE * np.sin(2 * np.pi * (time * rng.uniform(0.3, 1.2) + rng.random()))
        shake = rng.normal(0, SHAKE_STD, size=len(time))
        paths.append(followed + swing + shake + rng.normal(0, CAMERA_OFFSET))
    return paths[0], paths[1]


def _draw_place(venue: Venue, zoom: float) -> Image.Image:
    """Draw wall, water and platform on a canvas that holds whatever the camera may see."""
    width = round((LEFT_OF_EDGE + RIGHT_OF_EDGE) * zoom)
    surface = round((ABOVE_PLATFORM + FALL) * zoom)
    deep = round(BELOW_SURFACE * zoom)
    rng = np.random.default_rng(venue.texture_seed)
    canvas = Image.new("RGB", (width, surface + deep))
    canvas.paste(render.draw_texture(rng, width, surface, venue.wall), (0, 0))
    canvas.paste(render.draw_texture(rng, width, deep, venue.water), (0, surface))
    top = round(ABOVE_PLATFORM * zoom)
    edge, tower = round(LEFT_OF_EDGE * zoom), round((LEFT_OF_EDGE - 1.2) * zoom)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, top, edge, top + round(0.12 * zoom)), fill=venue.platform)
    draw.rectangle((0, top, tower, surface), fill=venue.platform)
    return canvas
