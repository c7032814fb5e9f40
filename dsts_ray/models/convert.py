"""Files of weights from one layout's names to another's; shapes and values stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from dsts_ray.errors import CheckpointError
from dsts_ray.models.layouts import (
    MMACTION2_SWIN,
    MMACTION2_TPN_SLOWONLY,
    MMACTION2_TPN_TSM,
    Layout,
    recognize,
)
from dsts_ray.models.weights import CONVERTED_FROM, converted_from, read_tensors, refuse_unknown

_BLOCK = "backbone.trunk.layer1.0.conv1.weight"
_NECK = "backbone.neck.down.weight"
_PATCHES = "backbone.patch_embed.proj.weight"
_IMAGE = 4  # dimensions of a kernel without time


class Conversion(NamedTuple):
    """What was converted.

    Attributes:
        source: Name of the source's layout.
        target: Name of the target's layout.
        num_tensors: Written.
        left_out: (name, reason) of tensors the target's layout has no name for.
        remarks: What else to know.
    """

    source: str
    target: str
    num_tensors: int
    left_out: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def convert_file(source: Path, target: Path) -> Conversion:
    """Convert a file; ``.safetensors`` gets our names, any other mmaction2's.

    Buffers that are computed (relative positions, masks) are left out; mmaction2 computes them.

    Raises:
        CheckpointError: The source cannot be read, is of no known layout, or holds less than a
            model of mmaction2's has; the target exists or its folder does not.
    """
    if target.exists() or not target.parent.is_dir():
        raise CheckpointError(
            f"{target} exists, or its folder does not; give a new file in a folder there is"
        )
    tensors = read_tensors(source)
    layout = recognize(tensors) or refuse_unknown(tensors, source)
    origin = converted_from(source) or layout
    converted, left_out = _rename(tensors, layout)
    remarks = _shift_remarks(origin, converted)
    name = "dsts_ray"
    if target.suffix != ".safetensors":
        published = _mmaction2_layout(converted, source)
        name = published.name
        remarks = () if published.shift_downsample == origin.shift_downsample else remarks
        own, converted = converted, {}
        for own_name, value in own.items():
            published_name = published.published_name(own_name)
            if published_name is None:
                left_out.append((own_name, f"{published.name} has no such part"))
            else:
                converted[published_name] = value
    _write(converted, target, origin)
    return Conversion(layout.name, name, len(converted), tuple(left_out), remarks)


def _rename(
    tensors: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    names = {name: layout.own_name(name) for name in tensors}
    left_out = [(name, layout.reason_to_skip(name)) for name, own in names.items() if own is None]
    return {own: tensors[name] for name, own in names.items() if own is not None}, left_out


def _shift_remarks(origin: Layout, own: Mapping[str, Tensor]) -> tuple[str, ...]:
    made_for_shifts = origin.shift_downsample is not None and own[_BLOCK].ndim == _IMAGE
    return (origin.shift_remark(),) if made_for_shifts else ()


def _mmaction2_layout(own: Mapping[str, Tensor], source: Path) -> Layout:
    if _NECK in own and _BLOCK in own:
        return MMACTION2_TPN_TSM if own[_BLOCK].ndim == _IMAGE else MMACTION2_TPN_SLOWONLY
    if _PATCHES in own and own[_PATCHES].ndim > _IMAGE:
        return MMACTION2_SWIN
    lacks = "kernels in time" if _PATCHES in own else "pyramid neck"
    raise CheckpointError(
        f"{source} has no {lacks}, so it is neither mmaction2's TPN nor its Video Swin; convert it "
        "to .safetensors, or train a model from it first"
    )


def _write(tensors: Mapping[str, Tensor], target: Path, origin: Layout) -> None:
    values = {name: value.contiguous() for name, value in tensors.items()}
    partial = target.with_name(f".{target.name}.partial")
    if target.suffix == ".safetensors":
        save_file(values, partial, metadata={CONVERTED_FROM: origin.name})
    else:
        torch.save({"state_dict": values, "meta": {}}, partial)
    partial.replace(target)
