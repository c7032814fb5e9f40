"""Which version of a registered model is the champion: comparing, registering, moving the alias."""

import getpass
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dsts_ray.build import build_setup
from dsts_ray.config.load import config_from_yaml
from dsts_ray.data.manifest import Manifest
from dsts_ray.errors import ConfigError, TrackingError
from dsts_ray.launch.dataset import manifest_path
from dsts_ray.launch.home import storage_folder
from dsts_ray.launch.measurement import (
    CHECKPOINT_ARTIFACT,
    MEASURED_ON,
    measurements,
    predictions_artifact,
)
from dsts_ray.launch.register import register_checkpoint
from dsts_ray.metrics.paired import Difference
from dsts_ray.report.results import Recognized, read_sweep, recognized
from dsts_ray.report.tables import compare_recognized
from dsts_ray.tracking.promotion import (
    WHEN,
    WHO,
    WHY,
    Version,
    list_versions,
    move_champion,
)
from dsts_ray.tracking.registry import CHAMPION
from dsts_ray.tracking.search import fetched
from dsts_ray.train.checkpoint import CONFIG_FILE
from dsts_ray.train.predictions import read_predictions

METRICS = ("val/top1", "val/top5", "val/mean_class_accuracy")
"""What versions are compared by."""
_EQUAL = 1e-6


@dataclass(frozen=True)
class Verdict:
    """A candidate beside the champion.

    Attributes:
        name: Registered model.
        versions: All there are, each as each of its evaluations has measured it.
        candidate: The version that would be promoted.
        champion: The present one, None without one.
        metric: They are compared by.
        difference: Candidate less champion, over the videos; None where it cannot be drawn.
        objections: Why the candidate should not be promoted; empty where it should.
    """

    name: str
    versions: list[Version]
    candidate: Version
    champion: Version | None
    metric: str
    difference: Difference | None
    objections: list[str]


def judge(
    name: str,
    number: str | None,
    *,
    uri: str,
    metric: str,
    protocol: str | None,
    split: str | None,
) -> Verdict:
    """Compare a version with the champion.

    Args:
        name: Registered model.
        number: Candidate; None takes the best of those measured as the champion, on the same
            videos, or of those measured as declared where that is otherwise.
        uri: Tracking server or store.
        metric: One of ``METRICS``.
        protocol: Declared protocol; None takes the champion's, or any without one.
        split: Declared split; None as with the protocol.

    Raises:
        ConfigError: No version is measured as declared, or not by this metric, or several are
            by different protocols or on different videos.
        TrackingError: There is no such model or version.
    """
    if metric not in METRICS:
        raise ConfigError(f"--metric is {metric}: use one of {', '.join(METRICS)}")
    versions = [one for found in list_versions(uri=uri, name=name) for one in measurements(found)]
    champion = next((version for version in versions if CHAMPION in version.aliases), None)
    declared = {"protocol": protocol, "split": split}
    for tag, value in declared.items():
        if value is None and champion is not None:
            declared[tag] = champion.tags.get(tag)
    if champion is not None:
        champion = _measured(champion.number, versions, declared, None)
    candidate = _candidate(name, number, versions, champion, metric, declared)
    objections = [
        f"its {tag} is {candidate.tags.get(tag, 'unknown')}, declared is {value}"
        for tag, value in declared.items()
        if value and candidate.tags.get(tag) != value
    ]
    difference = None
    if champion and champion.number != candidate.number:
        differing = [
            f"its {tag} is {candidate.tags.get(tag, 'unknown')}, the champion's is "
            f"{champion.tags.get(tag, 'unknown')}"
            for tag in MEASURED_ON
            if candidate.tags.get(tag) != champion.tags.get(tag)
        ]
        objections += [text for text in differing if text not in objections]
        if not differing:
            difference = _difference(candidate, champion, metric, uri)
            objections += _improvement_objections(candidate, champion, metric, difference)
    return Verdict(name, versions, candidate, champion, metric, difference, objections)


def promote(verdict: Verdict, *, uri: str, why: str, force: bool) -> bool:
    """Make the candidate champion, unless there are objections and nobody insists.

    Returns:
        Whether the alias has moved.

    Raises:
        TrackingError: Another version has become champion since the comparison.
    """
    champion = verdict.champion
    if champion and champion.number == verdict.candidate.number:
        return False
    if verdict.objections and not force:
        return False
    against = f" (in spite of: {'; '.join(verdict.objections)})" if verdict.objections else ""
    move_champion(
        uri=uri,
        name=verdict.name,
        version=verdict.candidate.number,
        expected=champion.number if champion else None,
        tags=signature(f"{why}{against}"),
    )
    return True


def signature(why: str) -> dict[str, str]:
    """Tags that say who moves an alias now, and why."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {WHO: f"{getpass.getuser()}@{socket.gethostname()}", WHEN: now, WHY: why}


def register_from_sweep(sweep: str, name: str, uri: str) -> str:
    """Register the best checkpoint of a sweep's best run.

    Returns:
        The version.

    Raises:
        TrackingError: There is no such sweep, or none of its runs has finished.
    """
    results = read_sweep(sweep, uri)
    finished = [run for run in results.runs.values() if run.best is not None]
    if not finished:
        raise TrackingError(f"no run of {results.run_name} has finished; go on with --resume")
    best = max(finished, key=lambda run: run.best or -math.inf)
    with fetched(uri=uri, run_id=best.run_id, path=CHECKPOINT_ARTIFACT) as folder:
        if folder is None:
            raise TrackingError(f"run {best.name} has logged no checkpoint")
        config = config_from_yaml(folder / CONFIG_FILE)
        manifest = Manifest.read(manifest_path(config, storage_folder(config)))
        split = config.data.val_split
        return register_checkpoint(
            name,
            folder,
            config=config,
            uri=uri,
            run_id=best.run_id,
            manifest=manifest,
            setup=build_setup(
                config, model=best.name, split=split, num_videos=len(manifest.split(split))
            ),
        )


def _candidate(
    name: str,
    number: str | None,
    versions: Sequence[Version],
    champion: Version | None,
    metric: str,
    declared: dict[str, str | None],
) -> Version:
    if number is not None:
        known = dict.fromkeys(version.number for version in versions)
        if number not in known:
            listed = ", ".join(known)
            raise TrackingError(f"{name} has no version {number}; it has: {listed or 'none'}")
        found = _measured(number, versions, declared, champion)
        _score(found, metric)
        return found
    alike = [
        version for version in versions if metric in version.tags and _is_as(version, declared)
    ]
    if champion and _is_as(champion, declared):
        alike = [version for version in alike if _measured_on(version) == _measured_on(champion)]
    if not alike:
        how = ", ".join(f"{tag} {value}" for tag, value in declared.items() if value)
        raise ConfigError(f"no version of {name} has {metric} measured by {how or 'anything'}")
    if len(set(map(_measured_on, alike))) > 1:
        ways = "; ".join(f"{version.number} by {_measured_on(version)}" for version in alike)
        raise ConfigError(
            f"the versions of {name} are measured differently, so none is the best ({ways}); "
            "declare --protocol and --split, or name a version"
        )
    # Of equals the champion stays, else the newer is taken.
    return max(
        alike,
        key=lambda version: (_score(version, metric), version is champion, int(version.number)),
    )


def _measured(
    number: str,
    versions: Sequence[Version],
    declared: dict[str, str | None],
    champion: Version | None,
) -> Version:
    """Of a version's measurements the first that is most as declared and as the champion's."""
    return max(
        (version for version in versions if version.number == number),
        key=lambda version: (
            _is_as(version, declared),
            champion is not None and _measured_on(version) == _measured_on(champion),
        ),
    )


def _is_as(version: Version, declared: dict[str, str | None]) -> bool:
    return all(value in (None, version.tags.get(tag)) for tag, value in declared.items())


def _measured_on(version: Version) -> str:
    return ", ".join(f"{tag} {version.tags.get(tag, 'unknown')}" for tag in MEASURED_ON)


def _improvement_objections(
    candidate: Version, champion: Version, metric: str, difference: Difference | None
) -> list[str]:
    change = _score(candidate, metric) - _score(champion, metric)
    told = f"{metric} changes by {100 * change:+.2f} points"
    if difference is None:
        return [
            f"{told}, and how sure that is cannot be said: one of the two has no predictions of "
            "the same videos in MLflow"
        ]
    if difference.low <= 0:
        return [
            f"{told}, which lies inside its interval ({100 * difference.low:+.2f} to "
            f"{100 * difference.high:+.2f}, drawn: {difference.drawn})"
        ]
    return []


def _difference(candidate: Version, champion: Version, metric: str, uri: str) -> Difference | None:
    one, other = (_recognized(version, metric, uri) for version in (candidate, champion))
    if one is None or other is None or one.video_ids != other.video_ids:
        return None
    return compare_recognized([one], [other], metric)


def _recognized(version: Version, metric: str, uri: str) -> Recognized | None:
    """What a version predicted; None where its run's files are another checkpoint's."""
    with fetched(uri=uri, run_id=version.run_id, path=predictions_artifact(version)) as file:
        found = recognized(read_predictions(file)) if file else None
    if found is None:
        return None
    right = (found.ranks < (5 if metric == "val/top5" else 1)).mean()
    measured = "val/top5" if metric == "val/top5" else "val/top1"
    return found if abs(right - _score(version, measured)) < _EQUAL else None


def _score(version: Version, metric: str) -> float:
    try:
        return float(version.tags[metric])
    except (KeyError, ValueError) as error:
        raise TrackingError(
            f"version {version.number} has no number under the tag {metric!r}; its tags: "
            f"{', '.join(sorted(version.tags)) or 'none'}"
        ) from error
