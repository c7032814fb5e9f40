"""Full-size models on torch's meta device: shapes and parameter counts, without any memory."""

from collections.abc import Sequence

import pytest
import torch

from dsts_ray.build import build_model
from dsts_ray.config.load import load_config
from dsts_ray.models.backbones.tpn import AuxiliaryHead
from dsts_ray.models.recognizer import Recognizer
from tests.support.jobs import REPOSITORY

TPN = ["model.backbone.tpn.geometry=stock", "dsts.enabled=false"]
SLOWONLY = [*TPN, "model.backbone.tpn.trunk=slowonly"]
WITHOUT_AUXILIARY = "model.backbone.tpn.auxiliary_loss_weight=0"
SWIN = ["model.backbone.name=swin3d", "dsts.enabled=false", "data.num_frames=32"]
NECK = ["dsts.insertion=neck"]
RES4 = ["dsts.insertion=res4", "model.backbone.tpn.geometry=stock"]
NORM = ["dsts.insertion=norm", "model.backbone.name=swin3d", "data.num_frames=32"]


def full_size(overrides: Sequence[str], num_classes: int) -> Recognizer:
    with torch.device("meta"):
        return build_model(load_config(overrides=["data.manifest=x", *overrides]), num_classes)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("overrides", "num_classes", "parameters"),
    [
        ([*TPN, WITHOUT_AUXILIARY], 48, 62_952_560),
        (TPN, 48, 81_929_376),
        (TPN, 174, 82_445_724),
        ([*TPN, WITHOUT_AUXILIARY], 174, 63_210_734),
        (TPN, 400, 83_371_872),
        (SLOWONLY, 400, 91_498_336),
        ([*SLOWONLY, WITHOUT_AUXILIARY], 48, 71_079_024),
        (SWIN, 174, 88_655_688 + 178_350),
        ([*SWIN, "model.backbone.swin3d.window=[8,7,7]"], 174, 87_638_984 + 178_350),
    ],
)
def test_plain_backbones_have_the_published_size(
    overrides: list[str], num_classes: int, parameters: int
) -> None:
    assert count(full_size(overrides, num_classes)) == parameters


def test_the_auxiliary_head_starts_as_in_the_released_tpn() -> None:
    """Convolution by Xavier's uniform rule, linear layer of standard deviation 0.01."""
    head = AuxiliaryHead(64, 128, 100, synchronize=False)
    bound = (6 / (9 * (64 + 128))) ** 0.5
    assert 0.98 * bound < float(head.conv.weight.detach().abs().max()) <= bound
    assert float(head.conv.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.01)
    assert float(head.fc.weight.detach().std()) == pytest.approx(0.01, rel=0.03)
    assert not head.fc.bias.detach().any()


@pytest.mark.parametrize(
    ("overrides", "backbone", "classifier"),
    [
        (NECK, 52_362_304, 1024 * 48 + 48),
        (RES4, 62_854_208, (1024 + 2048) * 48 + 48),
        (NORM, 88_655_688, 1024 * 48 + 48),
    ],
    ids=["neck", "res4", "norm"],
)
def test_dsts_adds_the_papers_12_million_parameters(
    overrides: list[str], backbone: int, classifier: int
) -> None:
    """Table 4: 75M against 63M with N = 10, L = 3; here for 48 classes, no auxiliary head.

    A layer: operators 10 x 1024 x 32 x (9 + 3), scoring and gates 2 x 10 x 1024, normalization
    4 x 10 x 1024, fuse 1024 x 32.
    """
    dsts = 3 * (10 * 1024 * (32 * 12 + 2 + 4) + 1024 * 32)
    model = full_size([*overrides, WITHOUT_AUXILIARY], 48)
    assert model.classifier.dsts is not None
    sizes = (count(model.backbone), count(model.classifier.dsts), count(model.classifier.fc))
    assert sizes == (backbone, dsts, classifier)


def test_the_readme_reports_the_sizes_of_the_models() -> None:
    """Those beside its presets' own; see the table of parameters."""
    neck = [*NECK, "model.backbone.tpn.geometry=stride1", WITHOUT_AUXILIARY]
    short = [*SWIN, "model.backbone.swin3d.window=[8,7,7]"]
    text = (REPOSITORY / "README.md").read_text()
    for overrides, num_classes in ((neck, 48), (short, 48), (SLOWONLY, 400)):
        assert f"| {count(full_size(overrides, num_classes)):,} |" in text


@pytest.mark.parametrize(
    ("fuse", "parameters", "millions"),
    [
        ([], 75_080_816, 75.03),
        (["dsts.fuse=per_neuron"], 75_965_552, 75.92),
        (["dsts.fuse_groups=1"], 78_128_240, 78.08),
    ],
    ids=["shared in groups", "per neuron", "shared and dense"],
)
def test_tpn_with_dsts_on_res4_is_75_million(
    fuse: list[str], parameters: int, millions: float
) -> None:
    """The design's counts are without the 1024 x 48 classifier weights that read DSTS beside."""
    size = count(full_size([*RES4, WITHOUT_AUXILIARY, *fuse], 48))
    assert size == parameters
    assert round((size - 1024 * 48) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("overrides", "size", "features", "pooled"),
    [
        (TPN, 224, (2, 2048, 1, 7, 7), None),
        (TPN, 256, (2, 2048, 1, 8, 8), None),
        (SLOWONLY, 224, (2, 2048, 1, 7, 7), None),
        (NECK, 224, (2, 1024, 8, 14, 14), None),
        (NECK, 256, (2, 1024, 8, 16, 16), None),
        ([*NECK, "model.backbone.tpn.trunk=slowonly"], 256, (2, 1024, 8, 16, 16), None),
        (RES4, 256, (2, 1024, 8, 16, 16), (2, 2048)),
        ([*RES4, "model.backbone.tpn.trunk=slowonly"], 256, (2, 1024, 8, 16, 16), (2, 2048)),
        (SWIN, 224, (2, 1024, 16, 7, 7), None),
        (NORM, 224, (2, 1024, 16, 7, 7), None),
        ([*NORM, "model.backbone.swin3d.window=[8,7,7]"], 224, (2, 1024, 16, 7, 7), None),
    ],
)
def test_feature_shapes(
    overrides: list[str], size: int, features: tuple[int, ...], pooled: tuple[int, ...] | None
) -> None:
    model = full_size(overrides, 48).eval()
    num_frames = 32 if "model.backbone.name=swin3d" in overrides else 8
    clips = torch.empty(2, 3, num_frames, size, size, device="meta")
    output = model.backbone(clips)
    assert output.features.shape == features
    assert (None if output.pooled is None else tuple(output.pooled.shape)) == pooled
    assert model.backbone.feature_channels == features[1]
    assert model.backbone.pooled_channels == (pooled[1] if pooled else 0)
    if model.classifier.dsts is None:
        assert model(clips).logits.shape == (2, 48)
