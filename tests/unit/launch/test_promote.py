"""Comparing registered versions before the alias moves, in a store with real versions."""

import getpass
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from dsts_ray.data.manifest import SCHEMA, Manifest
from dsts_ray.errors import ConfigError, TrackingError
from dsts_ray.launch.measurement import record_evaluation
from dsts_ray.launch.promote import judge, promote, signature
from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.promotion import WHO, WHY, roll_back
from dsts_ray.tracking.registry import ResolvedModel
from tests.support.store import new_store
from tests.support.sweeps import predictions
from tests.support.versions import NUM_VIDEOS, add_version

VIDEOS = Manifest(pa.Table.from_pylist([], SCHEMA), ("x", "y", "z"))
Register = Callable[..., str]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path)


@pytest.fixture
def register(uri: str) -> Register:
    """Makes a version whose run's checkpoint recognized the first videos."""
    connect(uri).create_registered_model("m")
    return partial(add_version, uri, "m")


def decide(
    uri: str, number: str | None = None, *, force: bool = False, **declared: str
) -> list[str]:
    """Judge and promote; returns the objections."""
    asked = {"metric": "val/top1", "protocol": None, "split": None} | declared
    verdict = judge("m", number, uri=uri, **asked)  # pyright: ignore[reportArgumentType]
    moved = promote(verdict, uri=uri, why="a test", force=force)
    assert moved == (force or not verdict.objections)
    return verdict.objections


def aliases(uri: str) -> dict[str, str]:
    found = connect(uri).get_registered_model("m").aliases
    return {alias: str(number) for alias, number in found.items()}


def test_a_clear_improvement_moves_the_alias_and_says_who_and_why(
    uri: str, register: Register
) -> None:
    register(0.5)
    assert decide(uri) == []
    register(0.7)
    verdict = judge("m", None, uri=uri, metric="val/top1", protocol=None, split=None)
    assert verdict.candidate.number == "2"
    assert verdict.difference is not None
    assert verdict.difference.mean == pytest.approx(0.2)
    assert 0.1 < verdict.difference.low < verdict.difference.high < 0.3
    assert decide(uri) == []
    assert aliases(uri) == {"champion": "2", "previous": "1"}
    tags = connect(uri).get_model_version("m", "2").tags
    assert tags[WHO].startswith(f"{getpass.getuser()}@")
    assert (tags[WHY], tags["promotion.champion_before"]) == ("a test", "1")
    assert roll_back(uri=uri, name="m", tags=signature("it was worse")) == ("2", "1")
    assert aliases(uri) == {"champion": "1", "previous": "2"}
    assert connect(uri).get_model_version("m", "1").tags[WHY] == "it was worse"


def test_an_improvement_inside_its_interval_needs_force(uri: str, register: Register) -> None:
    register(0.5)
    decide(uri)
    register(0.505)
    (objection,) = decide(uri, "2")
    assert "changes by +0.50 points, which lies inside its interval (+0.00 to" in objection
    assert aliases(uri) == {"champion": "1"}
    decide(uri, "2", force=True)
    assert aliases(uri) == {"champion": "2", "previous": "1"}
    why = connect(uri).get_model_version("m", "2").tags[WHY]
    assert why.startswith("a test (in spite of: val/top1 changes by +0.50 points")


def test_a_worse_version_is_refused(uri: str, register: Register) -> None:
    register(0.7)
    decide(uri)
    register(0.5)
    (objection,) = decide(uri, "2")
    assert "changes by -20.00 points" in objection


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"protocol": "2x3"}, "its protocol is 2x3, declared is 1x1"),
        ({"split": "val"}, "its split is val, declared is test"),
        ({"manifest_digest": "def"}, "its manifest_digest is def, the champion's is abc"),
    ],
)
def test_versions_measured_otherwise_are_not_compared(
    uri: str, register: Register, tags: dict[str, str], text: str
) -> None:
    register(0.5)
    decide(uri)
    register(0.9, **tags)
    assert text in decide(uri, "2")
    assert aliases(uri) == {"champion": "1"}
    found = judge("m", None, uri=uri, metric="val/top1", protocol=None, split=None)
    assert found.candidate.number == "1"  # not among those measured as the champion


def test_without_a_champion_versions_measured_differently_have_no_best(
    uri: str, register: Register
) -> None:
    register(0.5)
    register(0.9, protocol="2x3")
    with pytest.raises(ConfigError, match=r"differently.*2 by split test, num_videos 200, protoc"):
        decide(uri)
    assert decide(uri, protocol="1x1") == []
    assert aliases(uri) == {"champion": "1"}
    register(0.95, protocol="2x3", manifest_digest="def")
    with pytest.raises(ConfigError, match="declare --protocol and --split, or name a version"):
        decide(uri, protocol="2x3")
    assert "its protocol is 2x3, the champion's is 1x1" in decide(uri, "2", protocol="2x3")


def evaluated(
    uri: str, number: str, top1: float, protocol: str = "1x1", split: str = "test"
) -> None:
    """What ``jobs/evaluate.py --record`` leaves of a version that recognized the first videos."""
    version = connect(uri).get_model_version("m", number)
    saved = predictions([video < top1 * NUM_VIDEOS for video in range(NUM_VIDEOS)])
    saved = replace(saved, setup=replace(saved.setup, protocol=protocol, split=split))
    resolved = ResolvedModel(Path(), "m", number, version.run_id, {})
    record_evaluation(resolved, saved, videos=VIDEOS, uri=uri)


def test_an_evaluation_recorded_later_is_compared_as_declared(uri: str, register: Register) -> None:
    register(0.5)
    decide(uri)
    register(0.45)
    evaluated(uri, "1", 0.5, protocol="2x3")
    with pytest.raises(ConfigError, match="no version of m has val/top1 measured by protocol 4x3"):
        decide(uri, protocol="4x3")
    evaluated(uri, "2", 0.9, protocol="2x3")
    verdict = judge("m", None, uri=uri, metric="val/top1", protocol="2x3", split=None)
    assert verdict.candidate.number == "2"
    assert verdict.difference is not None
    assert verdict.difference.mean == pytest.approx(0.4)
    assert len(verdict.versions) == 4  # rows of the table
    assert "changes by -5.00 points" in decide(uri, "2")[0]  # as they were registered
    assert decide(uri, "2", protocol="2x3") == []
    assert aliases(uri) == {"champion": "2", "previous": "1"}


def test_an_evaluation_of_the_same_setup_takes_the_place_of_the_one_before(
    uri: str, register: Register
) -> None:
    register(0.5)
    for top1 in (0.3, 0.6):
        evaluated(uri, "1", top1, split="val")
    verdict = judge("m", "1", uri=uri, metric="val/top1", protocol=None, split="val")
    assert [version.tags["val/top1"] for version in verdict.versions] == ["0.5", "0.6"]
    assert verdict.candidate.tags["val/top1"] == "0.6"


def test_without_predictions_nobody_can_say_how_sure_it_is(uri: str, register: Register) -> None:
    register(0.5)
    decide(uri)
    register(0.9, predicted=False)
    (objection,) = decide(uri, "2")
    assert "+40.00 points, and how sure that is cannot be said" in objection


def test_predictions_of_another_checkpoint_are_not_taken_for_its_own(
    uri: str, register: Register
) -> None:
    register(0.5)
    decide(uri)
    register(0.9)
    connect(uri).set_model_version_tag("m", "2", "val/top1", "0.95")
    (objection,) = decide(uri, "2")
    assert "cannot be said" in objection


def test_what_cannot_be_judged_is_one_clear_error(uri: str, register: Register) -> None:
    register(0.5)
    with pytest.raises(TrackingError, match="m has no version 9; it has: 1"):
        decide(uri, "9")
    with pytest.raises(ConfigError, match="--metric is val/loss: use one of val/top1"):
        decide(uri, metric="val/loss")
    with pytest.raises(TrackingError, match="no number under the tag 'val/top5'"):
        decide(uri, "1", metric="val/top5")
    with pytest.raises(ConfigError, match="no version of m has val/top1 measured by protocol 9x9"):
        decide(uri, protocol="9x9")
    with pytest.raises(TrackingError, match="no registered model 'n'; there is: m"):
        judge("n", None, uri=uri, metric="val/top1", protocol=None, split=None)
    with pytest.raises(TrackingError, match="no alias previous to roll back to"):
        roll_back(uri=uri, name="m", tags={})
