"""Starting weights: published checkpoints, or ours, into a model of possibly other shape."""

import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dsts_ray.errors import CheckpointError
from dsts_ray.models.backbones.resnet_tsm import ResNetTSM
from dsts_ray.models.backbones.swin3d import VideoSwin, WindowAttention
from dsts_ray.models.layouts import LAYOUTS, Layout, nearest, recognize

CONVERTED_FROM = "converted_from"
"""Metadata entry of a converted file: the name of the layout it had."""
Outcome = Literal["loaded", "reshaped", "inflated", "skipped", "missing"]

_DEPENDS_ON_CLASSES_OR_GEOMETRY = re.compile(
    r"classifier\..*|backbone\.auxiliary_head\.fc\..*"
    r"|backbone\.neck\.(\w+_fusion\.fusion|pyramid_fusion)\..*"
)
_OPTIONAL = re.compile(r"classifier\..*|backbone\.auxiliary_head\..*|.*\.num_batches_tracked")


class Entry(NamedTuple):
    """What became of one tensor.

    Attributes:
        outcome: ``skipped`` tensors are in the file alone or were not used, ``missing`` ones in the
            model alone; both leave the model's initial values.
        name: In the model; a skipped tensor that has none there, in the file.
        size: Values.
        note: Why, or how.
    """

    outcome: Outcome
    name: str
    size: int
    note: str


class WeightsReport(NamedTuple):
    """What became of a file's tensors and of the model's.

    Attributes:
        file: Read.
        layout: Name of its layout.
        entries: One for every tensor of the file or the model.
        remarks: What else to know.
    """

    file: Path
    layout: str
    entries: tuple[Entry, ...]
    remarks: tuple[str, ...]


def load_starting_weights(model: nn.Module, file: Path) -> WeightsReport:
    """Load a file of any known layout into a recognizer; the model is unchanged on errors.

    A classification head of another shape keeps its initial values.

    Raises:
        CheckpointError: The file is missing, damaged, holds other things than tensors, is of no
            known layout or of another architecture.
    """
    return load_tensors(model, read_tensors(file), file, origin=converted_from(file))


def load_tensors(
    model: nn.Module, published: Mapping[str, Tensor], file: Path, *, origin: Layout | None = None
) -> WeightsReport:
    """Load tensors that were read from ``file``; see :func:`load_starting_weights`.

    ``origin`` is the layout they had before they were converted to ours.
    """
    layout = recognize(published) or refuse_unknown(published, file)
    _check_backbone(layout, model, file)
    own = model.state_dict()
    fits = [_fit_published(model, own, layout, *item) for item in published.items()]
    given = {fit.entry.name for fit in fits}
    covers = tuple(part for part in layout.covers if any(name.startswith(part) for name in given))
    fits += [_fit_absent(covers, name, own[name]) for name in sorted(own.keys() - given)]
    problems = [fit.problem for fit in fits if fit.problem]
    if problems:
        raise CheckpointError(
            f"{file} holds {layout.name} weights of another architecture: {len(problems)} tensors "
            f"do not fit ({_some(problems)}); choose the backbone the file was trained with, or "
            "another file"
        )
    with torch.no_grad():
        for fit in fits:
            if fit.value is not None:
                own[fit.entry.name].copy_(fit.value)
    entries = tuple(fit.entry for fit in fits)
    return WeightsReport(
        file, layout.name, entries, tuple(_remarks(origin or layout, model, entries))
    )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file by name.

    Raises:
        CheckpointError: The file is missing, damaged or holds no tensors, or objects besides them.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: is damaged, or holds pickled objects, which are never executed; save its "
            "tensors alone, as a dictionary"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{file}: cannot read it ({reason}); is it complete?") from error
    for container in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    tensors = (
        {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(f"{file}: holds no tensors by name; use a file of weights")
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def converted_from(file: Path) -> Layout | None:
    """Return the layout that a readable file of ours was converted from, None for other files."""
    if file.suffix != ".safetensors":
        return None
    with safe_open(file, framework="pt") as content:
        name = (content.metadata() or {}).get(CONVERTED_FROM)
    return next((layout for layout in LAYOUTS if layout.name == name), None)


def refuse_unknown(published: Mapping[str, Tensor], file: Path) -> NoReturn:
    """Refuse tensors of no known layout, with the nearest guess.

    Raises:
        CheckpointError: Always.
    """
    guess, known = nearest(published)
    near = f"nearest is {guess.name}, which knows {known} of them" if known else "none is near"
    raise CheckpointError(
        f"{file}: its {len(published)} names ({_some(list(published))}) are of no known layout; "
        f"{near}; use weights of a known layout"
    )


def _check_backbone(layout: Layout, model: nn.Module, file: Path) -> None:
    own = "swin3d" if isinstance(model.get_submodule("backbone"), VideoSwin) else "tpn"
    if own != layout.backbone:
        raise CheckpointError(
            f"{file} holds {layout.name} weights, the model's backbone is {own}; use "
            f"model.backbone.name = {layout.backbone}, or another file"
        )


def _remarks(origin: Layout, model: nn.Module, entries: Sequence[Entry]) -> Iterator[str]:
    loaded = {entry.name for entry in entries if entry.outcome == "loaded"}
    notes = {entry.name: entry.note for entry in entries}
    if "classifier.fc.weight" not in loaded:
        note = notes["classifier.fc.weight"].removeprefix("keeps its initial values").lstrip(": ")
        yield f"the classification head is initialized anew ({note or 'the file has none for it'})"
    trunks = (module for module in model.modules() if isinstance(module, ResNetTSM))
    needed = origin.shift_downsample
    if needed is not None and any(trunk.shift_downsample != needed for trunk in trunks):
        yield origin.shift_remark()


class _Fit(NamedTuple):
    """What becomes of a tensor, its value in the model's shape, and why that is an error."""

    entry: Entry
    value: Tensor | None = None
    problem: str = ""


def _fit_published(
    model: nn.Module, own: Mapping[str, Tensor], layout: Layout, name: str, value: Tensor
) -> _Fit:
    target = layout.own_name(name)
    if target is None:
        return _Fit(Entry("skipped", name, value.numel(), layout.reason_to_skip(name)))
    if target not in own:
        entry = Entry("skipped", target, value.numel(), "the model has no such part")
        problem = "" if _OPTIONAL.fullmatch(target) else f"the model has no {target}"
        return _Fit(entry, problem=problem)
    outcome, note, fitted = _fit(model, target, value, own[target])
    problem = ""
    if fitted is None and not _DEPENDS_ON_CLASSES_OR_GEOMETRY.fullmatch(target):
        problem = f"{target}: {note}"
    return _Fit(Entry(outcome, target, value.numel(), note), fitted, problem)


def _fit_absent(covers: tuple[str, ...], name: str, value: Tensor) -> _Fit:
    needed = name.startswith(covers) and not _OPTIONAL.fullmatch(name)
    entry = Entry("missing", name, value.numel(), "keeps its initial values")
    return _Fit(entry, problem=f"the file has no {name}" if needed else "")


def _fit(
    model: nn.Module, name: str, value: Tensor, target: Tensor
) -> tuple[Outcome, str, Tensor | None]:
    """Outcome, note, and the tensor in the target's shape if that is possible."""
    if value.shape == target.shape:
        return "loaded", "", value
    if name.endswith("relative_position_bias_table"):
        attention = model.get_submodule(name.rpartition(".")[0])
        assert isinstance(attention, WindowAttention)
        return _fit_bias_table(value, attention.window_size)
    frames = target.shape[2] if target.ndim == 5 else 1
    if value.ndim == 4 and value.shape == target.shape[:2] + target.shape[3:]:
        repeated = value.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
        if frames == 1:
            return "reshaped", "a kernel of one frame", repeated
        return "inflated", f"repeated over {frames} frames, divided by {frames}", repeated
    if value.ndim == 5 and value.shape[2] == 1 and value[:, :, 0].shape == target.shape:
        return "reshaped", "a kernel of one frame", value.squeeze(2)
    shapes = f"{_shape(value)} in the file, {_shape(target)} in the model"
    return "skipped", f"keeps its initial values: {shapes}", None


def _fit_bias_table(table: Tensor, window: list[int]) -> tuple[Outcome, str, Tensor | None]:
    """Fit relative position biases (offsets, heads) to a window (time, height, width).

    Offsets in space are resized bicubically from a square window of a 2D network. Offsets in time
    are repeated if there was one, else stretched linearly, ends onto ends.
    """
    time, height, width = (2 * size - 1 for size in window)
    notes = []
    if len(table) % (height * width):
        side = math.isqrt(len(table))
        if side * side != len(table):
            return "skipped", f"{len(table)} offsets fit no window of {window}", None
        grid = table.T.reshape(1, -1, side, side).float()
        table = F.interpolate(grid, (height, width), mode="bicubic").flatten(2)[0].T
        notes.append(f"{side}x{side} offsets in space interpolated to {height}x{width}")
    before, heads = len(table) // (height * width), table.shape[1]
    offsets = table.reshape(before, height * width * heads).float()
    if before == 1:
        notes.append(f"repeated over {time} offsets in time")
        fitted = offsets.expand(time, -1)
    else:
        notes.append(f"{before} offsets in time interpolated to {time}")
        fitted = F.interpolate(offsets.T[None], time, mode="linear", align_corners=True)[0].T
    outcome = "inflated" if before == 1 else "reshaped"
    return outcome, ", ".join(notes), fitted.reshape(-1, heads)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
