"""What hands, objects and camera do in the templates of Something-Something.

Lengths are in frame heights from the middle of the picture, x to the right and y down.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dsts_ray.data.demo.figure import Floats
from dsts_ray.data.demo.render import Point


class Track(NamedTuple):
    """Place, scale and turn (radians, clockwise) over time, each of shape (frames,)."""

    x: Floats
    y: Floats
    scale: Floats
    turn: Floats

    def at(self, frame: int) -> tuple[float, float, float, float]:
        """Return x, y, scale and turn in ``frame``."""
        return (
            float(self.x[frame]),
            float(self.y[frame]),
            float(self.scale[frame]),
            float(self.turn[frame]),
        )


class Slope(NamedTuple):
    """A wedge on the table, from its highest to its lowest point."""

    top: Point
    bottom: Point


class Motion(NamedTuple):
    """Everything that moves in a clip; ``camera`` is the sideways turn over time."""

    objects: list[Track]
    hands: list[Track]
    camera: Floats
    slope: Slope | None = None


def move(
    motion: str, progress: Floats, direction: float, rng: np.random.Generator, radius: float
) -> Motion:
    """Return the motion named ``motion``.

    Args:
        motion: A key of ``MOTIONS``.
        progress: Part of the clip that has passed at every frame, in [0, 1], shape (frames,).
        direction: 1 or -1: right or left, to or from the camera, up or down, together or apart.
        rng: Source of the variation between clips.
        radius: Size of the (first) object.
    """
    return MOTIONS[motion](progress, direction, rng, radius)


def _push(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    return _drag(time, direction, -direction, rng, radius)


def _pull(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    return _drag(time, direction, direction, rng, radius)


def _drag(
    time: Floats, direction: float, side: float, rng: np.random.Generator, radius: float
) -> Motion:
    """Move an object by ``direction``, the hand on the ``side`` (-1 is left) of it."""
    done = _ease(time, 0.2, 0.82)
    x = direction * rng.uniform(0.2, 0.34) * (2 * done - 1) + rng.normal(0, 0.06)
    thing = _track(x, rng.normal(0, 0.1))
    hand_x = x + side * (radius + 0.05 + _away(time))
    angle = np.pi / 2 - side * rng.uniform(0.6, 1.2)
    return Motion([thing], [_track(hand_x, thing.y, 1.0, angle)], 0 * time)


def _approach(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    """Move an object towards the camera (1) or away from it (-1)."""
    near = _ease(time, 0.2, 0.82) if direction > 0 else 1 - _ease(time, 0.2, 0.82)
    scale = 0.6 + rng.uniform(0.7, 1.1) * near
    thing = _track(rng.normal(0, 0.1) + 0 * time, 0.22 * near - 0.15, scale)
    side = rng.choice([-1.0, 1.0])
    hand_x = thing.x + side * (radius * scale + 0.04 + _away(time))
    angle = np.pi / 2 - side * rng.uniform(0.3, 0.9)
    return Motion([thing], [_track(hand_x, thing.y, 0.7 + 0.5 * near, angle)], 0 * time)


def _descend(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    """Let an object go down a slope; it rolls (1) or slides (-1)."""
    side = rng.choice([-1.0, 1.0])
    slope = Slope((-0.5 * side, -0.22 + rng.normal(0, 0.04)), (0.5 * side, 0.3))
    along = np.array(slope.bottom) - slope.top
    length = float(np.hypot(*along))
    lift = radius * 0.9 * np.array([along[1] * side, -abs(along[0])]) / length
    done = 0.1 + 0.8 * np.clip((time - 0.25) / 0.5, 0, 1) ** 1.6
    tilt = float(np.arctan2(along[1], abs(along[0]))) * side
    turn = tilt + (side * done * length / radius if direction > 0 else 0 * time)
    thing = _track(
        slope.top[0] + along[0] * done + lift[0], slope.top[1] + along[1] * done + lift[1], 1, turn
    )
    gone = _ease(time, 0.22, 0.5)
    hand_x = thing.x[0] - side * (radius * 0.7 + 0.5 * gone)
    hand = _track(hand_x, thing.y[0] - 0.05 - 0.3 * gone, 1.0, np.pi / 2 + side * 2.2)
    return Motion([thing], [hand], 0 * time, slope)


def _lift(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    """Carry an object up (1) or down (-1)."""
    done = _ease(time, 0.2, 0.82)
    y = -direction * rng.uniform(0.16, 0.28) * (2 * done - 1)
    thing = _track(rng.normal(0, 0.12) + 0 * time, y)
    side = rng.choice([-1.0, 1.0])
    hand_x = thing.x + side * (radius + 0.04 + _away(time))
    angle = np.pi / 2 - side * rng.uniform(0.3, 1.0)
    return Motion([thing], [_track(hand_x, y, 1.0, angle)], 0 * time)


def _meet(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    """Move two objects together (1) or apart (-1), a hand at the outside of each."""
    done = _ease(time, 0.2, 0.82)
    gap = 0.03 + rng.uniform(0.3, 0.45) * (1 - done if direction > 0 else done)
    objects, hands = [], []
    height = rng.normal(0, 0.1)
    for side in (-1.0, 1.0):
        thing = _track(side * (gap / 2 + 0.12), height + rng.normal(0, 0.02))
        hand_x = thing.x + side * (0.13 + _away(time))
        objects.append(thing)
        hands.append(_track(hand_x, thing.y, 0.9, np.pi / 2 - side * rng.uniform(0.5, 1.0)))
    return Motion(objects, hands, 0 * time)


def _turn_camera(time: Floats, direction: float, rng: np.random.Generator, radius: float) -> Motion:
    """Turn the camera right (1) or left (-1) past a thing that stands still."""
    camera = direction * rng.uniform(0.2, 0.4) * (2 * _ease(time, 0.1, 0.9) - 1)
    return Motion([_track(rng.normal(0, radius) + 0 * time, rng.normal(0, 0.1))], [], camera)


MOTIONS: dict[str, Callable[[Floats, float, np.random.Generator, float], Motion]] = {
    "push": _push,
    "pull": _pull,
    "approach": _approach,
    "descend": _descend,
    "lift": _lift,
    "meet": _meet,
    "turn_camera": _turn_camera,
}


def _track(
    x: Floats, y: Floats | float, scale: Floats | float = 1.0, turn: Floats | float = 0.0
) -> Track:
    """Spread constants over the frames of ``x``."""
    still = np.zeros_like(x)
    return Track(x, y + still, scale + still, turn + still)


def _away(time: Floats) -> Floats:
    """Return how far the hand is from the object: it comes, stays and leaves."""
    return 0.5 * (1 - _ease(time, 0.0, 0.2) + _ease(time, 0.84, 1.0))


def _ease(value: Floats, start: float, stop: float) -> Floats:
    """Rise smoothly from 0 at ``start`` to 1 at ``stop``."""
    part = np.clip((value - start) / (stop - start), 0, 1)
    return part * part * (3 - 2 * part)
