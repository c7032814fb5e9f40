"""A dive in the words of Diving48, and the motion it stands for."""

from typing import NamedTuple

import numpy as np

from dsts_ray.data.demo.figure import Floats, Pose

SOMERSAULTS = {"Dive": 0.5, "1som": 1.0, "15som": 1.5, "2som": 2.0, "25som": 2.5, "3som": 3.0}
SOMERSAULTS |= {"35som": 3.5}
TWISTS = {"NoTwis": 0.0, "05Twis": 0.5, "1Twis": 1.0, "15Twis": 1.5, "2Twis": 2.0, "25Twis": 2.5}
TWISTS |= {"3Twis": 3.0}
FLIGHT = (0.08, 0.94)  # part of the clip between leaving the platform and touching the water
FALL = 2.3  # platform to water, body heights
STANDING = 0.53  # platform to centre of mass of a standing or armstanding diver, body heights
TOUCH = 0.4  # water to centre of mass at the end of the flight, body heights
JUMP = 0.75  # rise of the centre of mass, body heights
REACH = 1.0  # horizontal travel, body heights


class Dive(NamedTuple):
    """One class of the vocabulary: takeoff, somersaults, twists and position."""

    takeoff: str
    somersaults: str
    twists: str
    position: str


class DiveMotion(NamedTuple):
    """The dive over time: joint angles, rotations (radians) and centre of mass (body heights)."""

    pose: Pose
    somersault: Floats
    twist: Floats
    x: Floats
    y: Floats


def move(dive: Dive, progress: Floats, *, depth_of_fold: float = 1.0) -> DiveMotion:
    """Return the motion of ``dive``.

    The diver leaves to the right. Forward and reverse dives face away from the platform, back and
    inward dives face it; reverse and inward dives rotate towards the platform.

    Args:
        dive: The class.
        progress: Part of the clip that has passed at every frame, in [0, 1], shape (frames,).
        depth_of_fold: Factor on the joint angles of pike and tuck, about 1.
    """
    start, stop = FLIGHT
    flight = (progress - start) / (stop - start)
    airborne = np.clip(flight, 0, 1)
    direction = -1.0 if dive.takeoff in ("Reverse", "Inward") else 1.0
    rotated = 0.75 * airborne + 0.25 * _ease(airborne, 0.0, 1.0)
    somersault = direction * 2 * np.pi * SOMERSAULTS[dive.somersaults] * rotated
    if dive.takeoff == "Armstand":
        somersault = somersault + np.pi
    facing = np.pi if dive.takeoff in ("Back", "Inward") else 0.0
    twist_stop = 0.9 if dive.position == "FREE" else 0.5
    twist = facing + 2 * np.pi * TWISTS[dive.twists] * _ease(airborne, 0.03, twist_stop)
    drop = STANDING + FALL - TOUCH
    gravity = 2 * (np.sqrt(JUMP) + np.sqrt(JUMP + drop)) ** 2
    height = np.sqrt(2 * gravity * JUMP) * airborne - gravity * airborne**2 / 2
    sinking = np.maximum(flight - 1, 0) * 2.5
    return DiveMotion(
        pose=_pose(dive, airborne, flight, depth_of_fold),
        somersault=somersault,
        twist=twist,
        x=0.05 + REACH * airborne,
        y=STANDING + height - sinking,
    )


def _pose(dive: Dive, airborne: Floats, flight: Floats, depth: float) -> Pose:
    """Blend takeoff, flight position and entry."""
    fold_start = 0.45 if dive.twists != "NoTwis" else 0.0
    if dive.position == "FREE":
        fold_start = 0.0
    held = _ease(airborne, fold_start, fold_start + 0.1) * (1 - _ease(airborne, 0.86, 0.98))
    hip, knee, shoulder, elbow = {
        "PIKE": (2.0, 0.0, 1.3, 0.0),
        "TUCK": (2.3, 2.4, 0.9, 0.6),
        "STR": (0.0, 0.0, 0.35, 0.0),
        "FREE": (0.15, 0.0, 1.4, 1.9),
    }[dive.position]
    crouch = np.exp(-(((flight + 0.05) / 0.03) ** 2)) * (dive.takeoff != "Armstand")
    head_first = (2 * SOMERSAULTS[dive.somersaults]) % 2 == 1
    if dive.takeoff == "Armstand":
        head_first = not head_first
    first = np.pi if dive.takeoff == "Armstand" else np.pi * _ease(flight, -0.09, 0.01)
    last = np.pi if head_first else 0.1
    entering = _ease(airborne, 0.84, 0.98)
    free = first * (1 - entering) + last * entering
    arm = shoulder * depth * held + free * (1 - held)
    asymmetry = 1.2 * held if dive.position == "FREE" else 0.0 * held
    return Pose(
        hip=hip * depth * held + 0.9 * crouch,
        knee=knee * depth * held + 1.3 * crouch,
        left_shoulder=arm + asymmetry,
        right_shoulder=arm - asymmetry,
        elbow=elbow * held,
    )


def _ease(value: Floats, start: float, stop: float) -> Floats:
    """Rise smoothly from 0 at ``start`` to 1 at ``stop``."""
    part = np.clip((value - start) / (stop - start), 0, 1)
    return part * part * (3 - 2 * part)
