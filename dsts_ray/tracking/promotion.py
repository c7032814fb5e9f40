"""Moving the alias ``champion`` by decision: to a version that was compared, and back."""

from collections.abc import Mapping
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dsts_ray.errors import TrackingError
from dsts_ray.tracking.connection import connect, translated_errors
from dsts_ray.tracking.registry import CHAMPION, PREVIOUS, get_alias, get_version, only_promotion

WHO, WHEN, WHY, BEFORE = (
    "promotion.who",
    "promotion.when",
    "promotion.why",
    "promotion.champion_before",
)
"""Tags of a version that says how it became champion."""


class Version(NamedTuple):
    """A version of a registered model."""

    number: str
    run_id: str
    aliases: tuple[str, ...]
    tags: dict[str, str]


def list_versions(*, uri: str, name: str) -> list[Version]:
    """Return the versions of a registered model, the oldest first.

    Raises:
        TrackingError: the store cannot be reached, or has no such model.
    """
    client = connect(uri)
    with translated_errors(uri, f"list the versions of {name!r}"):
        aliases: dict[str, list[str]] = {}
        for alias, number in _registered(client, uri, name).items():
            aliases.setdefault(str(number), []).append(alias)
        found = client.search_model_versions(f"name = '{name}'")
    versions = [
        Version(
            str(version.version),
            version.run_id or "",
            tuple(sorted(aliases.get(str(version.version), []))),
            dict(version.tags),
        )
        for version in found
    ]
    return sorted(versions, key=lambda version: int(version.number))


def move_champion(
    *, uri: str, name: str, version: str, expected: str | None, tags: Mapping[str, str]
) -> None:
    """Make a version champion, provided that the champion is still the one it was compared with.

    Of several at once exactly one succeeds: the others find another champion than they expected.

    Args:
        uri: see ``connect``.
        name: registered model.
        version: the new champion.
        expected: the champion that it was compared with; None for none.
        tags: of the version: who moved the alias, when, why.

    Raises:
        TrackingError: the version does not exist, or the champion is another one by now.
    """
    client = connect(uri)
    with translated_errors(uri, f"promote {name} version {version}"):
        get_version(client, uri, name, version)
        with only_promotion(client, name):
            champion = _number(client, name, CHAMPION)
            if champion != expected:
                raise TrackingError(
                    f"the champion of {name} was version {expected or 'none'} when it was "
                    f"compared, now it is {champion or 'none'}: somebody else promoted meanwhile; "
                    "compare again"
                )
            _move(client, name, version, champion, tags)


def roll_back(*, uri: str, name: str, tags: Mapping[str, str]) -> tuple[str, str]:
    """Make the previous champion champion again, and the champion the previous one.

    Returns:
        The champion before and now.

    Raises:
        TrackingError: there is no previous champion.
    """
    client = connect(uri)
    with translated_errors(uri, f"roll {name} back"):
        _registered(client, uri, name)
        with only_promotion(client, name):
            champion, previous = (_number(client, name, alias) for alias in (CHAMPION, PREVIOUS))
            if champion is None or previous is None:
                raise TrackingError(
                    f"{name} has no alias {PREVIOUS} to roll back to; promote a version by number "
                    "instead"
                )
            _move(client, name, previous, champion, tags)
    return champion, previous


def _move(
    client: MlflowClient, name: str, version: str, champion: str | None, tags: Mapping[str, str]
) -> None:
    for key, value in {**tags, BEFORE: champion or "none"}.items():
        client.set_model_version_tag(name, version, key, value)
    if champion is not None:
        client.set_registered_model_alias(name, PREVIOUS, champion)
    client.set_registered_model_alias(name, CHAMPION, version)


def _number(client: MlflowClient, name: str, alias: str) -> str | None:
    found = get_alias(client, name, alias)
    return None if found is None else str(found.version)


def _registered(client: MlflowClient, uri: str, name: str) -> dict[str, str]:
    """Aliases of a registered model."""
    try:
        return client.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [found.name for found in client.search_registered_models(max_results=20)]
        raise TrackingError(
            f"there is no registered model {name!r}; there is: {', '.join(names) or 'none'}. "
            "Name another with --model, or register one (jobs/train.py, --from-sweep)"
        ) from error
