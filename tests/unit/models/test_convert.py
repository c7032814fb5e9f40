from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dsts_ray.errors import CheckpointError
from dsts_ray.models.convert import convert_file
from dsts_ray.train.checkpoint import WEIGHTS_FILE, save_weights
from tests.support.tiny import SWIN, tiny_config, tiny_model
from tests.support.tpn_reference import (
    MMACTION2,
    ORIGINAL,
    Size,
    published_shapes,
    random_state,
)

SMALL = Size(depths=(1, 1, 1, 1), width=4, channels=8, groups=2, num_classes=4)


@pytest.mark.parametrize("temporal_trunk", [False, True])
def test_mmaction2_weights_come_back_bit_for_bit(tmp_path: Path, temporal_trunk: bool) -> None:
    size = Size(temporal_trunk=temporal_trunk, depths=(1, 1, 1, 1), width=4, channels=8, groups=2)
    state = random_state(published_shapes(MMACTION2, size))
    torch.save({"state_dict": state}, tmp_path / "published.pth")
    own, back = tmp_path / "own.safetensors", tmp_path / "back.pth"
    there = convert_file(tmp_path / "published.pth", own)
    assert (there.target, there.num_tensors, there.left_out) == ("dsts_ray", len(state), ())
    assert "backbone.trunk.layer1.0.conv1.weight" in load_file(own)
    again = convert_file(own, back)
    assert again.target == there.source
    returned = torch.load(back, weights_only=True)["state_dict"]
    assert returned.keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in returned.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "back.pth",
        "own.safetensors",
        "published.pth",
    ]


def test_the_originals_weights_become_mmaction2s(tmp_path: Path) -> None:
    torch.save(random_state(published_shapes(ORIGINAL, SMALL)), tmp_path / "original.pth")
    convert_file(tmp_path / "original.pth", tmp_path / "mmaction2.pth")
    converted = torch.load(tmp_path / "mmaction2.pth", weights_only=True)["state_dict"]
    expected = random_state(published_shapes(MMACTION2, SMALL))
    assert all(torch.equal(value, expected[name]) for name, value in converted.items())
    assert converted.keys() == expected.keys()


def test_swin_is_written_with_mmaction2s_last_norm_and_without_dsts(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny_model(tiny_config(*SWIN)), classes="abcd", config="")
    conversion = convert_file(tmp_path / WEIGHTS_FILE, tmp_path / "swin.pth")
    assert conversion.target == "Video Swin (mmaction2)"
    written = torch.load(tmp_path / "swin.pth", weights_only=True)["state_dict"]
    assert {"backbone.norm3.weight", "backbone.layers.3.blocks.0.mlp.fc2.bias"} <= written.keys()
    assert "cls_head.fc_cls.weight" in written
    assert conversion.left_out
    assert all(name.startswith("classifier.dsts.") for name, _ in conversion.left_out)


def test_an_existing_target_and_unknown_weights_are_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"encoder.weight": torch.zeros(1)}, source)
    with pytest.raises(CheckpointError, match="no known layout"):
        convert_file(source, target)
    assert not target.exists()
    for bad in (source, tmp_path / "missing" / "b.pth"):
        with pytest.raises(CheckpointError, match="exists, or its folder does not"):
            convert_file(source, bad)
