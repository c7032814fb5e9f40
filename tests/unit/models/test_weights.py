"""Files that hold our own weights, and files that hold none we can use."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dsts_ray.errors import CheckpointError
from dsts_ray.models.weights import load_starting_weights
from dsts_ray.train.checkpoint import WEIGHTS_FILE, save_weights
from tests.support.tiny import SWIN, clip_batch, copied_state, tiny_config, tiny_model
from tests.support.tpn_reference import MMACTION2, Size, published_shapes

CONFIG = tiny_config()


@pytest.mark.parametrize("settings", [(), SWIN])
def test_our_own_checkpoint_gives_its_logits(tmp_path: Path, settings: tuple[str, ...]) -> None:
    trained = tiny_model(tiny_config("train.seed=1", *settings)).eval()
    save_weights(tmp_path, trained, classes="abcd", config="")
    model = tiny_model(tiny_config(*settings)).eval()
    report = load_starting_weights(model, tmp_path / WEIGHTS_FILE)
    assert report.layout == "dsts_ray"
    assert {entry.outcome for entry in report.entries} == {"loaded"}
    clips = clip_batch(range(3)).clips
    assert torch.equal(model(clips).logits, trained(clips).logits)


def test_our_own_checkpoint_starts_a_model_with_other_neurons(tmp_path: Path) -> None:
    trained = tiny_model(tiny_config("train.seed=1"))
    save_weights(tmp_path, trained, classes="abcd", config="")
    model = tiny_model(tiny_config("dsts.num_neurons=4"))
    report = load_starting_weights(model, tmp_path / WEIGHTS_FILE)
    skipped = {entry.name for entry in report.entries if entry.outcome == "skipped"}
    assert "classifier.dsts.layers.0.gates.gates" in skipped
    assert all(name.startswith("classifier.dsts.") for name in skipped)
    own, expected = copied_state(model), copied_state(trained)
    assert all(torch.equal(own[name], expected[name]) for name in own if "dsts" not in name)


def tensors() -> dict[str, torch.Tensor]:
    size = Size(depths=(1, 1, 1, 1), width=8, channels=32, groups=4)
    return {name: torch.zeros(shape) for name, shape in published_shapes(MMACTION2, size)}


def write_truncated(path: Path) -> None:
    torch.save({"state_dict": tensors()}, path)
    path.write_bytes(path.read_bytes()[:-1000])


def write_legacy_truncated(path: Path) -> None:
    torch.save(tensors(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])


class Call:
    """Calls a function when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return pytest.fail, ("a pickled call was executed",)


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot read it"),
    "empty": (lambda path: path.write_bytes(b""), "is it complete"),
    "truncated": (write_truncated, "is it complete"),
    "truncated in the old format": (write_legacy_truncated, "is it complete|is damaged"),
    "text": (lambda path: path.write_text("weights"), "pickled objects"),
    "whole model": (lambda path: torch.save(tiny_model(CONFIG), path), "pickled objects"),
    "code": (lambda path: torch.save({"state_dict": tensors(), "meta": Call()}, path), "pickled"),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps(Call())), "pickled objects"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds no tensors"),
    "one tensor": (lambda path: torch.save(torch.zeros(3), path), "holds no tensors"),
    "other names": (
        lambda path: torch.save({"encoder.weight": torch.zeros(1)}, path),
        r"\(encoder.weight\) are of no known layout; none is near; use",
    ),
    "part of our own": (
        lambda path: torch.save({"backbone.neck.down.weight": torch.zeros(1)}, path),
        "nearest is dsts_ray, which knows 1 of them",
    ),
    "part of a layout": (
        lambda path: torch.save({n: v for n, v in tensors().items() if "neck" in n}, path),
        r"nearest is TPN on TSM \(mmaction2\), which knows 59 of them",
    ),
    "another backbone": (
        lambda path: torch.save(
            {
                "patch_embed.proj.weight": torch.zeros(1),
                "features.0.0.attn.qkv.weight": torch.zeros(1),
                "norm.weight": torch.zeros(1),
            },
            path,
        ),
        r"holds Video Swin \(torchvision\) weights, the model's backbone is tpn; use "
        r"model.backbone.name = swin3d",
    ),
    "another size": (lambda path: torch.save(tensors(), path), "of another architecture: "),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_named_and_change_nothing(tmp_path: Path, kind: str) -> None:
    write, message = BAD_FILES[kind]
    path = tmp_path / "weights.pth"
    write(path)
    model = tiny_model(CONFIG)
    before = copied_state(model)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_starting_weights(model, path)
    assert "weights.pth" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(tensors(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is it complete"):
        load_starting_weights(tiny_model(CONFIG), path)
