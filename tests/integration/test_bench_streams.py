"""The benches that stream, at a size where their figures mean nothing."""

import json
import re
from pathlib import Path

import pytest

from tests.support.jobs import DEMO, TINY, RunJob

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.exhaustive]


def test_the_stream_is_compared_with_decoder_loader_and_step(run_job: RunJob) -> None:
    options = ("--only", "webm", "--scale", "0.3", "--repeats", "1", "--json", "rows.json")
    result = run_job("bench.py", "data", *options)
    assert result.code in (0, 1), result.err
    rows = json.loads(Path("rows.json").read_text())
    assert [row["variant"] for row in rows] == [
        "webm, stream / bare decoder",
        "webm, stream / DataLoader",
        "webm, packed / indexed",
        "webm, waiting / step and waiting",
    ]
    assert [row["asked"] for row in rows] == [
        "at least 0.85",
        "at least 0.90",
        "at least 1.00",
        "under 0.05",
    ]
    assert all(row["ratio"] > 0 for row in rows)
    stages = ("open", "decode and resize", "crop", "serialize", "transfer, and Ray itself")
    shares = re.findall("([a-zR][a-zR, ]+) ([0-9]+)%", rows[0]["note"])
    assert tuple(name for name, _ in shares) == stages


def test_growth_is_a_row_for_each_number_of_videos(run_job: RunJob) -> None:
    result = run_job("bench.py", "growth", "--scale", "0.001", "--repeats", "1", "--json", "g.json")
    assert result.code == 0, result.err
    rows = json.loads(Path("g.json").read_text())
    assert [row["variant"] for row in rows] == [f"{n} videos" for n in (10, 100, 1000, 10000)]
    assert all(row["a"]["median_s"] > 0 for row in rows)


def test_scaling_says_what_two_workers_bring_and_where_their_time_goes(run_job: RunJob) -> None:
    options = ("--scale", "0.5", "--batch-size", "4", "--repeats", "1", "--json", "s.json")
    result = run_job("bench.py", "scaling", *options, *DEMO, *TINY)
    assert result.code == 0, result.err
    (row,) = json.loads(Path("s.json").read_text())
    assert row["ratio"] == pytest.approx(row["a"]["median_s"] / row["b"]["median_s"] / 2)
    shares = re.findall(
        r"(\d) workers?: collectives ([\d.]+)% of a step, waiting for data [\d.]+%, checkpoints",
        row["note"],
    )
    (_, alone), (_, joined) = shares
    assert float(alone) == 0
    assert 0 < float(joined) < 100
