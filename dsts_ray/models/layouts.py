"""Names of published weights beside ours, one table a layout.

A pair of templates names the same tensor in the published file and here; ``{x}`` stands for one
part of a dotted name, ``{rest}`` for all that follows. The first pair that fits counts, in both
directions.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """How a file names its tensors.

    Attributes:
        name: For people.
        backbone: Backbone it belongs to, as in ``model.backbone.name``.
        signature: Names that all such files hold.
        pairs: Published name and ours.
        skipped: Templates of names that are not loaded, with the reason.
        covers: Prefixes of ours that such a file fills without a gap, if it fills them at all.
        shift_downsample: Of the networks with shifts in time that such files are of; None where
            their weights are not made for shifts.
    """

    name: str
    backbone: str
    signature: tuple[str, ...]
    pairs: Pairs
    skipped: Pairs = ()
    covers: tuple[str, ...] = ("backbone.",)
    shift_downsample: bool | None = None

    def own_name(self, name: str) -> str | None:
        """Return our name of a published tensor, or None."""
        return _translate(self.pairs, name)

    def published_name(self, name: str) -> str | None:
        """Return the published name of one of our tensors, or None."""
        return _translate(tuple((own, published) for published, own in self.pairs), name)

    def reason_to_skip(self, name: str) -> str:
        """Say why a published tensor is not loaded."""
        return _translate(self.skipped, name) or "no part of this layout"

    def shift_remark(self) -> str:
        """Say which network's weights such files hold; for those made for shifts in time."""
        return (
            f"{self.name} weights need model.backbone.tpn.shift_downsample = "
            f"{str(self.shift_downsample).lower()}: with the other value the outputs differ"
        )


def recognize(names: Collection[str]) -> Layout | None:
    """Return the layout all of whose signature is among the names, or None."""
    found = [layout for layout in LAYOUTS if set(layout.signature) <= set(names)]
    return max(found, key=lambda layout: len(layout.signature), default=None)


def nearest(names: Collection[str]) -> tuple[Layout, int]:
    """Return the layout that knows most of the names, and how many it knows."""
    known = [
        (layout, sum(layout.own_name(name) is not None for name in names)) for layout in LAYOUTS
    ]
    return max(known, key=lambda pair: pair[1])


def _translate(pairs: Pairs, name: str) -> str | None:
    for source, target in pairs:
        match = _pattern(source).fullmatch(name)
        if match:
            return target.format(**match.groupdict())
    return None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    text = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            text += re.escape(part)
        else:
            text += f"(?P<{part}>.+)" if part == "rest" else rf"(?P<{part}>[^.]+?)"
    return re.compile(text)


def _prefixed(prefix: str, pairs: Pairs) -> Pairs:
    return tuple((prefix + published, own) for published, own in pairs)


_STAGE = "backbone.trunk.layer{l}.{b}"
_TRUNK = (  # torchvision's ResNet; the original TPN's behind "backbone."
    ("conv1.weight", "backbone.trunk.conv1.weight"),
    ("bn1.{e}", "backbone.trunk.bn1.{e}"),
    ("layer{l}.{b}.conv{k}.weight", f"{_STAGE}.conv{{k}}.weight"),
    ("layer{l}.{b}.bn{k}.{e}", f"{_STAGE}.bn{{k}}.{{e}}"),
    ("layer{l}.{b}.downsample.{i}.{e}", f"{_STAGE}.downsample.{{i}}.{{e}}"),
)
_SHIFTED = (("backbone.layer{l}.{b}.conv1.conv.net.weight", f"{_STAGE}.conv1.weight"),)
_MMACTION2_TRUNK = (
    ("backbone.conv1.conv.weight", "backbone.trunk.conv1.weight"),
    ("backbone.conv1.bn.{e}", "backbone.trunk.bn1.{e}"),
    ("backbone.layer{l}.{b}.conv{k}.conv.weight", f"{_STAGE}.conv{{k}}.weight"),
    ("backbone.layer{l}.{b}.conv{k}.bn.{e}", f"{_STAGE}.bn{{k}}.{{e}}"),
    ("backbone.layer{l}.{b}.downsample.conv.weight", f"{_STAGE}.downsample.0.weight"),
    ("backbone.layer{l}.{b}.downsample.bn.{e}", f"{_STAGE}.downsample.1.{{e}}"),
)
_HEAD = (("cls_head.fc_cls.{e}", "classifier.fc.{e}"),)
_ORIGINAL_NECK = (
    ("spatial_modulation.spatial_modulation.0.0.conv.{e}", "spatial_modulation.0.{e}"),
    ("spatial_modulation.spatial_modulation.0.0.bn.{e}", "spatial_modulation.1.{e}"),
    ("temporal_modulation_ops.{i}.conv.{e}", "temporal_modulation.{i}.{e}"),
    ("downsampling_ops.0.conv.{e}", "down.{e}"),
    ("level_fusion_op2.ops.{i}.conv.{e}", "top_down_fusion.levels.{i}.0.{e}"),
    ("level_fusion_op2.ops.{i}.norm.{e}", "top_down_fusion.levels.{i}.1.{e}"),
    ("level_fusion_op2.fusion_conv.{i}.{e}", "top_down_fusion.fusion.{i}.{e}"),
    ("level_fusion_op.ops.{i}.conv.{e}", "bottom_up_fusion.levels.{i}.0.{e}"),
    ("level_fusion_op.ops.{i}.norm.{e}", "bottom_up_fusion.levels.{i}.1.{e}"),
    ("level_fusion_op.fusion_conv.{i}.{e}", "bottom_up_fusion.fusion.{i}.{e}"),
    ("pyramid_fusion_op.{i}.{e}", "pyramid_fusion.{i}.{e}"),
)
_MMACTION2_NECK = (
    ("spatial_modulation.spatial_modulation.0.0.conv.{e}", "spatial_modulation.0.{e}"),
    ("spatial_modulation.spatial_modulation.0.0.bn.{e}", "spatial_modulation.1.{e}"),
    ("temporal_modulation_ops.{i}.conv.conv.{e}", "temporal_modulation.{i}.{e}"),
    ("downsample_ops.0.conv.conv.{e}", "down.{e}"),
    ("level_fusion_1.downsamples.{i}.conv.conv.{e}", "top_down_fusion.levels.{i}.0.{e}"),
    ("level_fusion_1.downsamples.{i}.conv.bn.{e}", "top_down_fusion.levels.{i}.1.{e}"),
    ("level_fusion_1.fusion_conv.conv.{e}", "top_down_fusion.fusion.0.{e}"),
    ("level_fusion_1.fusion_conv.bn.{e}", "top_down_fusion.fusion.1.{e}"),
    ("level_fusion_2.downsamples.{i}.conv.conv.{e}", "bottom_up_fusion.levels.{i}.0.{e}"),
    ("level_fusion_2.downsamples.{i}.conv.bn.{e}", "bottom_up_fusion.levels.{i}.1.{e}"),
    ("level_fusion_2.fusion_conv.conv.{e}", "bottom_up_fusion.fusion.0.{e}"),
    ("level_fusion_2.fusion_conv.bn.{e}", "bottom_up_fusion.fusion.1.{e}"),
    ("pyramid_fusion.conv.{e}", "pyramid_fusion.0.{e}"),
    ("pyramid_fusion.bn.{e}", "pyramid_fusion.1.{e}"),
)


def _auxiliary_head(convolution: str) -> Pairs:
    return (
        (f"{convolution}.conv.{{e}}", "backbone.auxiliary_head.conv.{e}"),
        (f"{convolution}.bn.{{e}}", "backbone.auxiliary_head.norm.{e}"),
    )


def _neck(prefix: str, pairs: Pairs) -> Pairs:
    return tuple((f"{prefix}.{published}", f"backbone.neck.{own}") for published, own in pairs)


_MMACTION2_TPN = (
    *_MMACTION2_TRUNK,
    *_neck("neck", _MMACTION2_NECK),
    *_auxiliary_head("neck.aux_head.conv"),
    ("neck.aux_head.fc.{e}", "backbone.auxiliary_head.fc.{e}"),
    *_HEAD,
)
_TPN_COVERS = ("backbone.trunk.", "backbone.neck.")
_TRUNK_COVERS = ("backbone.trunk.",)
_OTHER_HEAD = "head of features that this model does not have"

_COMPUTED = tuple(
    (f"{{rest}}.{name}", "computed from the window, not learned")
    for name in ("relative_position_index", "attn_mask")
)
_SWIN_BLOCKS = tuple(
    pair
    for i in range(4)
    for pair in (
        (f"layers.{i}.blocks.{{j}}.mlp.fc1.{{e}}", f"backbone.features.{2 * i}.{{j}}.mlp.0.{{e}}"),
        (f"layers.{i}.blocks.{{j}}.mlp.fc2.{{e}}", f"backbone.features.{2 * i}.{{j}}.mlp.3.{{e}}"),
        *(
            (f"layers.{i}.blocks.{{j}}.{part}", f"backbone.features.{2 * i}.{{j}}.{part}")
            for part in (
                "norm{k}.{e}",
                "attn.qkv.{e}",
                "attn.proj.{e}",
                "attn.relative_position_bias_table",
            )
        ),
        (f"layers.{i}.downsample.{{m}}.{{e}}", f"backbone.features.{2 * i + 1}.{{m}}.{{e}}"),
    )
)
_PATCH_EMBED = (("patch_embed.{m}.{e}", "backbone.patch_embed.{m}.{e}"),)
_SWIN = (*_PATCH_EMBED, *_SWIN_BLOCKS)
_NORM = (("norm.{e}", "backbone.norm.{e}"),)
_TORCHVISION_BLOCKS = tuple(
    pair
    for i in range(0, 7, 2)
    for pair in (
        *(
            (f"features.{i}.{{j}}.{part}", f"backbone.features.{i}.{{j}}.{part}")
            for part in (
                "norm{k}.{e}",
                "attn.qkv.{e}",
                "attn.proj.{e}",
                "attn.relative_position_bias_table",
                "mlp.{n}.{e}",
            )
        ),
        (f"features.{i + 1}.{{m}}.{{e}}", f"backbone.features.{i + 1}.{{m}}.{{e}}"),
    )
)

ORIGINAL_TPN = Layout(
    "TPN (original)",
    "tpn",
    ("necks.pyramid_fusion_op.0.weight", "backbone.layer1.0.conv1.weight"),
    (
        *_prefixed("backbone.", _TRUNK),
        *_neck("necks", _ORIGINAL_NECK),
        *_auxiliary_head("necks.aux_head.convs"),
        *_auxiliary_head("necks.aux_head.convs.0"),
        ("necks.aux_head.fc.{e}", "backbone.auxiliary_head.fc.{e}"),
        *_HEAD,
    ),
    covers=_TPN_COVERS,
    shift_downsample=True,
)
MMACTION2_TPN_TSM = Layout(
    "TPN on TSM (mmaction2)",
    "tpn",
    ("neck.pyramid_fusion.conv.weight", "backbone.layer1.0.conv1.conv.net.weight"),
    (*_SHIFTED, *_MMACTION2_TPN),
    covers=_TPN_COVERS,
    shift_downsample=False,
)
MMACTION2_TPN_SLOWONLY = Layout(
    "TPN on SlowOnly (mmaction2)",
    "tpn",
    ("neck.pyramid_fusion.conv.weight", "backbone.layer1.0.conv1.conv.weight"),
    _MMACTION2_TPN,
    covers=_TPN_COVERS,
)
MMACTION2_SWIN = Layout(
    "Video Swin (mmaction2)",
    "swin3d",
    ("backbone.layers.0.blocks.0.attn.qkv.weight", "backbone.norm3.weight"),
    (*_prefixed("backbone.", _SWIN), ("backbone.norm3.{e}", "backbone.norm.{e}"), *_HEAD),
    _COMPUTED,
)
PUBLISHED = (
    ORIGINAL_TPN,
    MMACTION2_TPN_TSM,
    MMACTION2_TPN_SLOWONLY,
    Layout(
        "TSM (mmaction2)",
        "tpn",
        ("backbone.layer1.0.conv1.conv.net.weight",),
        (*_SHIFTED, *_MMACTION2_TRUNK),
        (("cls_head.{rest}", _OTHER_HEAD),),
        _TRUNK_COVERS,
        shift_downsample=False,
    ),
    Layout(
        "TSN or SlowOnly (mmaction2)",
        "tpn",
        ("backbone.layer1.0.conv1.conv.weight",),
        _MMACTION2_TRUNK,
        (("cls_head.{rest}", _OTHER_HEAD),),
        _TRUNK_COVERS,
    ),
    Layout(
        "ImageNet ResNet (torchvision)",
        "tpn",
        ("conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv3.weight"),
        _TRUNK,
        (("fc.{rest}", _OTHER_HEAD),),
        _TRUNK_COVERS,
    ),
    Layout(
        "Video Swin (original)",
        "swin3d",
        ("backbone.layers.0.blocks.0.attn.qkv.weight", "backbone.norm.weight"),
        (*_prefixed("backbone.", _SWIN + _NORM), *_HEAD),
        _COMPUTED,
    ),
    MMACTION2_SWIN,
    Layout(
        "ImageNet Swin (2D, original)",
        "swin3d",
        ("patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight", "norm.weight"),
        (*_SWIN, *_NORM),
        (*_COMPUTED, ("head.{rest}", _OTHER_HEAD)),
    ),
    Layout(
        "Video Swin (torchvision)",
        "swin3d",
        ("patch_embed.proj.weight", "features.0.0.attn.qkv.weight", "norm.weight"),
        (*_PATCH_EMBED, *_TORCHVISION_BLOCKS, *_NORM, ("head.{e}", "classifier.fc.{e}")),
        _COMPUTED,
    ),
)


def _unchanged(*parts: str) -> Pairs:
    return tuple((f"{part}.{{rest}}", f"{part}.{{rest}}") for part in (*parts, "classifier"))


OWN = (
    Layout(
        "dsts_ray",
        "tpn",
        ("backbone.trunk.conv1.weight",),
        _unchanged("backbone.trunk", "backbone.neck", "backbone.auxiliary_head"),
        covers=_TPN_COVERS,
    ),
    Layout(
        "dsts_ray",
        "swin3d",
        ("backbone.features.0.0.attn.qkv.weight",),
        _unchanged("backbone.patch_embed", "backbone.features", "backbone.norm"),
    ),
)
LAYOUTS = (*PUBLISHED, *OWN)
