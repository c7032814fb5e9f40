"""Training and conversion from a published file, as a user starts them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dsts_ray.models.layouts import MMACTION2_TPN_TSM
from tests.support.jobs import DEMO, TINY, RunJob
from tests.support.tpn_reference import MMACTION2, Size, published_shapes, random_state

SIZE = Size(width=4, channels=16, groups=4, num_classes=7)
SETTINGS = (
    *DEMO,
    *TINY,
    "dsts.insertion=res4",
    "model.backbone.tpn.geometry=stock",
    "udl.held_out_ratio=1",  # of a single clip, this neck's one value a channel has no statistics
    "model.backbone.tpn.depths=[3,4,6,3]",
    "train.max_steps=1",
    "tracking.model_name=",
)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    state = random_state(published_shapes(MMACTION2, SIZE))
    path = tmp_path / "tpn.pth"
    torch.save(
        {"state_dict": {n: v.float() if v.is_floating_point() else v for n, v in state.items()}},
        path,
    )
    return path


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.exhaustive
def test_training_starts_from_a_published_file(
    run_job: RunJob, tmp_path: Path, published: Path
) -> None:
    """With the trunk frozen, the checkpoint still holds the file's tensors."""
    settings = (*SETTINGS, f"model.weights={published}", "model.backbone.freeze_stages=5")
    result = run_job("train.py", *settings, f"storage.path={tmp_path / 'runs'}")
    assert result.code == 0, result.out + result.err
    assert result.out.count("TPN on TSM (mmaction2)") == 1
    assert result.out.count("head is initialized anew (7x32 in the file, 4x96 in the model)") == 1
    (checkpoint,) = (tmp_path / "runs").glob("*/checkpoints/*/model.safetensors")
    trained = load_file(checkpoint)
    state = torch.load(published, weights_only=True)["state_dict"]
    names = {name: MMACTION2_TPN_TSM.own_name(name) for name in state}
    trunk = {n: own for n, own in names.items() if own and own.startswith("backbone.trunk.")}
    assert len(trunk) > 200
    assert all(torch.equal(trained[own], state[name]) for name, own in trunk.items())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickle_a_model(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def widen(path: Path) -> None:
    state = random_state(published_shapes(MMACTION2, replace(SIZE, width=8)))
    torch.save({"state_dict": state}, path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "is it complete"),
    "absent": (Path.unlink, "there is no file"),
    "objects instead of tensors": (pickle_a_model, "pickled objects, which are never executed"),
    "another architecture": (widen, "weights of another architecture"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_file_of_no_use_ends_the_job_before_anything_starts(
    run_job: RunJob, tmp_path: Path, published: Path, kind: str
) -> None:
    damage, message = DAMAGES[kind]
    damage(published)
    storage = tmp_path / "runs"
    result = run_job("train.py", *SETTINGS, f"model.weights={published}", f"storage.path={storage}")
    assert result.code == 2
    assert str(published) in result.error
    assert message in result.error
    assert not list(storage.glob("*/config.yaml"))


def test_conversion_and_back(run_job: RunJob, tmp_path: Path, published: Path) -> None:
    own, back = tmp_path / "own.safetensors", tmp_path / "back.pth"
    first = run_job("convert.py", published, own)
    assert (first.code, "TPN on TSM (mmaction2) -> dsts_ray" in first.out) == (0, True)
    assert "need model.backbone.tpn.shift_downsample = false" in first.out
    assert run_job("convert.py", own, back).code == 0
    state = torch.load(published, weights_only=True)["state_dict"]
    returned = torch.load(back, weights_only=True)["state_dict"]
    assert returned.keys() == state.keys()
    refused = run_job("convert.py", own, back)
    assert refused.code == 2
    assert "exists" in refused.error
