"""The README's path for a newcomer, command by command, and what the server refuses."""

import base64
import json
import os
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsts_ray.predictor import load_predictor
from tests.support.jobs import REPOSITORY, TrainedRun, answers, free_port, kill_tree, wait_for
from tests.support.videos import write_video

PORT = "5001"
MAX_BYTES = 200_000


def blocks() -> dict[str, str]:
    """The README's commands for a newcomer, by the name that a comment before them gives."""
    marked = r"<!-- newcomer: (\w+) -->\n```\n(.*?)```"
    return dict(re.findall(marked, (REPOSITORY / "README.md").read_text(), flags=re.DOTALL))


def run(trained: TrainedRun, commands: str) -> str:
    """Run commands in the trained run's working directory, as in a clone."""
    work = trained.home.work
    if not (work / "jobs").exists():
        (work / "jobs").symlink_to(REPOSITORY / "jobs")
    ended = trained.home.run("bash", "-euc", commands)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@dataclass(frozen=True)
class Server:
    """A served champion."""

    port: int
    folder: Path

    def answer(self, body: object) -> tuple[int, Any]:
        """Post JSON, or bytes as they are; returns status and answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=90) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def server(trained: TrainedRun) -> Iterator[Server]:
    """The README's command to serve, on a free port, with small limits."""
    port = free_port()
    command = blocks()["serve"].replace(f"--port {PORT}", f"--port {port}")
    limits = {"DSTS_SERVE_MAX_BYTES": str(MAX_BYTES), "DSTS_SERVE_MAX_SECONDS": "2"}
    log = trained.home.folder / "serve.log"
    with log.open("w") as out:
        process = trained.home.spawn("bash", "-euc", command, out=out, variables=limits)
    try:
        wait_for(process, lambda: answers(f"http://127.0.0.1:{port}/ping"), 180, log.read_text)
        yield Server(port, trained.storage / "data")
    finally:
        kill_tree(process)


def encoded(content: bytes) -> dict[str, str]:
    return {"video": base64.b64encode(content).decode()}


def records(*rows: object, **params: object) -> dict[str, object]:
    return {"dataframe_records": list(rows), "params": params}


def test_train_explain_and_predict(trained: TrainedRun) -> None:
    train, explain, predict = blocks()["learn"].splitlines()
    script = "python jobs/train.py"
    assert train.startswith(script)
    tiny = train.replace(script, f"{script} {shlex.join(trained.command)}")
    out = run(trained, "\n".join((tiny, explain, predict)))
    assert f"run {trained.folder.name} is finished" in out
    named = re.search(r"`(runs/explanations/[^`]*)`", (REPOSITORY / "README.md").read_text())
    assert named
    page = trained.home.work / named[1]
    assert f"open {page}" in out
    assert page.is_file()
    clips = list(trained.home.work.glob(shlex.split(predict, comments=True)[-1]))
    assert len(clips) == 4
    assert out.count("active neurons: layer 0: ") == 4


def test_serve_and_post(trained: TrainedRun, server: Server) -> None:
    post = blocks()["post"].replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{server.port}")
    from_bytes, from_path = map(json.loads, run(trained, post).splitlines())
    assert from_bytes == from_path
    (row,) = from_bytes["predictions"]
    assert len(row["classes"]) == len(row["probabilities"]) == 3
    assert row["class"] == row["classes"][0]
    assert len(row["neurons"]) == 2
    assert row["error"] is None


def test_videos_and_refusals(trained: TrainedRun, server: Server, tmp_path: Path) -> None:
    """One server for all: it must be well after each of them."""
    predictor = load_predictor(trained.folder / "checkpoints" / best_checkpoint(trained))
    video = sorted(server.folder.rglob("*.mp4"))[0]
    (expected,) = predictor.predict([str(video)], top_k=2)
    good, broken = encoded(video.read_bytes()), encoded(b"no video")
    long_video = write_video(tmp_path / "long.mp4", num_frames=30, fps=10).read_bytes()
    outside = trained.home.folder / "outside.mp4"
    outside.write_bytes(video.read_bytes())
    (server.folder / "link.mp4").symlink_to(outside)
    try:
        for body, reason in (
            (records(good, top_k=0), "top_k is 0; allowed: 1 or more"),
            (records({"video": good["video"], "path": str(video)}), "row 0 gives 2 of the columns"),
            (records(broken), "no video could be read; row 0: "),
            (records(encoded(bytes(MAX_BYTES + 1))), f"this server takes {MAX_BYTES}"),
            (records(good, encoded(long_video)), "lasts 3.0 s; 2 s are allowed"),
            (records({"path": str(outside)}), "lies outside the folder"),
            (records({"path": "link.mp4"}), "lies outside the folder"),
            (records({"path": os.path.relpath(outside, server.folder)}), "lies outside the folder"),
            (records({"path": "gone.mp4"}), "there is no such file"),
            (records({"path": 5}), ""),
            (records({}), "has no row with a column video or path"),
            ({"videos": []}, ""),
            (b"no JSON", "valid JSON"),
        ):
            status, answer = server.answer(body)
            assert status == 400, (body, answer)
            assert reason in answer["message"]
            status, answer = server.answer(records(broken, good, top_k=2))
            assert status == 200, answer
            refused, read = answer["predictions"]
            assert "does not decode" in refused["error"]
            assert refused["classes"] == []
            assert (read["classes"], read["neurons"]) == (expected.classes, expected.neurons)
            assert read["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    finally:
        (server.folder / "link.mp4").unlink()


def best_checkpoint(trained: TrainedRun) -> str:
    return Path(trained.summary["best_checkpoint"]).name
