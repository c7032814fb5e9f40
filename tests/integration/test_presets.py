"""Every recipe's preset trains and evaluates at reduced size, by overrides alone."""

import json
import math
import re
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dsts_ray.build import build_model
from dsts_ray.config.load import config_from_yaml
from tests.support.jobs import RunJob

COMMON = (
    "data.manifest=demo",
    "data.demo.num_classes=4",
    "data.demo.num_train_clips=24",
    "data.demo.num_test_clips=4",
    "data.demo.size=64",
    "data.demo.min_frames=8",
    "data.demo.max_frames=12",
    "data.num_frames=8",
    "data.short_side=36",
    "data.crop_size=32",
    "evaluation.short_side=36",
    "evaluation.crop_size=32",
    "data.num_decoders=1",
    "data.cpus_per_decoder=0.25",
    "model.backbone.tpn.depths=[1, 1, 1, 1]",
    "model.backbone.tpn.width=4",
    "model.backbone.tpn.neck_channels=16",
    "model.backbone.tpn.neck_groups=4",
    "model.backbone.swin3d.channels=8",
    "model.backbone.swin3d.depths=[1, 1, 2, 1]",
    "model.backbone.swin3d.heads=[1, 1, 2, 2]",
    "model.backbone.swin3d.window=[2, 4, 4]",
    "dsts.num_neurons=2",
    "dsts.groups=4",
    "dsts.fuse_groups=4",
    "train.batch_size=9",  # on two workers: micro-batches of 3, 2, 2 and 2 clips
    "train.micro_batch_size=3",
    "train.max_steps=2",
    "optim.warmup_epochs=0",  # the first of two steps would have the learning rate 0
    "scaling.num_workers=2",
    "scaling.use_gpu=false",
    "scaling.cpus_per_worker=0.25",
    "tracking.model_name=",
)
BY_DATASET = {
    "ssv2": ("data.demo.layout=ssv2", "augment.flip_labels=[[0, 1], [2, 3]]"),
    "diving48": ("data.demo.layout=diving48",),
}

ALWAYS = ("diving48_swin_dsts",)  # TPN is what all other jobs train
PRESETS = [
    pytest.param(
        *parts,
        id="_".join(parts[:2]) + parts[2],
        marks=[] if "_".join(parts[:2]) + parts[2] in ALWAYS else pytest.mark.exhaustive,
    )
    for parts in product(("ssv2", "diving48"), ("tpn", "swin"), ("", "_dsts"))
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage folder for all runs: two demo data sets, one MLflow store."""
    return tmp_path_factory.mktemp("storage")


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("dataset", "backbone", "dsts"), PRESETS)
def test_a_preset_trains_and_evaluates(
    run_job: RunJob, storage: Path, dataset: str, backbone: str, dsts: str
) -> None:
    preset = f"{dataset}_{backbone}{dsts}"
    overrides = (*COMMON, *BY_DATASET[dataset], f"storage.path={storage}", f"name={preset}")
    result = run_job("train.py", "--preset", preset, *overrides)
    assert result.code == 0, result.out + result.err
    stated = {"tpn": "0.01", "swin": "0.0003"}[backbone]
    assert f"learning rate {stated} is stated for a batch of 64: scaled to" in result.out
    summary = json.loads((storage / preset / "summary.json").read_text())
    assert math.isfinite(summary["train/loss_last"])
    assert 0.0 <= summary["val/top1_low"] <= summary["val/top1"] <= 1.0
    assert (summary["num_dsts_parameters"] > 0) == bool(dsts)
    assert ("udl/held_out_loss" in summary) == bool(dsts)
    assert summary["refused"] == []
    assert summary["evaluation"]["protocol"] == {"tpn": "2x3", "swin": "1x3"}[backbone]
    parts = {"backbone", "classifier.fc"} | ({"classifier.dsts"} if dsts else set())
    assert moved_parts(storage / preset) == parts


def moved_parts(run: Path) -> set[str]:
    """Parts of the model all of whose weights are not what they were at the start."""
    config = config_from_yaml(run / "config.yaml")
    (checkpoint,) = run.glob("checkpoints/*/model.safetensors")
    trained = load_file(checkpoint)
    moved = defaultdict(list)
    for name, initial in build_model(config, 4).named_parameters():
        part = re.match(r"backbone|classifier\.\w+", name)
        assert part
        if initial.ndim > 1:
            moved[part[0]].append(not torch.equal(initial, trained[name]))
    return {part for part, flags in moved.items() if all(flags)}
