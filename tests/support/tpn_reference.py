"""TPN on tensors under their published names, for comparison; shares no code with the package.

Reference: Yang et al., Temporal Pyramid Network for Action Recognition, CVPR 2020, and the names of
its two public implementations. Evaluation mode.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Values = Mapping[str, Tensor]


class Layer(NamedTuple):
    """Names of a convolution and of the normalization after it."""

    conv: str
    norm: str = ""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Published names, with s(tage or level), b(lock) and k(ernel) left open."""

    stem: Layer
    block: Layer
    first_in_block: str
    shortcut: Layer
    spatial: Layer
    temporal: str
    down: str
    level: tuple[Layer, Layer]
    fusion: tuple[Layer, Layer]
    pyramid: Layer
    auxiliary: Layer
    auxiliary_fc: str


ORIGINAL = Names(
    stem=Layer("backbone.conv1", "backbone.bn1"),
    block=Layer("backbone.layer{s}.{b}.conv{k}", "backbone.layer{s}.{b}.bn{k}"),
    first_in_block="backbone.layer{s}.{b}.conv1",
    shortcut=Layer("backbone.layer{s}.0.downsample.0", "backbone.layer{s}.0.downsample.1"),
    spatial=Layer(
        "necks.spatial_modulation.spatial_modulation.0.0.conv",
        "necks.spatial_modulation.spatial_modulation.0.0.bn",
    ),
    temporal="necks.temporal_modulation_ops.{s}.conv",
    down="necks.downsampling_ops.0.conv",
    level=(
        Layer("necks.level_fusion_op2.ops.{s}.conv", "necks.level_fusion_op2.ops.{s}.norm"),
        Layer("necks.level_fusion_op.ops.{s}.conv", "necks.level_fusion_op.ops.{s}.norm"),
    ),
    fusion=(
        Layer("necks.level_fusion_op2.fusion_conv.0", "necks.level_fusion_op2.fusion_conv.1"),
        Layer("necks.level_fusion_op.fusion_conv.0", "necks.level_fusion_op.fusion_conv.1"),
    ),
    pyramid=Layer("necks.pyramid_fusion_op.0", "necks.pyramid_fusion_op.1"),
    auxiliary=Layer("necks.aux_head.convs.conv", "necks.aux_head.convs.bn"),
    auxiliary_fc="necks.aux_head.fc",
)
MMACTION2 = Names(
    stem=Layer("backbone.conv1.conv", "backbone.conv1.bn"),
    block=Layer("backbone.layer{s}.{b}.conv{k}.conv", "backbone.layer{s}.{b}.conv{k}.bn"),
    first_in_block="backbone.layer{s}.{b}.conv1.conv.net",
    shortcut=Layer("backbone.layer{s}.0.downsample.conv", "backbone.layer{s}.0.downsample.bn"),
    spatial=Layer(
        "neck.spatial_modulation.spatial_modulation.0.0.conv",
        "neck.spatial_modulation.spatial_modulation.0.0.bn",
    ),
    temporal="neck.temporal_modulation_ops.{s}.conv.conv",
    down="neck.downsample_ops.0.conv.conv",
    level=(
        Layer(
            "neck.level_fusion_1.downsamples.{s}.conv.conv",
            "neck.level_fusion_1.downsamples.{s}.conv.bn",
        ),
        Layer(
            "neck.level_fusion_2.downsamples.{s}.conv.conv",
            "neck.level_fusion_2.downsamples.{s}.conv.bn",
        ),
    ),
    fusion=(
        Layer("neck.level_fusion_1.fusion_conv.conv", "neck.level_fusion_1.fusion_conv.bn"),
        Layer("neck.level_fusion_2.fusion_conv.conv", "neck.level_fusion_2.fusion_conv.bn"),
    ),
    pyramid=Layer("neck.pyramid_fusion.conv", "neck.pyramid_fusion.bn"),
    auxiliary=Layer("neck.aux_head.conv.conv", "neck.aux_head.conv.bn"),
    auxiliary_fc="neck.aux_head.fc",
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a published network; the defaults are TPN-R50."""

    temporal_trunk: bool = False
    """SlowOnly: kernels have a temporal dimension, 3 in the first of a block of layers 3, 4."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    channels: int = 1024
    groups: int = 32
    num_classes: int = 174
    shift_div: int = 8
    shift_downsample: bool = False


def published_shapes(names: Names, size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every name of a state dict with its shape."""
    first = names.block.conv.replace("{k}", "1") if size.temporal_trunk else names.first_in_block
    width, inputs = size.width, size.width

    def kernel(outputs: int, inputs: int, t: int, side: int) -> tuple[int, ...]:
        return (outputs, inputs, *((t,) if size.temporal_trunk else ()), side, side)

    yield f"{names.stem.conv}.weight", kernel(width, 3, 1, 7)
    yield from norm_shapes(names.stem.norm, width)
    for s, depth in enumerate(size.depths, start=1):
        hidden, outputs = width * 2 ** (s - 1), 4 * width * 2 ** (s - 1)
        t = 3 if size.temporal_trunk and s > 2 else 1
        yield f"{names.shortcut.conv.format(s=s)}.weight", kernel(outputs, inputs, 1, 1)
        yield from norm_shapes(names.shortcut.norm.format(s=s), outputs)
        for b in range(depth):
            shapes = (
                kernel(hidden, inputs, t, 1),
                kernel(hidden, hidden, 1, 3),
                kernel(outputs, hidden, 1, 1),
            )
            for k, shape in enumerate(shapes, start=1):
                template = first if k == 1 else names.block.conv
                yield f"{template.format(s=s, b=b, k=k)}.weight", shape
                yield from norm_shapes(names.block.norm.format(s=s, b=b, k=k), shape[0])
            inputs = outputs
    yield from neck_shapes(names, size, wide=inputs)


def neck_shapes(names: Names, size: Size, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of neck, auxiliary head and head."""
    channels, grouped = size.channels, size.channels // size.groups
    for layer in (names.auxiliary, names.spatial):
        yield f"{layer.conv}.weight", (wide, wide // 2, 1, 3, 3)
        yield from norm_shapes(layer.norm, wide)
    for s in range(2):
        yield f"{names.temporal.format(s=s)}.weight", (channels, wide // size.groups, 3, 1, 1)
        for level in names.level:
            yield f"{level.conv.format(s=s)}.weight", (channels, grouped, 1, 1, 1)
            yield from norm_shapes(level.norm.format(s=s), channels)
    yield f"{names.down}.weight", (channels, channels, 3, 1, 1)
    for layer, inputs in ((names.fusion[0], 2), (names.fusion[1], 2), (names.pyramid, 4)):
        yield f"{layer.conv}.weight", (2 * channels, inputs * channels, 1, 1, 1)
        yield from norm_shapes(layer.norm, 2 * channels)
    for name, inputs in ((names.auxiliary_fc, wide), ("cls_head.fc_cls", 2 * channels)):
        yield f"{name}.weight", (size.num_classes, inputs)
        yield f"{name}.bias", (size.num_classes,)


def norm_shapes(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a batch normalization."""
    for entry in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{entry}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def random_state(shapes: Iterator[tuple[str, tuple[int, ...]]], seed: int = 0) -> dict[str, Tensor]:
    """Float64 values that keep activations of order one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes:
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = value.abs() + 0.5
        elif len(shape) > 1:
            state[name] = value / value[0].numel() ** 0.5
        else:
            state[name] = 1.0 + 0.3 * value
    return state


def tpn_logits(values: Values, names: Names, clips: Tensor, size: Size) -> Tensor:
    """Logits of clips (batch, 3, time, height, width)."""
    res4, res5 = trunk(values, names, clips, size)
    low = normed(
        values,
        names.spatial,
        F.conv3d(res4, values[f"{names.spatial.conv}.weight"], stride=(1, 2, 2), padding=(0, 1, 1)),
    ).relu()
    levels = []
    for s, level in enumerate((low, res5)):
        kernel = values[f"{names.temporal.format(s=s)}.weight"]
        modulated = F.conv3d(level, kernel, padding=(1, 0, 0), groups=size.groups)
        levels.append(F.max_pool3d(modulated, (clips.shape[2], 1, 1)))
    levels[0] = levels[0] + levels[1]
    top_down = level_fusion(values, names, 0, levels, size)
    levels[1] = levels[1] + F.conv3d(levels[0], values[f"{names.down}.weight"], padding=(1, 0, 0))
    bottom_up = level_fusion(values, names, 1, levels, size)
    fused = F.conv3d(torch.cat([top_down, bottom_up], 1), values[f"{names.pyramid.conv}.weight"])
    fused = normed(values, names.pyramid, fused).relu()
    logits = torch.einsum("bcthw,kc->bkthw", fused, values["cls_head.fc_cls.weight"])
    return logits.mean((2, 3, 4)) + values["cls_head.fc_cls.bias"]


def level_fusion(
    values: Values, names: Names, flow: int, levels: list[Tensor], size: Size
) -> Tensor:
    """Fuse two levels; ``flow`` 0 is top-down, 1 bottom-up."""
    transformed = []
    for s, level in enumerate(levels):
        layer = Layer(names.level[flow].conv.format(s=s), names.level[flow].norm.format(s=s))
        convolved = F.conv3d(level, values[f"{layer.conv}.weight"], groups=size.groups)
        transformed.append(normed(values, layer, convolved).relu())
    fused = F.conv3d(torch.cat(transformed, 1), values[f"{names.fusion[flow].conv}.weight"])
    return normed(values, names.fusion[flow], fused).relu()


def trunk(values: Values, names: Names, clips: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Outputs of the third and fourth stage."""
    x = normed(values, names.stem, spatial_conv(values, names.stem.conv, clips, stride=2)).relu()
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    first = names.block.conv.replace("{k}", "1") if size.temporal_trunk else names.first_in_block
    outputs = []
    for s, depth in enumerate(size.depths, start=1):
        for b in range(depth):
            layers = [
                Layer(template.format(s=s, b=b, k=k), names.block.norm.format(s=s, b=b, k=k))
                for k, template in enumerate((first, names.block.conv, names.block.conv), start=1)
            ]
            stride = 2 if b == 0 and s > 1 else 1
            read = x if size.temporal_trunk else shifted(x, size.shift_div)
            hidden = normed(values, layers[0], spatial_conv(values, layers[0].conv, read)).relu()
            hidden = spatial_conv(values, layers[1].conv, hidden, stride=stride)
            hidden = normed(values, layers[1], hidden).relu()
            hidden = normed(values, layers[2], spatial_conv(values, layers[2].conv, hidden))
            if b == 0:
                shortcut = Layer(names.shortcut.conv.format(s=s), names.shortcut.norm.format(s=s))
                source = read if size.shift_downsample else x
                x = normed(
                    values, shortcut, spatial_conv(values, shortcut.conv, source, stride=stride)
                )
            x = (hidden + x).relu()
        outputs.append(x)
    return outputs[2], outputs[3]


def shifted(x: Tensor, shift_div: int) -> Tensor:
    """The first 1/shift_div of the channels see the next frame, the second the previous one."""
    share, num_frames = x.shape[1] // shift_div, x.shape[2]
    frames = []
    for t in range(num_frames):
        frame = x[:, :, t].clone()
        frame[:, :share] = x[:, :share, t + 1] if t + 1 < num_frames else 0.0
        frame[:, share : 2 * share] = x[:, share : 2 * share, t - 1] if t > 0 else 0.0
        frames.append(frame)
    return torch.stack(frames, 2)


def spatial_conv(values: Values, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution of a 2D or 3D kernel, padded to keep the size at stride 1."""
    kernel = values[f"{name}.weight"]
    if kernel.ndim == 4:
        kernel = kernel.unsqueeze(2)
    padding = [length // 2 for length in kernel.shape[2:]]
    return F.conv3d(x, kernel, stride=(1, stride, stride), padding=padding)


def normed(values: Values, layer: Layer, x: Tensor) -> Tensor:
    """Batch normalization by running statistics."""
    mean, variance, weight, bias = (
        values[f"{layer.norm}.{entry}"].view(1, -1, 1, 1, 1)
        for entry in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias
