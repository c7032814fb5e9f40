import math
import socket
import sqlite3
import time
from pathlib import Path

import mlflow as mlflow_package
import pytest

from dsts_ray.errors import TrackingError
from dsts_ray.tracking.base import NullTracker, Tracker
from dsts_ray.tracking.mlflow import (
    MLflowTracker,
    connect,
    environment_versions,
    finish_run,
    log_artifacts,
    log_missing,
    open_run,
)


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    """Every stored point, in the order in which MLflow gives them."""
    return [(m.step, m.value) for m in connect(uri).get_metric_history(run_id, key)]


def test_open_run_creates_then_continues_the_run_of_that_name(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")

    def open_named(run_name: str, params: dict[str, object], tags: dict[str, str]) -> str:
        return open_run(
            uri=uri,
            experiment="continued",
            run_name=run_name,
            artifact_root=None,
            params=params,
            tags=tags,
        )

    params = {"optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "note": "n" * 9000}
    first = open_named("one", params, {"version.torch": "1"})
    finish_run(uri=uri, run_id=first, status="FAILED")
    assert open_named("two", {}, {}) != first
    again = open_named("one", {"optim.lr": 0.2, "optim.steps": 3}, {"version.torch": "2"})

    assert again == first
    run = connect(uri).get_run(first)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "one"
    assert run.data.params["optim.lr"] == "0.1"
    assert run.data.params["optim.betas"] == "[0.9, 0.99]"
    assert run.data.params["optim.steps"] == "3"
    assert run.data.params["note"] == "n" * 6000
    assert run.data.tags["version.torch"] == "2"


def test_many_params_are_sent_in_batches(uri: str) -> None:
    run_id = open_run(
        uri=uri,
        experiment="batches",
        run_name="many",
        artifact_root=None,
        params={f"key{index}": index for index in range(250)},
        tags={},
    )
    assert len(connect(uri).get_run(run_id).data.params) == 250


@pytest.mark.parametrize("given", [None, "relative"])
def test_artifact_location_is_absolute(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    run_id = open_run(
        uri=uri,
        experiment=f"location {given}",
        run_name="run",
        artifact_root=given,
        params={},
        tags={},
    )
    beside_database = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
    root = beside_database if given is None else tmp_path / given
    artifact_uri = connect(uri).get_run(run_id).info.artifact_uri
    assert artifact_uri == f"{root.as_uri()}/{run_id}/artifacts"
    assert not list(tmp_path.iterdir())


def test_metrics_arrive_in_order_with_nan_and_infinity(uri: str, run_id: str) -> None:
    tracker: Tracker = MLflowTracker(uri=uri, run_id=run_id, flush_s=0.01)
    for step in range(1, 1501):
        tracker.log_metrics({"train/loss": 1 / step, "dsts/layer0/utilization": 0.5}, step=step)
    tracker.log_metrics({"train/loss": math.nan, "train/grad_norm": math.inf}, step=1501)
    tracker.close()

    loss = history(uri, run_id, "train/loss")
    assert loss[:-1] == [(step, 1 / step) for step in range(1, 1501)]
    assert loss[-1][0] == 1501
    assert math.isnan(loss[-1][1])
    assert len(history(uri, run_id, "dsts/layer0/utilization")) == 1500
    assert connect(uri).get_run(run_id).data.metrics["train/grad_norm"] >= 1e308


def test_steps_replayed_after_a_resume_are_not_doubled(uri: str, run_id: str) -> None:
    first = MLflowTracker(uri=uri, run_id=run_id)
    for step in range(1, 11):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.log_metrics({"val/top1": 0.5}, step=5)
    first.close()
    resumed = MLflowTracker(uri=uri, run_id=run_id)
    for step in range(6, 16):
        resumed.log_metrics({"train/loss": 100.0 + step}, step=step)
    resumed.log_metrics({"val/top1": 0.6}, step=10)
    resumed.log_metrics({"val/top1": 0.7, "val/top5": 0.9}, step=10)
    resumed.close()

    assert [step for step, _ in history(uri, run_id, "train/loss")] == list(range(1, 16))
    assert history(uri, run_id, "train/loss")[9:11] == [(10, 10.0), (11, 111.0)]
    assert history(uri, run_id, "val/top1")[0] == (5, 0.5)
    assert history(uri, run_id, "val/top5") == [(10, 0.9)]


def test_a_store_that_takes_nothing_never_holds_up_logging(uri: str, run_id: str) -> None:
    lock = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    tracker = MLflowTracker(uri=uri, run_id=run_id, flush_s=0.01, close_timeout_s=0.3)
    lock.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    for step in range(1, 51):
        tracker.log_metrics({"a": 1.0, "b": 2.0}, step=step)
    assert time.monotonic() - started < 1.0  # SQLite would wait for 5 s
    with pytest.raises(TrackingError, match=rf"100 metric points of run {run_id}"):
        tracker.close()
    lock.execute("ROLLBACK")
    lock.close()


def test_what_a_killed_process_had_not_delivered_the_next_one_delivers_first(
    uri: str, run_id: str
) -> None:
    killed = MLflowTracker(uri=uri, run_id=run_id, flush_s=3600)
    killed.log_metrics({"train/loss": 3.0}, step=0)
    killed.log_metrics({"train/loss": 2.0}, step=1)
    kept = killed.undelivered()
    assert [(point.key, point.value, point.step) for point in kept] == [
        ("train/loss", 3.0, 0),
        ("train/loss", 2.0, 1),
    ]
    resumed = MLflowTracker(uri=uri, run_id=run_id, undelivered=kept)
    resumed.log_metrics({"train/loss": 1.0}, step=2)
    resumed.close()
    assert resumed.undelivered() == []
    assert history(uri, run_id, "train/loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_system_metrics_stand_in_the_run(uri: str, run_id: str) -> None:
    tracker = MLflowTracker(uri=uri, run_id=run_id, system_metrics=True, flush_s=0.05)
    tracker.log_metrics({"train/loss": 1.0}, step=7)
    deadline = time.monotonic() + 5
    while not history(uri, run_id, "system/cpu_utilization_percentage"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    tracker.close()
    assert history(uri, run_id, "system/system_memory_usage_percentage")[0][0] == 7


def test_null_tracker_takes_everything() -> None:
    tracker: Tracker = NullTracker()
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    tracker.close()


def test_finish_run_logs_closing_metrics_at_the_last_step(uri: str, run_id: str) -> None:
    tracker = MLflowTracker(uri=uri, run_id=run_id)
    tracker.log_metrics({"val/top1": 0.4}, step=30)
    tracker.close()
    finish_run(
        uri=uri,
        run_id=run_id,
        status="FINISHED",
        metrics={"val/top1": 0.5, "val/top1_low": 0.3},
        tags={"registered": "demo 1"},
    )
    run = connect(uri).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"val/top1": 0.5, "val/top1_low": 0.3}
    assert run.data.tags["registered"] == "demo 1"
    assert history(uri, run_id, "val/top1_low") == [(30, 0.3)]


def test_log_artifacts(uri: str, run_id: str, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("| a |")
    log_artifacts(uri=uri, run_id=run_id, directory=tmp_path, artifact_path="report")
    assert [f.path for f in connect(uri).list_artifacts(run_id, "report")] == ["report/table.md"]
    with pytest.raises(TrackingError, match="no folder"):
        log_artifacts(uri=uri, run_id=run_id, directory=tmp_path / "none", artifact_path=None)


def test_environment_versions() -> None:
    versions = environment_versions()
    assert versions["version.mlflow"] == mlflow_package.__version__
    assert set(versions) == {
        f"version.{name}"
        for name in ("python", "torch", "ray", "deepspeed", "mlflow", "numpy", "decord", "av")
    }


@pytest.mark.parametrize(
    "bad", ["file:///tmp/mlruns", "mlruns", "sqlite:///relative.db", "postgresql://a:secret@b/c"]
)
def test_unknown_address_is_refused(bad: str) -> None:
    with pytest.raises(TrackingError, match=r"allowed: http.*sqlite:////ABSOLUTE") as caught:
        connect(bad)
    assert "secret" not in str(caught.value)


def test_unreachable_server_is_reported_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://me:secret@127.0.0.1:{unused.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(TrackingError, match="no MLflow server answers") as caught:
        open_run(uri=address, experiment="e", run_name="r", artifact_root=None, params={}, tags={})
    assert time.monotonic() - started < 3
    assert "secret" not in str(caught.value)


def test_unusable_database_is_reported_at_once(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_text("not a database at all" * 100)
    (tmp_path / "file").write_text("")
    for path, create in [
        (garbage, True),
        (tmp_path / "file" / "mlflow.db", True),
        (tmp_path / "missing.db", False),
    ]:
        with pytest.raises(TrackingError, match=str(path)):
            connect(f"sqlite:///{path}", create=create)
    assert not (tmp_path / "missing.db").exists()


def test_deleted_experiment_is_reported(uri: str) -> None:
    client = connect(uri)
    client.delete_experiment(client.create_experiment("deleted"))
    with pytest.raises(TrackingError, match=r"open run 'r' in experiment 'deleted'"):
        open_run(
            uri=uri, experiment="deleted", run_name="r", artifact_root=None, params={}, tags={}
        )


def test_what_a_killed_process_did_not_deliver_is_logged_once(uri: str, run_id: str) -> None:
    tracker = MLflowTracker(uri=uri, run_id=run_id, flush_s=0.01)
    tracker.log_metrics({"val/top1": 0.25, "train/loss": 2.0}, step=3)
    tracker.log_metrics({"train/loss": 1.0}, step=7)
    tracker.close()
    for _ in range(2):
        log_missing(
            uri=uri,
            run_id=run_id,
            metrics={"val/top1": 0.5, "train/loss": math.nan},
            step=7,
            timestamp=int(time.time() * 1000),
        )

    def points(key: str) -> list[tuple[int, float]]:
        return [(p.step, p.value) for p in connect(uri).get_metric_history(run_id, key)]

    assert points("val/top1") == [(3, 0.25), (7, 0.5)]
    assert points("train/loss") == [(3, 2.0), (7, 1.0)]


def test_what_a_killed_process_delivers_late_is_logged_once(uri: str, run_id: str) -> None:
    tracker = MLflowTracker(uri=uri, run_id=run_id, flush_s=3600.0)
    first = tracker.log_metrics({"train/loss": math.nan}, step=7)
    time.sleep(0.01)
    assert tracker.log_metrics({"val/top1": 0.5}, step=7) == first
    metrics = {"train/loss": math.nan, "val/top1": 0.5}
    log_missing(uri=uri, run_id=run_id, metrics=metrics, step=7, timestamp=first)
    tracker.close()
    history = [connect(uri).get_metric_history(run_id, key) for key in metrics]
    assert [len(points) for points in history] == [1, 1]
