"""Reading runs back: by name, by tag, their metrics and files."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities import Run

from dsts_ray.tracking.connection import connect, translated_errors
from dsts_ray.tracking.mlflow import RUN_NAME_TAG


class TrackedRun(NamedTuple):
    """A run as MLflow has it."""

    run_id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    started_ms: int  # since 1970
    metrics: dict[str, float]  # the last values
    tags: dict[str, str]


def find_runs(
    *, uri: str, experiment: str, names: Iterable[str], patient: bool = False
) -> dict[str, TrackedRun]:
    """Return the newest run of each name; names without one are left out.

    Args:
        uri: see ``connect``.
        experiment: of the runs.
        names: of the runs.
        patient: see ``connect``.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, patient=patient)
    found: dict[str, TrackedRun] = {}
    with translated_errors(uri, f"search runs of {experiment!r}"):
        for name in names:
            for run in _search(client, experiment, f'tags.`{RUN_NAME_TAG}` = "{name}"'):
                found[name] = _tracked(run)
    return found


def find_latest(
    *, uri: str, tag: str, value: str, newest_by: str | None = None
) -> TrackedRun | None:
    """Return the newest run with this tag, of all experiments; None without one.

    Args:
        uri: see ``connect``.
        tag: that the run has.
        value: of the tag.
        newest_by: tag by whose text the runs are ordered; those without it come after, as all do
            by their start where none is named.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri)
    order = [f"tags.`{newest_by}` DESC"] if newest_by else []
    with translated_errors(uri, f"search runs with {tag} = {value!r}"):
        runs = _search(client, None, f'tags.`{tag}` = "{value}"', order)
    return _tracked(runs[0]) if runs else None


def get_run(*, uri: str, run_id: str) -> TrackedRun:
    """Return a run.

    Raises:
        TrackingError: the store cannot be reached, or has no such run.
    """
    client = connect(uri)
    with translated_errors(uri, f"give run {run_id}"):
        return _tracked(client.get_run(run_id))


def metric_history(*, uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    """Return a metric's (step, value) by step, of each step the last.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri)
    with translated_errors(uri, f"give {key} of run {run_id}"):
        points = client.get_metric_history(run_id, key)
    return sorted({point.step: point.value for point in points}.items())


@contextmanager
def fetched(*, uri: str, run_id: str, path: str) -> Iterator[Path | None]:
    """Bring a file or folder of a run's artifacts here for the block's time; None without it.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri)
    with tempfile.TemporaryDirectory() as folder:
        found = None
        with translated_errors(uri, f"give {path} of run {run_id}"):
            beside = client.list_artifacts(run_id, path.rpartition("/")[0] or None)
            if path in [entry.path for entry in beside]:
                found = Path(
                    mlflow.artifacts.download_artifacts(
                        run_id=run_id, artifact_path=path, dst_path=folder, tracking_uri=uri
                    )
                )
        yield found


def _search(
    client: MlflowClient, experiment: str | None, condition: str, order: Sequence[str] = ()
) -> list[Run]:
    """The newest run, or none, of an experiment or of all."""
    experiments = [client.get_experiment_by_name(experiment)] if experiment else []
    if not experiment:
        experiments = list(client.search_experiments())
    ids = [found.experiment_id for found in experiments if found is not None]
    if not ids:
        return []
    return client.search_runs(
        ids,
        filter_string=condition,
        order_by=[*order, "attributes.start_time DESC"],
        max_results=1,
    )


def _tracked(run: Run) -> TrackedRun:
    return TrackedRun(
        run.info.run_id,
        run.data.tags.get(RUN_NAME_TAG, run.info.run_name or ""),
        run.info.status,
        run.info.start_time or 0,
        dict(run.data.metrics),
        dict(run.data.tags),
    )
