import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dsts_ray.errors import CheckpointError
from dsts_ray.tracking.base import Point
from dsts_ray.train.checkpoint import (
    OPTIMIZER_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    TrainingState,
    collect_optimizer_state,
    load_optimizer_state,
    load_weights,
    read_classes,
    read_state,
    save_training_state,
    save_weights,
)
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.step import TrainingStep
from tests.support.tiny import clip_batch, copied_state, tiny_config, tiny_model, torch_step

CONFIG = tiny_config("udl.inner_lr=0.5")
CLASSES = ("a", "b/2", "c", "ü")
STATE = TrainingState(
    1,
    {"val/top1": 0.5},
    (Point("train/loss", 2.5, 1_700_000_000_000, 0),),
    Ledger(wall_s=60.0, training_s=40.0, num_clips=8, refused={3: "video 3 is broken"}),
)


def fresh() -> TrainingStep:
    return torch_step(tiny_model(CONFIG), CONFIG)


def engines(step: TrainingStep) -> dict:
    return {"downstream": step.downstream, "upstream": step.upstream}


def advance(step: TrainingStep, index: int) -> None:
    first = 12 * index
    step(
        index,
        [clip_batch(range(first, first + 6))],
        [clip_batch(range(first + 6, first + 12))],
        lr=0.1,
        upstream_lr=0.3,
    )


def save(directory: Path, step: TrainingStep) -> None:
    save_weights(directory, step.model, classes=CLASSES, config="train: {seed: 0}")
    state = collect_optimizer_state(engines(step))
    save_training_state(directory, state, STATE)


def test_a_run_continues_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    step = fresh()
    advance(step, 0)
    save(tmp_path, step)
    resumed = fresh()
    advance(resumed, 7)
    load_weights(tmp_path, resumed.model)
    resumed = torch_step(resumed.model, CONFIG)
    load_optimizer_state(tmp_path, engines(resumed))
    assert read_state(tmp_path) == STATE
    assert read_classes(tmp_path) == CLASSES
    for one in (step, resumed):
        advance(one, 1)
    own, expected = copied_state(resumed.model), copied_state(step.model)
    assert all(torch.equal(own[name], expected[name]) for name in expected)


def damage(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not safetensors", pickle.dumps({"weights": torch.zeros(1)})],
    ids=["missing", "empty", "text", "pickle"],
)
@pytest.mark.parametrize(
    ("file", "read"),
    [
        (WEIGHTS_FILE, lambda folder: load_weights(folder, tiny_model(CONFIG))),
        (WEIGHTS_FILE, read_classes),
        (OPTIMIZER_FILE, lambda folder: load_optimizer_state(folder, engines(fresh()))),
        (STATE_FILE, read_state),
    ],
    ids=["weights", "classes", "optimizer", "state"],
)
def test_missing_and_damaged_files_are_named(
    tmp_path: Path, content: bytes | None, file: str, read: Callable[[Path], object]
) -> None:
    save(tmp_path, fresh())
    damage(tmp_path / file, content)
    with pytest.raises(CheckpointError, match=file):
        read(tmp_path)


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    save(tmp_path, fresh())
    path = tmp_path / WEIGHTS_FILE
    damage(path, path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot read it"):
        load_weights(tmp_path, tiny_model(CONFIG))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save(tmp_path, fresh())
    with pytest.raises(CheckpointError, match=r"other shape \d+ \(classifier.dsts"):
        load_weights(tmp_path, tiny_model(tiny_config("dsts.num_neurons=4")))
    with pytest.raises(CheckpointError, match=r"missing none, unknown 1[0-9]"):
        load_weights(tmp_path, tiny_model(tiny_config("dsts.num_layers=1")))
    weights = load_file(tmp_path / WEIGHTS_FILE)
    model = tiny_model(CONFIG)
    before = copied_state(model)
    del weights["classifier.fc.bias"]
    save_file(weights, tmp_path / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=r"missing 1 \(classifier.fc.bias\)"):
        load_weights(tmp_path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", [{"format_version": 2}, {}, [], "text"])
def test_another_format_version_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / STATE_FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=STATE_FILE):
        read_state(tmp_path)


def test_a_weights_file_without_classes_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="class names"):
        read_classes(tmp_path)
