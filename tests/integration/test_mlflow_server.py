"""Tracking and registry against a real MLflow server on loopback."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
import pytest

from dsts_ray.errors import TrackingError
from dsts_ray.tracking import registry
from dsts_ray.tracking.mlflow import MLflowTracker, connect, finish_run, log_artifacts, open_run
from dsts_ray.tracking.registry import RegisteredVersion, promote_if_better, resolve_model
from tests.support.mlflow_server import Server
from tests.support.slow_line import SlowLine

MODEL_SCRIPT = """
from dsts_ray.tracking.pyfunc import Prediction, serve


class LengthPredictor:
    def __init__(self, directory, limits):
        self.scale = float((directory / "config.yaml").read_text())
        (directory / "model.safetensors").read_bytes()

    def predict(self, sources, *, top_k):
        return [
            Prediction(["dive"] * top_k, [self.scale] * top_k, [len(source)], None)
            for source in sources
        ]


serve(LengthPredictor)
"""


@pytest.fixture
def run_id(server: Server, request: pytest.FixtureRequest) -> str:
    return open_run(
        uri=server.uri,
        experiment="tests",
        run_name=request.node.name,
        artifact_root="ignored by a server",
        params={"optim": {"lr": 0.1}},
        tags={"version.python": "3"},
    )


@pytest.fixture
def register(server: Server, run_id: str, tmp_path: Path) -> Callable[[str, float], str]:
    (tmp_path / "config.yaml").write_text("0.25")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model_script.py").write_text(MODEL_SCRIPT)

    def register(name: str, top1: float) -> str:
        return registry.register_model(
            uri=server.uri,
            run_id=run_id,
            name=name,
            model_script=tmp_path / "model_script.py",
            artifacts={
                "config": tmp_path / "config.yaml",
                "weights": tmp_path / "model.safetensors",
            },
            code_paths=[],
            example=b"video",
            pip_requirements=["mlflow"],
            metrics={"val/top1": top1},
            tags={},
        )

    return register


def steps(server: Server, run_id: str, key: str) -> list[int]:
    return [metric.step for metric in connect(server.uri).get_metric_history(run_id, key)]


def test_run_is_continued_and_replayed_steps_are_not_doubled(
    server: Server, run_id: str, tmp_path: Path
) -> None:
    first = MLflowTracker(uri=server.uri, run_id=run_id, flush_s=0.05)
    for step in range(1, 21):
        first.log_metrics({"train/loss": 1 / step, "train/nan": float("nan")}, step=step)
    first.close()
    again = open_run(
        uri=server.uri,
        experiment="tests",
        run_name="test_run_is_continued_and_replayed_steps_are_not_doubled",
        artifact_root=None,
        params={"optim": {"lr": 0.2}},
        tags={},
    )
    resumed = MLflowTracker(uri=server.uri, run_id=again, flush_s=0.05)
    for step in range(11, 31):
        resumed.log_metrics({"train/loss": 1 / step, "train/nan": float("nan")}, step=step)
    resumed.close()
    (tmp_path / "summary.json").write_text("{}")
    log_artifacts(uri=server.uri, run_id=again, directory=tmp_path, artifact_path="results")
    finish_run(uri=server.uri, run_id=again, status="FINISHED", metrics={"val/top1": 0.5})

    assert again == run_id
    assert steps(server, run_id, "train/loss") == list(range(1, 31))
    assert steps(server, run_id, "train/nan") == list(range(1, 31))
    run = connect(server.uri).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"optim.lr": "0.1"}
    files = connect(server.uri).list_artifacts(run_id, "results")
    assert "results/summary.json" in [file.path for file in files]


def test_outage_of_the_server_loses_nothing(server: Server, run_id: str) -> None:
    tracker = MLflowTracker(uri=server.uri, run_id=run_id, flush_s=0.05)
    tracker.log_metrics({"train/loss": 0.0}, step=0)
    while not steps(server, run_id, "train/loss"):
        time.sleep(0.05)
    server.kill()
    try:
        started = time.monotonic()
        for step in range(1, 101):
            tracker.log_metrics({"train/loss": float(step)}, step=step)
        assert time.monotonic() - started < 0.1
        time.sleep(0.5)
    finally:
        server.start()
    tracker.close()
    assert steps(server, run_id, "train/loss") == list(range(101))


def test_a_slow_server_is_waited_for_at_the_end(server: Server, run_id: str) -> None:
    os.killpg(server.process.pid, signal.SIGSTOP)
    wake = threading.Timer(6, os.killpg, (server.process.pid, signal.SIGCONT))
    wake.start()
    finish_run(uri=server.uri, run_id=run_id, status="FINISHED")
    wake.join()
    assert connect(server.uri).get_run(run_id).info.status == "FINISHED"


def test_many_points_are_delivered_to_a_slow_server_at_the_end(server: Server, run_id: str) -> None:
    line = SlowLine(server.port, delay_s=1.5)
    tracker = MLflowTracker(uri=line.uri, run_id=run_id, flush_s=60.0, close_timeout_s=3.0)
    for step in range(3000):
        tracker.log_metrics({"train/loss": float(step)}, step=step)
    tracker.close()
    line.close()
    assert steps(server, run_id, "train/loss") == list(range(3000))


def test_a_server_that_stays_away_is_reported_by_close(server: Server, run_id: str) -> None:
    server_of_nobody = Server(server.folder)
    tracker = MLflowTracker(
        uri=server_of_nobody.uri, run_id=run_id, flush_s=0.05, close_timeout_s=0.5
    )
    tracker.log_metrics({"a": 1.0, "b": 2.0}, step=1)
    with pytest.raises(TrackingError, match=f"2 metric points of run {run_id}"):
        tracker.close()


def test_a_server_that_never_answers_is_reported_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(TrackingError, match="no MLflow server answers"):
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 8


def test_another_kind_of_server_is_reported(server: Server) -> None:
    with pytest.raises(TrackingError, match="no MLflow server answers as it should"):
        connect(f"{server.uri}/somewhere/else")


def test_register_promote_fetch_and_predict(
    server: Server,
    register: Callable[[str, float], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert register("served", 0.5) == "1"
    assert register("served", 0.75) == "2"
    for version in ("1", "2"):
        outcome = promote_if_better(
            uri=server.uri, name="served", version=version, metric="val/top1", mode="max"
        )
    assert outcome == RegisteredVersion("served", "2", is_champion=True, previous="1")

    found = resolve_model(
        uri=server.uri, model="models:/served@champion", cache_dir=tmp_path / "cache"
    )
    assert (found.version, found.tags) == ("2", {"val/top1": "0.75"})
    assert (found.directory / "config.yaml").read_text() == "0.25"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    model = mlflow.pyfunc.load_model("models:/served@champion", dst_path=str(downloaded))
    table = model.predict(pd.DataFrame({"video": [b"abcdef"]}), params={"top_k": 2})
    assert table["class"].tolist() == ["dive"]
    assert table["probabilities"].tolist() == [[0.25, 0.25]]
    assert table["neurons"].tolist() == [[6]]
    assert list(downloaded.rglob("config.yaml"))
    assert not list(downloaded.rglob("*.pkl"))


def test_of_concurrent_promotions_the_best_version_wins(
    server: Server, register: Callable[[str, float], str]
) -> None:
    scores = [0.5, 0.9, 0.6, 0.8, 0.7]
    versions = [register("contested", score) for score in scores]
    start = threading.Barrier(len(versions))
    outcomes: dict[str, RegisteredVersion] = {}

    def promote(version: str) -> None:
        start.wait()
        outcomes[version] = promote_if_better(
            uri=server.uri, name="contested", version=version, metric="val/top1", mode="max"
        )

    threads = [threading.Thread(target=promote, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    best = versions[1]
    score_of = dict(zip(versions, scores, strict=True))
    chain = [best]
    while (before := outcomes[chain[-1]].previous) is not None:
        chain.append(before)
    assert sorted(chain) == [v for v in versions if outcomes[v].is_champion]
    assert [score_of[v] for v in chain] == sorted((score_of[v] for v in chain), reverse=True)
    champion = connect(server.uri).get_model_version_by_alias("contested", "champion")
    assert str(champion.version) == best
    assert not connect(server.uri).get_registered_model("contested").tags


def test_failed_registration_leaves_nothing(
    server: Server, register: Callable[[str, float], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    artifacts = server.folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    aside = artifacts.rename(server.folder / "aside")
    artifacts.write_text("a file where the artifact store was")
    try:
        with pytest.raises(TrackingError, match="did not register a version of 'stillborn'"):
            register("stillborn", 0.5)
    finally:
        artifacts.unlink()
        aside.rename(artifacts)
    assert not connect(server.uri).search_registered_models("name = 'stillborn'")
