"""The MLflow model registry: register a model, promote the better one, fetch it again."""

import hashlib
import math
import re
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import mlflow.artifacts
import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from dsts_ray.errors import TrackingError
from dsts_ray.tracking.connection import connect, translated_errors, without_password
from dsts_ray.tracking.pyfunc import CONFIG_FILE, WEIGHTS_FILE, signature

CHAMPION = "champion"
PREVIOUS = "previous"
_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
LOCK_TAG = "dsts_ray.promotion"
LOCK_LIFETIME_S = 120.0
LOCK_POLL_S = 0.1


class RegisteredVersion(NamedTuple):
    """Outcome of a promotion."""

    name: str
    version: str
    is_champion: bool
    previous: str | None  # the version that this promotion displaced
    incomparable: str = ""  # why the two cannot be compared, so that the champion stays


class ResolvedModel(NamedTuple):
    """A model on this machine; name, version and run are None for a plain folder."""

    directory: Path  # holds config.yaml and model.safetensors
    name: str | None
    version: str | None
    run_id: str | None
    tags: Mapping[str, str]


def register_model(
    *,
    uri: str,
    run_id: str,
    name: str,
    model_script: Path,
    artifacts: Mapping[str, Path],
    code_paths: list[Path],
    example: pd.DataFrame | bytes,
    pip_requirements: list[str],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> str:
    """Log a model to the run and make it a new version of the registered model ``name``.

    Whatever fails, no version, and no registered model without versions, is left behind.

    Args:
        uri: see ``dsts_ray.tracking.mlflow.connect``.
        run_id: the run that trained the model.
        name: registered model; created where missing.
        model_script: calls ``dsts_ray.tracking.pyfunc.serve``; stored as code, never pickled.
        artifacts: ``config`` (a file named config.yaml) and ``weights`` (model.safetensors).
        code_paths: packages and modules to store with the model.
        example: input example: a table as in ``pyfunc.signature``, or one video file's content.
        pip_requirements: requirements of the serving environment.
        metrics: become tags of the version, by name, in full precision.
        tags: further tags of the version.

    Returns:
        The new version.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, patient=True)
    if isinstance(example, bytes):
        example = pd.DataFrame({"video": [example]})
    with translated_errors(uri, f"register a version of {name!r}"), ExitStack() as undo:
        experiment_id = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment_id, name=name, source_run_id=run_id)
        undo.callback(client.delete_logged_model, logged.model_id)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                path=folder,
                python_model=model_script,
                artifacts={key: str(path) for key, path in artifacts.items()},
                code_paths=[str(path) for path in code_paths],
                signature=signature(),
                input_example=example,
                pip_requirements=pip_requirements,
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    run_id=run_id,
                    model_uuid=logged.model_id,
                    model_id=logged.model_id,
                ),
            )
            client.log_model_artifacts(logged.model_id, folder)
        client.finalize_logged_model(logged.model_id, "READY")
        measured = {key: repr(float(value)) for key, value in metrics.items()}
        version = _create_version(client, name, logged, {**tags, **measured})
        undo.pop_all()
    return version


def find_version(*, uri: str, name: str, run_id: str, tags: Mapping[str, str]) -> str | None:
    """Return the newest version of ``name`` that the run registered with these tags, or None.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, patient=True)
    with translated_errors(uri, f"search versions of {name!r}"):
        found = client.search_model_versions(f"run_id = '{run_id}'")
    numbers = [
        int(version.version)
        for version in found
        if version.name == name and tags.items() <= version.tags.items()
    ]
    return str(max(numbers)) if numbers else None


def tag_version(*, uri: str, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, patient=True)
    with translated_errors(uri, f"tag {name} version {version}"):
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)


def _create_version(
    client: MlflowClient, name: str, logged: LoggedModel, tags: Mapping[str, str]
) -> str:
    with ExitStack() as undo:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        else:
            undo.callback(client.delete_registered_model, name)
        version = client.create_model_version(
            name,
            source=logged.artifact_location,
            run_id=logged.source_run_id,
            tags=dict(tags),
            model_id=logged.model_id,
            await_creation_for=0,
        )
        undo.pop_all()
    return str(version.version)


def promote_if_better(
    *,
    uri: str,
    name: str,
    version: str,
    metric: str,
    mode: Literal["max", "min"],
    alike: Sequence[str] = (),
) -> RegisteredVersion:
    """Move alias ``champion`` to ``version`` if it is strictly better, or if there is no champion.

    The old champion becomes ``previous``. Promotions of one model at the same time, from anywhere,
    take place one after the other, so that the best version stays.

    Args:
        uri: see ``dsts_ray.tracking.mlflow.connect``.
        name: registered model.
        version: the candidate.
        metric: tag of the versions that decides; a candidate whose value is NaN is never promoted.
        mode: whether a larger or a smaller value is better.
        alike: tags that say what the metric was measured on; where the champion's are others, or
            missing, it stays.

    Raises:
        TrackingError: the version does not exist, or it or the champion lacks the metric.
    """
    client = connect(uri)
    with translated_errors(uri, f"promote {name} version {version}"):
        candidate = get_version(client, uri, name, version)
        score = _score(candidate, metric, mode)
        with only_promotion(client, name):
            champion = get_alias(client, name, CHAMPION)
            if champion is not None and champion.version == candidate.version:
                return RegisteredVersion(name, version, True, None)
            if champion and (difference := _difference(candidate, champion, alike)):
                return RegisteredVersion(name, version, False, None, difference)
            if math.isnan(score) or (champion and score <= _score(champion, metric, mode)):
                return RegisteredVersion(name, version, False, None)
            previous = None if champion is None else str(champion.version)
            if previous is not None:
                client.set_registered_model_alias(name, PREVIOUS, previous)
            client.set_registered_model_alias(name, CHAMPION, version)
            return RegisteredVersion(name, version, True, previous)


def _difference(candidate: ModelVersion, champion: ModelVersion, tags: Sequence[str]) -> str:
    """What the two were not measured alike on; empty where their metrics can be compared."""
    differing = [
        f"{tag} {candidate.tags.get(tag, 'unknown')}, the champion's is "
        f"{champion.tags.get(tag, 'unknown')}"
        for tag in tags
        if candidate.tags.get(tag) != champion.tags.get(tag)
    ]
    return "; ".join(differing)


@contextmanager
def only_promotion(client: MlflowClient, name: str) -> Iterator[None]:
    """Keep other promotions of the model out while the block runs.

    The registry has no compare-and-set, so the lock is a tag of the registered model, with a key
    of its own: it is held by whoever, after setting it, reads no other. Of several the smallest
    stays and the others are taken back. The lock of a process that died goes after 120 s.
    """
    mine, is_set = f"{LOCK_TAG}.{uuid.uuid4().hex}", False
    seen, since_s = set[str](), time.monotonic()
    try:
        while True:
            tags = client.get_registered_model(name).tags
            others = {key for key in tags if key.startswith(LOCK_TAG) and key != mine}
            if is_set and not others:
                break
            if not others:
                client.set_registered_model_tag(name, mine, "an alias is being moved")
                is_set = True
                continue
            if is_set and min(others) < mine:
                client.delete_registered_model_tag(name, mine)
                is_set = False
            if others != seen:
                seen, since_s = others, time.monotonic()
            elif time.monotonic() - since_s > LOCK_LIFETIME_S:
                for key in others:
                    client.delete_registered_model_tag(name, key)
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        if is_set:
            client.delete_registered_model_tag(name, mine)


def _score(version: ModelVersion, metric: str, mode: Literal["max", "min"]) -> float:
    """The metric's value, turned so that larger is better."""
    try:
        value = float(version.tags[metric])
    except (KeyError, ValueError) as error:
        raise TrackingError(
            f"version {version.version} of {version.name} has no number under the tag {metric!r}; "
            f"its tags: {', '.join(sorted(version.tags)) or 'none'}. Declare a metric that all "
            "versions to be compared carry."
        ) from error
    return value if mode == "max" else -value


def pinned_model(*, uri: str, model: str) -> str:
    """``models:/NAME/VERSION`` for ``models:/NAME@ALIAS``; anything else as it is.

    Raises:
        TrackingError: there is no such model or alias; the message names what there is.
    """
    parts = _MODEL.fullmatch(model)
    if parts is None or not parts["alias"]:
        return model
    client = connect(uri)
    with translated_errors(uri, f"give {model}"):
        version = get_alias(client, parts["name"], parts["alias"])
        if version is None:
            raise TrackingError(_nothing_found(client, uri, model))
    return f"models:/{parts['name']}/{version.version}"


def resolve_model(*, uri: str, model: str, cache_dir: Path | None) -> ResolvedModel:
    """Bring a model to this machine.

    Args:
        uri: see ``dsts_ray.tracking.mlflow.connect``; not contacted for a local folder.
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or a folder that holds config.yaml
            and model.safetensors.
        cache_dir: where fetched models are kept, each in a folder of its own, and found again;
            None: a new temporary folder, which the caller may delete.

    Raises:
        TrackingError: there is no such model; the message names what there is.
    """
    if not model.startswith("models:"):
        return ResolvedModel(_checked(Path(model), model), None, None, None, {})
    parts = _MODEL.fullmatch(model)
    if parts is None:
        raise TrackingError(
            f"model is {model!r}; allowed: models:/NAME@ALIAS (for instance @{CHAMPION}), "
            f"models:/NAME/VERSION, or a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    name = parts["name"]
    client = connect(uri)
    with translated_errors(uri, f"give {model}"):
        if parts["alias"]:
            version = get_alias(client, name, parts["alias"])
            if version is None:
                raise TrackingError(_nothing_found(client, uri, model))
        else:
            version = get_version(client, uri, name, parts["version"])
        location = client.get_model_version_download_uri(name, str(version.version))
        directory = _fetch(uri, f"{location.rstrip('/')}/artifacts", version, cache_dir)
    return ResolvedModel(
        _checked(directory, model), name, str(version.version), version.run_id, dict(version.tags)
    )


def _fetch(uri: str, location: str, version: ModelVersion, cache_dir: Path | None) -> Path:
    if cache_dir is None:
        return _download(uri, location, Path(tempfile.mkdtemp(prefix="dsts_ray_model_")))
    digest = hashlib.sha256(location.encode()).hexdigest()[:16]
    kept = cache_dir / f"{version.name}-{version.version}-{digest}"
    if not kept.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir) as folder:
            fetched = _download(uri, location, Path(folder))
            try:
                fetched.rename(kept)
            except OSError:
                if not kept.is_dir():
                    raise
    return kept


def _download(uri: str, location: str, destination: Path) -> Path:
    return Path(
        mlflow.artifacts.download_artifacts(
            artifact_uri=location, dst_path=str(destination), tracking_uri=uri
        )
    )


def _checked(directory: Path, model: str) -> Path:
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (directory / name).is_file()]
    if missing:
        raise TrackingError(
            f"{model}: {directory} lacks {' and '.join(missing)}; give models:/NAME@{CHAMPION}, "
            f"models:/NAME/VERSION, or a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    return directory


def get_version(client: MlflowClient, uri: str, name: str, version: str) -> ModelVersion:
    """Return a version; a TrackingError says what there is instead."""
    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise TrackingError(_nothing_found(client, uri, f"models:/{name}/{version}")) from error


def get_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version that an alias stands for, or None."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _nothing_found(client: MlflowClient, uri: str, model: str) -> str:
    existing = [
        f"models:/{found.name}@{alias} (version {version})"
        for found in client.search_registered_models(max_results=20)
        for alias, version in found.aliases.items()
    ] + [
        f"models:/{found.name}/{found.version}"
        for found in client.search_model_versions(max_results=20)
    ]
    return (
        f"there is no {model} at {without_password(uri)}; there is: "
        f"{', '.join(existing) or 'no registered model'}. Train one, or change the model's address."
    )
