"""Published TPN, TSM, SlowOnly and ResNet weights: names, shapes, logits."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.resnet import Bottleneck, ResNet, resnet50

from dsts_ray.build import build_model
from dsts_ray.config.load import load_config
from dsts_ray.errors import CheckpointError
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.models.weights import WeightsReport, load_starting_weights, load_tensors
from tests.support.tpn_reference import (
    MMACTION2,
    ORIGINAL,
    Names,
    Size,
    published_shapes,
    random_state,
    tpn_logits,
)

SMALL = Size(depths=(2, 1, 2, 1), width=8, channels=16, groups=4, num_classes=5, shift_div=4)
SMALL_SLOWONLY = replace(SMALL, temporal_trunk=True)
FILE = Path("weights.pth")


def model_of(size: Size, *overrides: str, num_classes: int | None = None) -> Recognizer:
    config = load_config(
        overrides=[
            "data.manifest=x",
            "dsts.enabled=false",
            "model.backbone.tpn.geometry=stock",
            f"model.backbone.tpn.trunk={'slowonly' if size.temporal_trunk else 'tsm'}",
            f"model.backbone.tpn.depths={list(size.depths)}",
            f"model.backbone.tpn.width={size.width}",
            f"model.backbone.tpn.neck_channels={size.channels}",
            f"model.backbone.tpn.neck_groups={size.groups}",
            f"model.backbone.tpn.shift_div={size.shift_div}",
            f"model.backbone.tpn.shift_downsample={str(size.shift_downsample).lower()}",
            *overrides,
        ]
    )
    return build_model(config, num_classes or size.num_classes)


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state, "meta": {"epoch": 150}}, path)
    return path


def outcomes(report: WeightsReport) -> Counter[str]:
    return Counter(entry.outcome for entry in report.entries)


def shared_part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("names", "size", "layout"),
    [
        (ORIGINAL, replace(SMALL, shift_downsample=True), "TPN (original)"),
        (ORIGINAL, SMALL_SLOWONLY, "TPN (original)"),
        (MMACTION2, SMALL, "TPN on TSM (mmaction2)"),
        (MMACTION2, SMALL_SLOWONLY, "TPN on SlowOnly (mmaction2)"),
    ],
)
def test_a_published_tpn_gives_its_logits(
    tmp_path: Path, names: Names, size: Size, layout: str
) -> None:
    state = random_state(published_shapes(names, size))
    model = model_of(size).double().eval()
    report = load_starting_weights(model, saved(tmp_path / "tpn.pth", state))
    assert (report.layout, report.remarks) == (layout, ())
    assert outcomes(report) == {"loaded": len(state)}
    assert len(state) == len(model.state_dict())
    clips = torch.randn(2, 3, 4, 48, 64, dtype=torch.float64)
    with torch.no_grad():
        logits = model(clips).logits
    expected = tpn_logits(state, names, clips, size)
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


def test_prefixes_of_parallel_training_and_lists_of_auxiliary_convolutions_are_known(
    tmp_path: Path,
) -> None:
    state = {
        "module." + name.replace("aux_head.convs.", "aux_head.convs.0."): value
        for name, value in random_state(published_shapes(ORIGINAL, SMALL_SLOWONLY)).items()
    }
    path = saved(tmp_path / "tpn.pth", state)
    report = load_starting_weights(model_of(SMALL_SLOWONLY), path)
    assert outcomes(report) == {"loaded": len(state)}


def test_released_tsm_weights_tell_of_the_shifted_shortcuts() -> None:
    state = random_state(published_shapes(ORIGINAL, SMALL))
    assert "shift_downsample = true" in " ".join(load_tensors(model_of(SMALL), state, FILE).remarks)


@pytest.mark.parametrize(
    ("names", "size"),
    [
        (ORIGINAL, Size()),
        (MMACTION2, Size()),
        (ORIGINAL, Size(temporal_trunk=True)),
        (MMACTION2, Size(temporal_trunk=True)),
    ],
)
def test_full_size_files_fill_the_whole_model(names: Names, size: Size) -> None:
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in published_shapes(names, size)}
        model = model_of(size)
    assert outcomes(load_tensors(model, state, FILE)) == {"loaded": len(model.state_dict())}


TYPED = {
    "original": (
        ORIGINAL,
        Size(),
        {
            "backbone.conv1.weight": (64, 3, 7, 7),
            "backbone.bn1.num_batches_tracked": (),
            "backbone.layer3.5.conv3.weight": (1024, 256, 1, 1),
            "backbone.layer4.0.downsample.1.running_var": (2048,),
            "necks.spatial_modulation.spatial_modulation.0.0.conv.weight": (2048, 1024, 1, 3, 3),
            "necks.temporal_modulation_ops.1.conv.weight": (1024, 64, 3, 1, 1),
            "necks.downsampling_ops.0.conv.weight": (1024, 1024, 3, 1, 1),
            "necks.level_fusion_op2.ops.0.conv.weight": (1024, 32, 1, 1, 1),
            "necks.level_fusion_op.fusion_conv.0.weight": (2048, 2048, 1, 1, 1),
            "necks.pyramid_fusion_op.0.weight": (2048, 4096, 1, 1, 1),
            "necks.aux_head.convs.conv.weight": (2048, 1024, 1, 3, 3),
            "necks.aux_head.fc.bias": (174,),
            "cls_head.fc_cls.weight": (174, 2048),
        },
    ),
    "original SlowOnly": (
        ORIGINAL,
        Size(temporal_trunk=True, num_classes=400),
        {
            "backbone.conv1.weight": (64, 3, 1, 7, 7),
            "backbone.layer2.0.conv1.weight": (128, 256, 1, 1, 1),
            "backbone.layer3.0.conv1.weight": (256, 512, 3, 1, 1),
            "cls_head.fc_cls.weight": (400, 2048),
        },
    ),
    "mmaction2": (
        MMACTION2,
        Size(),
        {
            "backbone.conv1.conv.weight": (64, 3, 7, 7),
            "backbone.layer1.0.conv1.conv.net.weight": (64, 64, 1, 1),
            "backbone.layer3.5.conv3.conv.weight": (1024, 256, 1, 1),
            "backbone.layer4.0.downsample.bn.running_var": (2048,),
            "neck.spatial_modulation.spatial_modulation.0.0.bn.weight": (2048,),
            "neck.temporal_modulation_ops.0.conv.conv.weight": (1024, 64, 3, 1, 1),
            "neck.downsample_ops.0.conv.conv.weight": (1024, 1024, 3, 1, 1),
            "neck.level_fusion_1.downsamples.1.conv.conv.weight": (1024, 32, 1, 1, 1),
            "neck.level_fusion_2.fusion_conv.conv.weight": (2048, 2048, 1, 1, 1),
            "neck.pyramid_fusion.conv.weight": (2048, 4096, 1, 1, 1),
            "neck.aux_head.conv.conv.weight": (2048, 1024, 1, 3, 3),
            "cls_head.fc_cls.bias": (174,),
        },
    ),
    "mmaction2 SlowOnly": (
        MMACTION2,
        Size(temporal_trunk=True, num_classes=400),
        {
            "backbone.conv1.conv.weight": (64, 3, 1, 7, 7),
            "backbone.layer4.2.conv1.conv.weight": (512, 2048, 3, 1, 1),
        },
    ),
}


@pytest.mark.parametrize("name", TYPED)
def test_the_names_and_shapes_compared_with_are_the_published_ones(name: str) -> None:
    """53 convolutions with norms in the trunk, 10 in neck and auxiliary head, 3 bare, 2 linear."""
    names, size, typed = TYPED[name]
    shapes = dict(published_shapes(names, size))
    assert len(shapes) == 379
    assert {key: shapes[key] for key in typed} == typed


def test_a_released_resnet_50_fills_the_trunk() -> None:
    with torch.device("meta"):
        state = resnet50().state_dict()
        model = model_of(Size())
    assert len(state) == 320
    assert tuple(state["layer4.0.downsample.0.weight"].shape) == (2048, 1024, 1, 1)
    report = load_tensors(model, state, FILE)
    assert outcomes(report)["loaded"] == 318


def test_a_head_of_other_classes_is_left_as_it_is_and_named() -> None:
    state = random_state(published_shapes(MMACTION2, SMALL))
    model = model_of(SMALL, num_classes=7).double()
    before = model.classifier.fc.weight.detach().clone()
    report = load_tensors(model, state, FILE)
    notes = {entry.name: entry.note for entry in report.entries if entry.outcome == "skipped"}
    assert set(notes) == {
        f"{head}.{entry}"
        for head in ("classifier.fc", "backbone.auxiliary_head.fc")
        for entry in ("weight", "bias")
    }
    assert notes["classifier.fc.bias"] == "keeps its initial values: 5 in the file, 7 in the model"
    assert report.remarks == (
        "the classification head is initialized anew (5x32 in the file, 7x32 in the model)",
    )
    assert torch.equal(model.classifier.fc.weight, before)


def test_a_model_with_dsts_keeps_it_and_what_the_geometry_changes() -> None:
    state = random_state(published_shapes(MMACTION2, SMALL))
    dsts = ("dsts.enabled=true", "dsts.groups=4", "dsts.fuse_groups=4", "dsts.num_layers=1")
    fused = {
        f"backbone.neck.{part}.{entry}"
        for part in ("top_down_fusion.fusion", "bottom_up_fusion.fusion", "pyramid_fusion")
        for entry in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    }
    for overrides, skipped in (
        (("dsts.insertion=res4",), {"classifier.fc.weight"}),
        (
            ("dsts.insertion=neck", "model.backbone.tpn.geometry=stride1"),
            {"classifier.fc.weight"} | fused,
        ),
    ):
        report = load_tensors(model_of(SMALL, *dsts, *overrides), state, FILE)
        assert {e.name for e in report.entries if e.outcome == "skipped"} == skipped
        missing = {entry.name for entry in report.entries if entry.outcome == "missing"}
        assert missing
        assert all(name.startswith("classifier.dsts.") for name in missing)


@pytest.mark.parametrize("size", [SMALL, SMALL_SLOWONLY])
def test_mmaction2_trunks_are_loaded_without_their_head(size: Size) -> None:
    """As of TSM or SlowOnly alone, whose head reads other features of the same length."""
    state = random_state(published_shapes(MMACTION2, size))
    alone = shared_part(state, "backbone.") | shared_part(state, "cls_head.")
    model, whole = model_of(size).double(), model_of(size).double()
    report, _ = load_tensors(model, alone, FILE), load_tensors(whole, state, FILE)
    assert "anew (the file has none for it)" in report.remarks[0]
    trunk = "TSN or SlowOnly" if size.temporal_trunk else "TSM"
    assert report.layout == f"{trunk} (mmaction2)"
    own, expected = model.state_dict(), whole.state_dict()
    for name in own:
        assert torch.equal(own[name], expected[name]) == (".trunk." in name) or "num_batch" in name


@cache
def image_network() -> ResNet:
    return ResNet(Bottleneck, [2, 1, 1, 1]).double().eval()


def test_imagenet_resnet_gives_its_features_without_shifts() -> None:
    network = image_network()
    size = replace(SMALL, depths=(2, 1, 1, 1), width=64, shift_div=10**6)
    model = model_of(size).double().eval()
    report = load_tensors(model, network.state_dict(), FILE)
    assert report.layout == "ImageNet ResNet (torchvision)"
    assert {e.name for e in report.entries if e.outcome == "skipped"} == {"fc.weight", "fc.bias"}
    clips = torch.randn(1, 3, 2, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        _, res5 = model.backbone.trunk(clips)  # pyright: ignore[reportCallIssue]
        for frame in range(2):
            pooled = torch.nn.Sequential(*list(network.children())[:-1])(clips[:, :, frame])
            torch.testing.assert_close(
                res5[:, :, frame].mean((2, 3)), pooled[:, :, 0, 0], rtol=0, atol=1e-6
            )


def test_imagenet_resnet_is_inflated_to_a_third_in_the_last_stages_of_slowonly() -> None:
    state = image_network().state_dict()
    model = model_of(replace(SMALL_SLOWONLY, depths=(2, 1, 1, 1), width=64)).double()
    report = load_tensors(model, state, FILE)
    own = model.state_dict()
    inflated = {entry.name for entry in report.entries if entry.outcome == "inflated"}
    assert inflated == {f"backbone.trunk.layer{i}.0.conv1.weight" for i in (3, 4)}
    for layer, frames in ((1, 1), (2, 1), (3, 3), (4, 3)):
        kernel = own[f"backbone.trunk.layer{layer}.0.conv1.weight"]
        assert kernel.shape[2] == frames
        for frame in range(frames):
            expected = state[f"layer{layer}.0.conv1.weight"] / frames
            torch.testing.assert_close(kernel[:, :, frame], expected)


def test_kernels_of_one_frame_lose_that_dimension() -> None:
    state = random_state(published_shapes(ORIGINAL, SMALL))
    flat = {
        name: value.unsqueeze(2) if name.startswith("backbone") and value.ndim == 4 else value
        for name, value in state.items()
    }
    model, expected = model_of(SMALL), model_of(SMALL)
    report = load_tensors(model, flat, FILE)
    load_tensors(expected, state, FILE)
    assert outcomes(report)["reshaped"] == sum(value.ndim == 4 for value in state.values())
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in expected.state_dict().items())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (replace(SMALL, width=4), r"backbone.trunk.conv1.weight: .* 8x3x7x7 in the file, 4x3x7x7"),
        (replace(SMALL, depths=(2, 1, 1, 1)), r"the model has no backbone.trunk.layer3.1.conv1"),
        (replace(SMALL, depths=(2, 1, 3, 1)), r"the file has no backbone.trunk.layer3.2.bn1.bias"),
    ],
)
def test_another_architecture_is_refused_and_changes_nothing(size: Size, message: str) -> None:
    state = random_state(published_shapes(MMACTION2, SMALL))
    model = model_of(size)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_tensors(model, state, FILE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
