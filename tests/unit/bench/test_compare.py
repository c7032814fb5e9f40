"""The measuring itself: what is timed, what is compared, what a row says."""

import json
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dsts_ray.bench.compare import Comparison, Measured, Way, compare
from dsts_ray.bench.rows import Row, print_rows, write_json

CPU = torch.device("cpu")


def test_ways_run_in_turn_and_the_ratio_is_a_over_b() -> None:
    calls: list[str] = []

    def way(name: str, seconds: float) -> Way:
        def run() -> list[torch.Tensor]:
            calls.append(name)
            time.sleep(seconds)
            return []

        return Way(name, run)

    comparison = compare(way("a", 0.03), way("b", 0.01), device=CPU, repeats=3)
    assert "".join(calls[-6:]) == "ababab"
    assert 2 < comparison.time_ratio < 4
    assert comparison.max_rel_error is None
    for measured in (comparison.a, comparison.b):
        assert measured.min_s <= measured.median_s <= measured.max_s


def test_error_is_relative_to_the_largest_value() -> None:
    one, other = torch.tensor([100.0, 1.0]), torch.tensor([100.0, 2.0])
    comparison = compare(Way("", lambda: [one]), Way("", lambda: [other]), device=CPU, repeats=1)
    assert comparison.max_rel_error == pytest.approx(0.01)


def test_peak_memory_is_that_of_one_run() -> None:
    def fill(mebibytes: int) -> Way:
        return Way("", lambda: [torch.ones(mebibytes * 2**18).sum()])

    comparison = compare(fill(256), fill(64), device=CPU, repeats=1)
    assert comparison.a.peak_bytes == pytest.approx(256 * 2**20, rel=0.1)
    assert comparison.memory_ratio == pytest.approx(4, rel=0.2)


def test_a_row_as_json_and_on_the_console(tmp_path: Path) -> None:
    measured = Measured("slow", 2.0, 1.5, 2.5, 3 * 2**20)
    comparison = Comparison(measured, measured._replace(what="fast", median_s=1.0), 1e-7)
    row = Row("scoring", "1x1x1", "cpu", "2x3", comparison, 2.0, "at least 3", False, "a note")
    write_json([row], tmp_path / "rows.json")
    (read,) = json.loads((tmp_path / "rows.json").read_text())
    assert read == {
        "bench": "scoring",
        "variant": "1x1x1",
        "device": "cpu",
        "shapes": "2x3",
        "ratio": 2.0,
        "asked": "at least 3",
        "holds": False,
        "note": "a note",
        "a": {"what": "slow", "median_s": 2.0, "min_s": 1.5, "max_s": 2.5, "peak_bytes": 3145728},
        "b": {"what": "fast", "median_s": 1.0, "min_s": 1.5, "max_s": 2.5, "peak_bytes": 3145728},
        "max_rel_error": 1e-7,
    }
    console = Console(record=True, width=100, quiet=False)
    with console.capture() as capture:
        print_rows([row], console)
    assert "DOES NOT HOLD" in capture.get()
