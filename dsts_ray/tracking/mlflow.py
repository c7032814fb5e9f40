"""Runs on an MLflow tracking server, or on an embedded SQLite store: open, log, finish."""

import importlib.metadata
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.utils.validation import (
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_TAG_VAL_LENGTH,
)

from dsts_ray.errors import TrackingError
from dsts_ray.tracking.base import Point
from dsts_ray.tracking.connection import connect, translated_errors, without_password

RUN_NAME_TAG = "dsts_ray.run_name"
VERSIONED_PACKAGES = ("torch", "ray", "deepspeed", "mlflow", "numpy", "decord", "av")
SYSTEM_METRICS_INTERVAL_S = 10.0


def environment_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as tags ``version.NAME``."""
    versions = {"version.python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        try:
            versions[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[f"version.{package}"] = "not installed"
    return versions


def open_run(
    *,
    uri: str,
    experiment: str,
    run_name: str,
    artifact_root: str | None,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> str:
    """Continue the run ``run_name`` of ``experiment``; create either where it is missing.

    Args:
        uri: see ``connect``.
        experiment: name of the experiment.
        run_name: name that identifies the run within the experiment (tag ``dsts_ray.run_name``).
        artifact_root: folder or storage address for the artifacts of a new experiment on an SQLite
            store; None: ``artifacts`` beside the database. A server decides itself.
        params: the resolved configuration, nested or under dotted keys. A key that the run has
            already keeps its value.
        tags: run tags to set; they replace tags of the same name.

    Returns:
        The run id.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, create=True)
    with translated_errors(uri, f"open run {run_name!r} in experiment {experiment!r}"):
        experiment_id = _experiment_id(client, experiment, _artifact_location(uri, artifact_root))
        run = _find_run(client, experiment_id, run_name)
        if run is None:
            run = client.create_run(experiment_id, run_name=run_name, tags={RUN_NAME_TAG: run_name})
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        run_id = run.info.run_id
        fresh = {key: value for key, value in _flatten(params) if key not in run.data.params}
        client.log_batch(
            run_id,
            params=[Param(key, value[:MAX_PARAM_VAL_LENGTH]) for key, value in fresh.items()],
            tags=_run_tags(tags),
        )
    return run_id


def _artifact_location(uri: str, artifact_root: str | None) -> str | None:
    if not uri.startswith("sqlite:"):
        return None
    if artifact_root is None:
        return (Path(uri.removeprefix("sqlite:///")).parent / "artifacts").as_uri()
    return artifact_root if "://" in artifact_root else Path(artifact_root).resolve().as_uri()


def _experiment_id(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(name, artifact_location=artifact_location)
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return found.experiment_id


def _find_run(client: MlflowClient, experiment_id: str, run_name: str) -> Run | None:
    runs = client.search_runs(
        [experiment_id],
        filter_string=f'tags.`{RUN_NAME_TAG}` = "{run_name}"',
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return runs[0] if runs else None


def _flatten(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _run_tags(tags: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(key, value[:MAX_TAG_VAL_LENGTH]) for key, value in tags.items()]


def _last_steps(client: MlflowClient, run_id: str) -> dict[str, int]:
    return {metric.key: metric.step for metric in client.get_run(run_id).data.to_proto().metrics}


def log_artifacts(*, uri: str, run_id: str, directory: Path, artifact_path: str | None) -> None:
    """Copy the files of ``directory`` into the run's artifacts, under ``artifact_path`` or on top.

    Raises:
        TrackingError: the folder is missing, or the store does not take the files.
    """
    if not directory.is_dir():
        raise TrackingError(f"artifacts are to be logged from {directory}, which is no folder")
    client = connect(uri, patient=True)
    with translated_errors(uri, f"take the files of {directory}"):
        client.log_artifacts(run_id, str(directory), artifact_path)


def log_missing(
    *, uri: str, run_id: str, metrics: Mapping[str, float], step: int, timestamp: int
) -> None:
    """Log metrics of a step on behalf of a process that was killed before it delivered them.

    What the run has from this step or a later one is left alone; what the process delivers after
    all is stored once, as it has the same timestamp.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, patient=True)
    with translated_errors(uri, f"take metrics of run {run_id}"):
        logged = _last_steps(client, run_id)
        missing = {key: value for key, value in metrics.items() if logged.get(key, -1) < step}
        points = [Metric(key, float(value), timestamp, step) for key, value in missing.items()]
        client.log_batch(run_id, metrics=points)


def finish_run(
    *,
    uri: str,
    run_id: str,
    status: Literal["FINISHED", "FAILED", "KILLED"],
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """End the run with its closing metrics (at the run's last step) and tags.

    Raises:
        TrackingError: the store cannot be reached or refuses.
    """
    client = connect(uri, patient=True)
    with translated_errors(uri, f"finish run {run_id}"):
        step = max(_last_steps(client, run_id).values(), default=0)
        now_ms = _now_ms()
        closing = [Metric(key, value, now_ms, step) for key, value in (metrics or {}).items()]
        client.log_batch(run_id, metrics=closing, tags=_run_tags(tags or {}))
        client.set_terminated(run_id, status=status)


class MLflowTracker:
    """Sends one run's metrics from a background thread: training never waits for the server.

    What the server does not take now (an outage, a slow answer) is kept in memory and sent later,
    in order; a batch sent twice is stored once. What is undelivered at a checkpoint goes into it,
    so that a process killed there loses nothing. Steps that an earlier process of the same run has
    logged (it trained beyond the checkpoint from which this one continues) are not logged again.
    """

    def __init__(
        self,
        *,
        uri: str,
        run_id: str,
        undelivered: Sequence[Point] = (),
        system_metrics: bool = False,
        flush_s: float = 2.0,
        close_timeout_s: float = 60.0,
    ) -> None:
        """Start the background thread; the server is first contacted there.

        Args:
            uri: see ``connect``.
            run_id: run that ``open_run`` gave.
            undelivered: points an earlier process left, sent first.
            system_metrics: log ``system/*`` of this machine (processor, memory, disk, network, and
                NVIDIA GPUs where nvidia-ml-py is installed) every 10 s, at the step reached then.
            flush_s: seconds between deliveries.
            close_timeout_s: seconds without an answer after which ``close`` gives up.
        """
        self._run_id = run_id
        self._flush_s, self._close_timeout_s = flush_s, close_timeout_s
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._monitors = _system_monitors() if system_metrics else []
        self._lock = threading.Lock()
        self._unsent = list(undelivered)
        self._steps_before: dict[str, int] | None = None
        self._step = self._step_timestamp = 0
        self._last_error: Exception | None = None
        self._answered_s = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-tracker", daemon=True)
        self._thread.start()

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> int:
        """Queue the metrics (NaN and infinities included) of one step; return at once."""
        if step != self._step or not self._step_timestamp:
            self._step, self._step_timestamp = step, _now_ms()
        self._enqueue(metrics, step, self._step_timestamp)
        return self._step_timestamp

    def undelivered(self) -> list[Point]:
        """See :class:`~dsts_ray.tracking.base.Tracker`."""
        with self._lock:
            return list(self._unsent)

    def close(self) -> None:
        """Deliver everything queued, however slowly the server takes it, then return.

        Raises:
            TrackingError: the server took nothing for ``close_timeout_s`` seconds; says how many
                points are undelivered.
        """
        self._answered_s = time.monotonic()
        self._closing.set()
        while self._thread.is_alive() and (left := self._patience_s()) > 0:
            self._thread.join(left)
        num_undelivered = len(self.undelivered())
        if num_undelivered:
            reason = without_password(self._last_error)
            raise TrackingError(
                f"{num_undelivered} metric points of run {self._run_id} were not delivered: the "
                f"server took nothing for {self._close_timeout_s:g} s ({reason}). Start the server "
                "again; a resumed run logs again what follows its checkpoint."
            )

    def _enqueue(self, metrics: Mapping[str, float], step: int, timestamp: int) -> None:
        points = [Point(key, float(value), timestamp, step) for key, value in metrics.items()]
        with self._lock:
            self._unsent += points

    def _run(self) -> None:
        next_sample_s = time.monotonic()
        while not self._closing.wait(self._flush_s):
            if self._monitors and time.monotonic() >= next_sample_s:
                self._sample_system_metrics()
                next_sample_s += SYSTEM_METRICS_INTERVAL_S
            self._deliver()
        while not self._deliver() and self._patience_s() > 0:
            time.sleep(self._flush_s)

    def _patience_s(self) -> float:
        return self._answered_s + self._close_timeout_s - time.monotonic()

    def _deliver(self) -> bool:
        """Send what is queued; False when the server did not take all of it."""
        try:
            if self._steps_before is None:
                self._steps_before = _last_steps(self._client, self._run_id)
                self._answered_s = time.monotonic()
            while points := self.undelivered()[:MAX_METRICS_PER_BATCH]:
                fresh = [p for p in points if p.step > self._steps_before.get(p.key, -1)]
                self._client.log_batch(self._run_id, metrics=[Metric(*point) for point in fresh])
                self._answered_s = time.monotonic()
                with self._lock:
                    del self._unsent[: len(points)]
        except (MlflowException, OSError) as error:
            self._last_error = error
            return False
        return True

    def _sample_system_metrics(self) -> None:
        for monitor in self._monitors:
            monitor.collect_metrics()
            sample: dict[str, float] = monitor.aggregate_metrics() or {}
            monitor.clear_metrics()
            metrics = {f"system/{key}": value for key, value in sample.items()}
            self._enqueue(metrics, self._step, _now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)


def _system_monitors() -> list[BaseMetricsMonitor]:
    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):
        monitors.append(GPUMonitor())
    return monitors
