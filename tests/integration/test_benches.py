"""Every bench at the smallest size: both ways do the same work; figures are for real sizes."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsts_ray.bench.networks import Setting
from dsts_ray.bench.table import BENCHES
from tests.support.jobs import REPOSITORY

SETTING = Setting(
    device=torch.device("cpu"),
    scale=0.25,
    repeats=1,
    overrides=(
        "data.num_frames=2",
        "model.backbone.tpn.depths=[1,1,1,1]",
        "model.backbone.tpn.width=4",
        "model.backbone.tpn.neck_channels=16",
        "model.backbone.tpn.neck_groups=4",
        "dsts.num_layers=1",
        "dsts.num_neurons=3",
        "dsts.groups=4",
        "dsts.fuse_groups=4",
    ),
)
PRESETS = ("ssv2_tpn_dsts", "ssv2_swin_dsts", "demo")


@pytest.mark.parametrize("bench", ["scoring", "dispatch"])
def test_both_ways_give_the_same_output(bench: str) -> None:
    (row,) = BENCHES[bench](SETTING)
    assert row.comparison.max_rel_error is not None
    assert row.comparison.max_rel_error < 1e-5
    assert row.ratio == row.comparison.time_ratio


def test_the_gradient_on_features_is_that_of_algorithm_1_with_the_same_d() -> None:
    *iterations, same = BENCHES["udl"](replace(SETTING, batch_size=6))  # of 4, it is near 0
    assert [row.variant for row in iterations] == [
        "sparse, time",
        "sparse, peak memory",
        "dense, time",
        "dense, peak memory",
    ]
    assert same.comparison.max_rel_error is not None
    assert same.comparison.max_rel_error < 1e-5


def test_overheads_are_rows_with_their_bounds() -> None:
    training = BENCHES["train_overhead"](replace(SETTING, batch_size=4))
    assert [row.asked for row in training] == ["at most 1.45", "at most 1.30", "", ""]
    assert all("simulated update" in row.note for row in training)
    (quarter,) = BENCHES["train_overhead"](replace(SETTING, batch_size=4, only="quarter"))
    assert quarter.variant == training[1].variant
    (inference,) = BENCHES["inference_overhead"](SETTING)
    assert inference.asked == "at most 1.10"


def test_frames_have_the_side_of_the_preset_s_evaluation() -> None:
    whole = [replace(SETTING, scale=1.0, overrides=(), preset=p) for p in PRESETS]
    assert [setting.crop_size for setting in whole] == [256, 224, 64]


def test_the_job_writes_json_and_fails_when_a_bound_does_not_hold(tmp_path: Path) -> None:
    arguments = ["inference_overhead", "--scale", "0.1", "--batch-size", "1", "--repeats", "1"]
    job = [sys.executable, "jobs/bench.py", *arguments, "--json", str(tmp_path / "rows.json")]
    overrides = [*SETTING.overrides, "dsts.num_layers=60"]
    done = subprocess.run([*job, *overrides], cwd=REPOSITORY, capture_output=True, check=False)
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["holds"] is False
    assert row["a"]["peak_bytes"] > row["b"]["peak_bytes"] > 0
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scoring", "--scale", "0"], "--scale is 0: must be 0.001 or more"),
        (["scoring", "--repeats", "0"], "--repeats is 0: must be 1 or more"),
        (["udl", "--batch-size", "0"], "--batch-size is 0: must be 1 or more"),
        (["udl", "--only", "dense"], "--only is for train_overhead and data, udl runs whole"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_arguments_that_mean_nothing_are_refused(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "jobs" / "bench.py"), run_name="__main__")
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
