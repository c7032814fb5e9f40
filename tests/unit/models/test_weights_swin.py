"""Published Swin weights, 2D and 3D: names, shapes, logits."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.video import swin3d_b
from torchvision.models.video.swin_transformer import SwinTransformer3d

from dsts_ray.build import build_model
from dsts_ray.config.load import load_config
from dsts_ray.errors import CheckpointError
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.models.weights import WeightsReport, load_starting_weights, load_tensors

DEPTHS, HEADS, CHANNELS, NUM_CLASSES = [2, 2, 1, 1], [1, 2, 2, 4], 8, 5
FILE = Path("swin.pth")
SMALL = (
    f"model.backbone.swin3d.depths={DEPTHS}",
    f"model.backbone.swin3d.heads={HEADS}",
    f"model.backbone.swin3d.channels={CHANNELS}",
)
TO_OFFICIAL = (
    (
        r"features\.([0246])\.(\d+)\.mlp\.0\.",
        lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.mlp.fc1.",
    ),
    (
        r"features\.([0246])\.(\d+)\.mlp\.3\.",
        lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.mlp.fc2.",
    ),
    (r"features\.([0246])\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}."),
    (r"features\.([135])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
)


def official(name: str, norm: str) -> str:
    """The name in Video Swin's files of a tensor of torchvision's."""
    if name.startswith("head."):
        return name.replace("head.", "cls_head.fc_cls.")
    if name.startswith("norm."):
        return name.replace("norm.", f"backbone.{norm}.")
    for pattern, replace in TO_OFFICIAL:
        name, count = re.subn(f"^{pattern}", replace, name)
        if count:
            break
    return f"backbone.{name}"


def network(window: tuple[int, int, int]) -> SwinTransformer3d:
    torch.manual_seed(1)
    model = SwinTransformer3d(
        [2, 4, 4], CHANNELS, DEPTHS, HEADS, list(window), num_classes=NUM_CLASSES
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()


def model_of(
    window: tuple[int, int, int], *overrides: str, num_classes: int = NUM_CLASSES
) -> Recognizer:
    config = load_config(
        overrides=[
            "data.manifest=x",
            "dsts.enabled=false",
            "model.backbone.name=swin3d",
            f"model.backbone.swin3d.window={list(window)}",
            *overrides,
        ]
    )
    return build_model(config, num_classes).double().eval()


def outcomes(report: WeightsReport) -> Counter[str]:
    return Counter(entry.outcome for entry in report.entries)


LAYOUTS = {
    "Video Swin (torchvision)": lambda name: name,
    "Video Swin (original)": lambda name: official(name, "norm"),
    "Video Swin (mmaction2)": lambda name: official(name, "norm3"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_video_swin_gives_its_logits(tmp_path: Path, layout: str) -> None:
    window = (4, 2, 2)
    published = network(window)
    state = {LAYOUTS[layout](name): value for name, value in published.state_dict().items()}
    path = tmp_path / "swin.pth"
    torch.save(state if "torchvision" in layout else {"state_dict": state}, path)
    model = model_of(window, *SMALL)
    report = load_starting_weights(model, path)
    assert report.layout == layout
    assert outcomes(report) == {"loaded": len(model.state_dict()), "skipped": sum(DEPTHS)}
    clips = torch.randn(1, 3, 10, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = published(clips)
        assert float(expected.std()) > 0.05
        torch.testing.assert_close(model(clips).logits, expected, rtol=0, atol=1e-6)


TYPED = {
    "Video Swin (torchvision)": {
        "patch_embed.proj.weight": (128, 3, 2, 4, 4),
        "features.4.17.attn.relative_position_bias_table": (2535, 16),
        "features.4.17.attn.relative_position_index": (392, 392),
        "features.5.reduction.weight": (1024, 2048),
        "features.6.1.mlp.3.weight": (1024, 4096),
        "norm.weight": (1024,),
        "head.weight": (400, 1024),
    },
    "Video Swin (original)": {
        "backbone.patch_embed.proj.weight": (128, 3, 2, 4, 4),
        "backbone.layers.2.blocks.17.attn.relative_position_bias_table": (2535, 16),
        "backbone.layers.2.downsample.reduction.weight": (1024, 2048),
        "backbone.layers.3.blocks.1.mlp.fc2.weight": (1024, 4096),
        "backbone.norm.weight": (1024,),
        "cls_head.fc_cls.weight": (400, 1024),
    },
    "Video Swin (mmaction2)": {
        "backbone.layers.0.blocks.1.attn.qkv.weight": (384, 128),
        "backbone.layers.0.downsample.norm.weight": (512,),
        "backbone.norm3.bias": (1024,),
        "cls_head.fc_cls.bias": (400,),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size_files_fill_the_whole_model(layout: str) -> None:
    """With the sizes of the released tables: 15 x 13 x 13 offsets."""
    with torch.device("meta"):
        published = swin3d_b().state_dict()
        state = {LAYOUTS[layout](name): value for name, value in published.items()}
        model = model_of((8, 7, 7), num_classes=400)
    assert len(state) == 4 + 24 * 14 + 3 * 3 + 4
    assert {name: tuple(state[name].shape) for name in TYPED[layout]} == TYPED[layout]
    table = model.state_dict()["backbone.features.0.0.attn.relative_position_bias_table"]
    assert tuple(table.shape) == (2535, 4)
    report = load_tensors(model, state, FILE)
    assert outcomes(report) == {"loaded": len(model.state_dict()), "skipped": 24}
    assert "backbone.layers.2.blocks.17.mlp.fc2.weight" in state or "torchvision" in layout


def test_kinetics_tables_are_stretched_to_twice_the_window_in_time() -> None:
    published = network((2, 2, 2))
    table_name = "features.4.0.attn.relative_position_bias_table"
    state = published.state_dict()
    model = model_of((4, 2, 2), *SMALL)
    report = load_tensors(model, state, FILE)
    entry = next(e for e in report.entries if e.name == f"backbone.{table_name}")
    assert (entry.outcome, entry.note) == ("reshaped", "3 offsets in time interpolated to 7")
    before = state[table_name].view(3, 9, 2)
    after = model.state_dict()[f"backbone.{table_name}"].view(7, 9, 2)
    for row, (low, high, share) in enumerate(
        [
            (0, 0, 0),
            (0, 1, 1 / 3),
            (0, 1, 2 / 3),
            (1, 1, 0),
            (1, 2, 1 / 3),
            (1, 2, 2 / 3),
            (2, 2, 0),
        ]
    ):
        expected = (1 - share) * before[low] + share * before[high]
        torch.testing.assert_close(after[row].double(), expected, rtol=1e-5, atol=1e-6)


def test_full_size_kinetics_weights_fit_the_window_of_ssv2() -> None:
    with torch.device("meta"):
        state = swin3d_b().state_dict()
        model = model_of((16, 7, 7), num_classes=174)
    tables = [n for n in model.state_dict() if n.endswith("bias_table")]
    assert {model.state_dict()[name].shape[0] for name in tables} == {5239}
    report = load_tensors(model, state, FILE)
    assert {entry.name for entry in report.entries if entry.outcome == "reshaped"} == set(tables)
    skipped = {e.name: e.note for e in report.entries if e.name.startswith("classifier")}
    assert set(skipped) == {"classifier.fc.weight", "classifier.fc.bias"}
    assert "400x1024 in the file, 174x1024 in the model" in skipped["classifier.fc.weight"]


def image_network(window: int) -> tuple[SwinTransformer, dict[str, Tensor]]:
    """torchvision's 2D Swin, and its state under the names of the original's files."""
    torch.manual_seed(1)
    model = SwinTransformer([4, 4], CHANNELS, DEPTHS, HEADS, [window, window], num_classes=9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = {}
    for name, value in model.double().eval().state_dict().items():
        new = name.replace("features.0.0.", "patch_embed.proj.")
        new = new.replace("features.0.2.", "patch_embed.norm.")
        match = re.match(r"features\.(\d)\.(.*)", new)
        if match:
            stage = (int(match[1]) - 1) // 2
            merging = int(match[1]) % 2 == 0
            new = f"layers.{stage}." + ("downsample." if merging else "blocks.") + match[2]
        state[new.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")] = value
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 4, 4)
    return model, state


def test_an_inflated_image_swin_sees_a_still_clip_as_the_image(tmp_path: Path) -> None:
    published, state = image_network(2)
    torch.save({"model": state}, tmp_path / "swin.pth")
    model = model_of((4, 2, 2), *SMALL)
    report = load_starting_weights(model, tmp_path / "swin.pth")
    assert report.layout == "ImageNet Swin (2D, original)"
    assert outcomes(report)["inflated"] == 1 + sum(DEPTHS)
    missing = {entry.name for entry in report.entries if entry.outcome == "missing"}
    assert missing == {"classifier.fc.weight", "classifier.fc.bias"}
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = published.norm(published.features(image)).permute(0, 3, 1, 2)
        features = model.backbone(image.unsqueeze(2).expand(-1, -1, 16, -1, -1)).features
    assert features.shape[2] == 8
    for frame in features.unbind(2):
        torch.testing.assert_close(frame, expected, rtol=0, atol=1e-6)


def released_image_swin() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of swin_base_patch4_window7_224_22k.pth."""
    yield "patch_embed.proj.weight", (128, 3, 4, 4)
    for name in ("patch_embed.proj.bias", "patch_embed.norm.weight", "patch_embed.norm.bias"):
        yield name, (128,)
    for i, (depth, heads, num_windows) in enumerate(
        [(2, 4, 64), (2, 8, 16), (18, 16, 4), (2, 32, 1)]
    ):
        width = 128 * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            yield f"{block}.attn.relative_position_bias_table", (169, heads)
            yield f"{block}.attn.relative_position_index", (49, 49)
            if j % 2 and num_windows > 1:
                yield f"{block}.attn_mask", (num_windows, 49, 49)
            for norm in ("norm1", "norm2"):
                yield from ((f"{block}.{norm}.{entry}", (width,)) for entry in ("weight", "bias"))
            for linear, outputs, inputs in (
                ("attn.qkv", 3, 1),
                ("attn.proj", 1, 1),
                ("mlp.fc1", 4, 1),
                ("mlp.fc2", 1, 4),
            ):
                yield f"{block}.{linear}.weight", (outputs * width, inputs * width)
                yield f"{block}.{linear}.bias", (outputs * width,)
        if i < 3:
            yield f"layers.{i}.downsample.reduction.weight", (2 * width, 4 * width)
            yield f"layers.{i}.downsample.norm.weight", (4 * width,)
            yield f"layers.{i}.downsample.norm.bias", (4 * width,)
    yield from (("norm.weight", (1024,)), ("norm.bias", (1024,)))
    yield from (("head.weight", (21841, 1024)), ("head.bias", (21841,)))


def test_a_released_image_swin_is_inflated_to_the_window_of_ssv2() -> None:
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in released_image_swin()}
        model = model_of((16, 7, 7), num_classes=174)
    assert len(state) == 364
    report = load_tensors(model, state, FILE)
    tables = {name for name in model.state_dict() if name.endswith("bias_table")}
    assert {model.state_dict()[name].shape[0] for name in tables} == {5239}
    by_outcome = {
        outcome: {entry.name for entry in report.entries if entry.outcome == outcome}
        for outcome in ("inflated", "missing", "skipped")
    }
    assert by_outcome["inflated"] == {"backbone.patch_embed.proj.weight"} | tables
    assert by_outcome["missing"] == {"classifier.fc.weight", "classifier.fc.bias"}
    assert len(by_outcome["skipped"]) == 24 + 11 + 2
    assert outcomes(report)["loaded"] + 1 + 24 + 2 == len(model.state_dict())


def test_inflation_halves_patches_and_repeats_tables_over_offsets_in_time() -> None:
    _, state = image_network(2)
    model = model_of((4, 2, 2), *SMALL)
    load_tensors(model, state, FILE)
    own = model.state_dict()
    kernel = own["backbone.patch_embed.proj.weight"]
    for frame in range(2):
        torch.testing.assert_close(kernel[:, :, frame], state["patch_embed.proj.weight"] / 2)
    table = own["backbone.features.2.1.attn.relative_position_bias_table"]
    published = state["layers.1.blocks.1.attn.relative_position_bias_table"]
    assert table.shape == (7 * 9, 2)
    torch.testing.assert_close(table, published.float().double().repeat(7, 1))


def test_tables_of_another_square_window_are_resized_bicubically() -> None:
    _, state = image_network(3)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    rising = torch.arange(5.0).double().repeat_interleave(5).unsqueeze(1)  # by height alone
    state[name] = rising
    model = model_of((2, 2, 2), *SMALL)
    report = load_tensors(model, state, FILE)
    own = f"backbone.{name.replace('layers', 'features').replace('blocks.', '')}"
    note = next(entry.note for entry in report.entries if entry.name == own)
    assert note == "5x5 offsets in space interpolated to 3x3, repeated over 3 offsets in time"
    grid = F.interpolate(rising.view(1, 1, 5, 5).float(), (3, 3), mode="bicubic")[0, 0].double()
    table = model.state_dict()[own].view(3, 3, 3)
    assert bool((grid[0] < grid[1]).all())
    for plane in table:
        torch.testing.assert_close(plane, grid)


@pytest.mark.parametrize(
    ("window", "message"),
    [((4, 3, 3), "63 offsets fit no window of"), ((4, 2, 3), "63 offsets fit no window of")],
)
def test_tables_of_a_window_that_cannot_be_told_are_refused(
    window: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_tensors(model_of(window, *SMALL), network((4, 2, 2)).state_dict(), FILE)
