"""An articulated stick figure in three dimensions: joint angles to capsules to the picture plane.

Axes of the body: x to its front, y from feet to head, z to its left. Lengths are in body heights,
angles in radians. Arrays carry all frames of a clip at once: (frames, capsules, 3).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HEAD_RADIUS, TORSO, UPPER_ARM, FOREARM, THIGH, SHIN, FOOT = 0.08, 0.30, 0.16, 0.17, 0.24, 0.25, 0.07
HALF_SHOULDERS, HALF_HIPS, HALF_DEPTH = 0.085, 0.05, 0.03


class Pose(NamedTuple):
    """Joint angles over time, each of shape (frames,); all zero is standing with arms down.

    ``hip`` folds torso and thighs towards each other, ``knee`` folds the shins back, a shoulder
    raises its arm over the front (pi is overhead), ``elbow`` folds both forearms up.
    """

    hip: Floats
    knee: Floats
    left_shoulder: Floats
    right_shoulder: Floats
    elbow: Floats


class Capsules(NamedTuple):
    """Round-ended limbs: ends of shape (frames, capsules, 3), radii and paint per capsule."""

    starts: Floats
    ends: Floats
    radii: list[float]
    paints: list[str]


def build_capsules(pose: Pose) -> Capsules:
    """Place the limbs of ``pose`` in body axes, with the centre of mass at the origin.

    Paints are ``hair``, ``skin``, ``front``, ``back`` (of the suit) and ``legs``: front and back
    differ, so that a twist shows.
    """
    upright = _direction(np.pi - pose.hip / 2)
    normal = np.stack([upright[:, 1], -upright[:, 0], upright[:, 2]], axis=1)
    pelvis, neck = np.zeros_like(upright), TORSO * upright
    head = neck + (HEAD_RADIUS + 0.03) * upright
    limbs: list[tuple[Floats, Floats, float, str]] = [
        (head - 0.025 * normal, head - 0.025 * normal, HEAD_RADIUS, "hair"),
        (head + 0.025 * normal, head + 0.025 * normal, HEAD_RADIUS * 0.9, "skin"),
    ]
    for side, shoulder_angle in ((1.0, pose.left_shoulder), (-1.0, pose.right_shoulder)):
        lateral = np.array([0.0, 0.0, side])
        shoulder, hip = neck + HALF_SHOULDERS * lateral, pelvis + HALF_HIPS * lateral
        for depth, paint in ((HALF_DEPTH, "front"), (-HALF_DEPTH, "back")):
            inset = depth * normal - 0.02 * lateral
            limbs.append((shoulder + inset, hip + inset, 0.05, paint))
        arm = shoulder_angle - pose.hip / 2
        elbow = shoulder + 0.03 * lateral + UPPER_ARM * _direction(arm)
        hand = elbow + FOREARM * _direction(arm + pose.elbow)
        limbs += [(shoulder + 0.02 * lateral, elbow, 0.032, "skin"), (elbow, hand, 0.026, "skin")]
        knee = hip + THIGH * _direction(pose.hip / 2)
        ankle = knee + SHIN * _direction(pose.hip / 2 - pose.knee)
        toe = ankle + FOOT * _direction(pose.hip / 2 - pose.knee + 0.5)
        limbs += [(hip, knee, 0.048, "legs"), (knee, ankle, 0.036, "skin")]
        limbs.append((ankle, toe, 0.024, "skin"))
    starts = np.stack([limb[0] for limb in limbs], axis=1)
    ends = np.stack([limb[1] for limb in limbs], axis=1)
    radii = [limb[2] for limb in limbs]
    mass_centre = np.average((starts + ends) / 2, axis=1, weights=radii)[:, None]
    return Capsules(starts - mass_centre, ends - mass_centre, radii, [limb[3] for limb in limbs])


def rotate(points: Floats, *, twist: Floats, somersault: Floats, yaw: float) -> Floats:
    """Turn body points (frames, points, 3) into picture axes: x right, y up, z to the viewer.

    Args:
        points: Points in body axes.
        twist: Turn about the body's long axis, (frames,); 0 faces right, pi faces left.
        somersault: Turn in the picture plane, (frames,), clockwise.
        yaw: Turn of the camera about the vertical.
    """
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    cos, sin = np.cos(twist)[:, None], np.sin(twist)[:, None]
    x, z = x * cos + z * sin, z * cos - x * sin
    cos, sin = np.cos(somersault)[:, None], np.sin(somersault)[:, None]
    x, y = x * cos + y * sin, y * cos - x * sin
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    return np.stack([x, y, z], axis=-1)


def _direction(angle: Floats) -> Floats:
    """Return unit vectors (frames, 3) in the x-y plane, ``angle`` counted from down to front."""
    return np.stack([np.sin(angle), -np.cos(angle), np.zeros_like(angle)], axis=1)
