import numpy as np
import pytest

from dsts_ray.data.demo.dive import SOMERSAULTS, TWISTS, Dive, move
from dsts_ray.data.demo.figure import Pose, build_capsules, rotate

STANDING = Pose(*(np.zeros(1) for _ in Pose._fields))


def test_standing_figure_is_one_body_height_tall_and_centred() -> None:
    capsules = build_capsules(STANDING)
    radii = np.array(capsules.radii)
    top = np.maximum(capsules.starts[0, :, 1], capsules.ends[0, :, 1]) + radii
    bottom = np.minimum(capsules.starts[0, :, 1], capsules.ends[0, :, 1]) - radii
    assert top.max() - bottom.min() == pytest.approx(1.0, abs=0.1)
    centre = np.average((capsules.starts + capsules.ends)[0] / 2, axis=0, weights=radii)
    np.testing.assert_allclose(centre, 0, atol=1e-12)


@pytest.mark.parametrize("angle", [0.4, 1.7, 3.0])
def test_rotation_keeps_every_limb_length(angle: float) -> None:
    capsules = build_capsules(STANDING)
    turns = {"twist": np.array([angle]), "somersault": np.array([2 * angle]), "yaw": 0.3}
    turned = rotate(capsules.ends, **turns) - rotate(capsules.starts, **turns)
    before = np.linalg.norm(capsules.ends - capsules.starts, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), before, atol=1e-12)


def test_somersault_turns_clockwise_and_half_a_twist_faces_the_other_way() -> None:
    up, front = np.array([[[0.0, 1.0, 0.0]]]), np.array([[[1.0, 0.0, 0.0]]])
    zero, quarter, half = np.zeros(1), np.array([np.pi / 2]), np.array([np.pi])
    tipped = rotate(up, twist=zero, somersault=quarter, yaw=0.0)
    np.testing.assert_allclose(tipped[0, 0], [1, 0, 0], atol=1e-12)
    turned = rotate(front, twist=half, somersault=zero, yaw=0.0)
    np.testing.assert_allclose(turned[0, 0], [-1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("takeoff", ["Forward", "Back", "Reverse", "Inward", "Armstand"])
@pytest.mark.parametrize("somersaults", SOMERSAULTS)
@pytest.mark.parametrize("twists", ["NoTwis", "15Twis"])
def test_dive_turns_as_often_as_its_name_says(takeoff: str, somersaults: str, twists: str) -> None:
    motion = move(Dive(takeoff, somersaults, twists, "PIKE"), np.linspace(0, 1, 40))
    sign = -1 if takeoff in ("Reverse", "Inward") else 1
    turned = motion.somersault[-1] - motion.somersault[0]
    assert turned == pytest.approx(sign * 2 * np.pi * SOMERSAULTS[somersaults])
    assert motion.twist[-1] - motion.twist[0] == pytest.approx(2 * np.pi * TWISTS[twists])
    facing = np.pi if takeoff in ("Back", "Inward") else 0.0
    assert motion.twist[0] == facing


def test_tuck_bends_the_knees_and_pike_keeps_them_straight() -> None:
    middle = np.array([0.5])
    pike = move(Dive("Forward", "15som", "NoTwis", "PIKE"), middle).pose
    tuck = move(Dive("Forward", "15som", "NoTwis", "TUCK"), middle).pose
    straight = move(Dive("Forward", "Dive", "NoTwis", "STR"), middle).pose
    assert pike.hip[0] > 1.8
    assert tuck.hip[0] > 2
    assert straight.hip[0] == pytest.approx(0, abs=1e-3)
    assert pike.knee[0] == pytest.approx(0, abs=1e-3)
    assert tuck.knee[0] > 2


def test_diver_rises_from_the_platform_and_ends_below_the_water() -> None:
    motion = move(Dive("Forward", "15som", "NoTwis", "PIKE"), np.linspace(0, 1, 60))
    assert motion.y.max() > motion.y[0] + 0.5
    assert motion.y[-1] < -2.0
    assert motion.x[-1] > motion.x[0]
