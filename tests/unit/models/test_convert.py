import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.video.swin_transformer import SwinTransformer3d

from dsts_ray.errors import CheckpointError
from dsts_ray.models.convert import convert_file
from dsts_ray.models.layouts import PUBLISHED
from dsts_ray.models.weights import load_starting_weights
from dsts_ray.train.checkpoint import WEIGHTS_FILE, save_weights
from tests.support.tiny import (
    SWIN,
    copied_state,
    largest_difference,
    tiny_config,
    tiny_model,
)
from tests.support.tpn_reference import (
    MMACTION2,
    ORIGINAL,
    Size,
    published_shapes,
    random_state,
)

SMALL = Size(depths=(1, 1, 1, 1), width=4, channels=8, groups=2, num_classes=4)
TRUNK = (
    "dsts.enabled=false",
    "model.backbone.tpn.geometry=stock",
    "model.backbone.tpn.neck_channels=8",
    "model.backbone.tpn.auxiliary_loss_weight=0.5",
)


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


def test_which_shortcuts_are_shifted_is_said_at_every_conversion_and_when_loading(
    tmp_path: Path,
) -> None:
    """The released TPN shifts what downsampling shortcuts read, mmaction2's does not."""
    needs = "{} weights need model.backbone.tpn.shift_downsample = {}: with the other value"
    released = needs.format(r"TPN \(original\)", "true")
    theirs = needs.format(r"TPN on TSM \(mmaction2\)", "false")
    for name, names, remark in (("original", ORIGINAL, released), ("theirs", MMACTION2, theirs)):
        torch.save(random_state(published_shapes(names, SMALL)), tmp_path / f"{name}.pth")
        own = tmp_path / f"{name}.safetensors"
        again = tmp_path / f"{name}2.safetensors"
        for source, target in ((f"{name}.pth", own), (own.name, again)):
            (said,) = convert_file(tmp_path / source, target).remarks
            assert re.match(remark, said)
        for shifts in (True, False):
            settings = (*MODELS["tsm"], f"model.backbone.tpn.shift_downsample={shifts}".lower())
            report = load_starting_weights(tiny_model(tiny_config(*settings)), again)
            assert [bool(re.match(remark, said)) for said in report.remarks] == (
                [True] if shifts == (name == "theirs") else []
            )
        said = convert_file(again, tmp_path / f"{name}3.pth").remarks
        assert [bool(re.match(released, text)) for text in said] == [True] * (name == "original")


def test_weights_without_shifts_say_nothing_of_them(tmp_path: Path) -> None:
    for layout in ("TPN on SlowOnly (mmaction2)", "ImageNet ResNet (torchvision)"):
        torch.save(published_states()[layout][1], tmp_path / "published.pth")
        (tmp_path / "own.safetensors").unlink(missing_ok=True)
        assert not convert_file(tmp_path / "published.pth", tmp_path / "own.safetensors").remarks
    size = replace(SMALL, temporal_trunk=True)
    torch.save(random_state(published_shapes(ORIGINAL, size)), tmp_path / "original.pth")
    assert not convert_file(tmp_path / "original.pth", tmp_path / "slowonly.safetensors").remarks


def published_states() -> dict[str, tuple[str, dict[str, Tensor]]]:
    """For every published layout a file of it and the backbone it is loaded into."""
    slowonly = replace(SMALL, temporal_trunk=True)
    original, tsm_tpn = (random_state(published_shapes(n, SMALL)) for n in (ORIGINAL, MMACTION2))
    slowonly_tpn = random_state(published_shapes(MMACTION2, slowonly))
    image = ResNet(Bottleneck, [1, 1, 1, 1]).state_dict()
    swin = SwinTransformer3d([2, 4, 4], 4, [2, 1, 1, 1], [1, 2, 2, 2], [1, 4, 4], num_classes=4)
    swin = swin.state_dict()
    flat = official_swin(swin, "", "norm") | {
        "patch_embed.proj.weight": swin["patch_embed.proj.weight"][:, :, 0]
    }
    return {
        "TPN (original)": ("tsm", original),
        "TPN on TSM (mmaction2)": ("tsm", tsm_tpn),
        "TPN on SlowOnly (mmaction2)": ("slowonly", slowonly_tpn),
        "TSM (mmaction2)": ("tsm", without_neck(tsm_tpn)),
        "TSN or SlowOnly (mmaction2)": ("slowonly", without_neck(slowonly_tpn)),
        "ImageNet ResNet (torchvision)": ("wide", image),
        "Video Swin (original)": ("swin", official_swin(swin, "backbone.", "norm")),
        "Video Swin (mmaction2)": ("swin", official_swin(swin, "backbone.", "norm3")),
        "ImageNet Swin (2D, original)": ("swin", flat),
        "Video Swin (torchvision)": ("swin", dict(swin)),
    }


def without_neck(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("neck.")}


def official_swin(state: dict[str, Tensor], prefix: str, norm: str) -> dict[str, Tensor]:
    """torchvision's Swin under the names of Video Swin's files."""
    named = {}
    for name, value in state.items():
        new = name.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        new = re.sub(r"^norm", norm, new)
        match = re.match(r"features\.(\d)\.(.*)", new)
        if match:
            part = "downsample" if int(match[1]) % 2 else "blocks"
            new = f"layers.{int(match[1]) // 2}.{part}.{match[2]}"
        named["cls_head.fc_cls." + name[5:] if name.startswith("head.") else prefix + new] = value
    return named


MODELS = {
    "tsm": (*TRUNK, "model.backbone.tpn.width=4"),
    "slowonly": (*TRUNK, "model.backbone.tpn.width=4", "model.backbone.tpn.trunk=slowonly"),
    "wide": (*TRUNK, "model.backbone.tpn.width=64"),
    "swin": (*SWIN, "dsts.enabled=false"),
}


@pytest.mark.parametrize("layout", [layout.name for layout in PUBLISHED])
def test_a_converted_file_of_every_published_layout_loads_as_the_file_itself(
    tmp_path: Path, layout: str
) -> None:
    kind, state = published_states()[layout]
    source, own = tmp_path / "published.pth", tmp_path / "own.safetensors"
    torch.save(state, source)
    assert convert_file(source, own).source == layout
    direct, converted = (tiny_model(tiny_config(*MODELS[kind])) for _ in range(2))
    expected, report = (
        load_starting_weights(model, file) for model, file in ((direct, source), (converted, own))
    )
    assert report.layout == "dsts_ray"
    taken = {"loaded", "reshaped", "inflated"}
    assert {entry.name for entry in report.entries if entry.outcome in taken} == {
        entry.name for entry in expected.entries if entry.outcome in taken
    }
    assert largest_difference(copied_state(direct), copied_state(converted)) == 0.0


def test_swin_is_written_with_mmaction2s_last_norm_and_without_dsts(tmp_path: Path) -> None:
    save_weights(tmp_path, tiny_model(tiny_config(*SWIN)), classes="abcd", config="")
    conversion = convert_file(tmp_path / WEIGHTS_FILE, tmp_path / "swin.pth")
    assert conversion.target == "Video Swin (mmaction2)"
    written = torch.load(tmp_path / "swin.pth", weights_only=True)["state_dict"]
    assert {"backbone.norm3.weight", "backbone.layers.3.blocks.0.mlp.fc2.bias"} <= written.keys()
    assert "cls_head.fc_cls.weight" in written
    assert conversion.left_out
    assert all(name.startswith("classifier.dsts.") for name, _ in conversion.left_out)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("ImageNet ResNet (torchvision)", "published.pth has no pyramid neck, so it is neither"),
        ("TSM (mmaction2)", "has no pyramid neck"),
        ("ImageNet Swin (2D, original)", "has no kernels in time"),
    ],
)
def test_less_than_a_model_of_mmaction2s_is_not_written_as_one(
    tmp_path: Path, layout: str, message: str
) -> None:
    torch.save(published_states()[layout][1], tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match=message):
        convert_file(tmp_path / "published.pth", tmp_path / "mmaction2.pth")
    assert not (tmp_path / "mmaction2.pth").exists()


def test_an_existing_target_and_unknown_weights_are_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save({"encoder.weight": torch.zeros(1)}, source)
    with pytest.raises(CheckpointError, match="no known layout"):
        convert_file(source, target)
    assert not target.exists()
    for bad in (source, tmp_path / "missing" / "b.pth"):
        with pytest.raises(CheckpointError, match="exists, or its folder does not"):
            convert_file(source, bad)
