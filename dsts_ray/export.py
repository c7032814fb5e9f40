"""A trained model as one file for other programs: torch.export or ONNX, without pickle.

The file computes what evaluation computes of one clip, at test time: decoded frames in, logits and
the activated neurons out. Dispatch is sparse in both formats: a layer takes the kernels of the
neuron that the clip activates by index, so the batch is one clip. A model that averages all neurons
(``dsts.synapse=average``) computes them all: its dispatch is dense.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from dsts_ray.data.batch import normalize
from dsts_ray.errors import ConfigError, ExportError
from dsts_ray.models.dsts.dispatch import TestDispatch
from dsts_ray.models.dsts.module import DSTSLayer
from dsts_ray.models.recognizer import Recognizer

Format = Literal["torch", "onnx"]
TOLERANCE = 1e-4
FRAMES, LOGITS, NEURONS, CLASSES = "frames", "logits", "neurons", "classes.json"
"""Names of the input, the outputs, and of the class names in the file's metadata."""

Answer = tuple[np.ndarray, np.ndarray]
"""Logits (1, classes) and neurons (1, layers)."""


class Exported(NamedTuple):
    """A written file.

    Attributes:
        path: Of the file.
        frames: Shape of its input.
        dispatch: Which neurons it computes.
        num_clips: That it was checked on.
        difference: Largest difference of a logit from the model's.
    """

    path: Path
    frames: tuple[int, ...]
    dispatch: Literal["sparse", "dense", "none"]
    num_clips: int
    difference: float


class ClipRecognizer(nn.Module):
    """Logits and activated neurons of one clip of decoded frames."""

    def __init__(self, model: Recognizer) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model

    def forward(
        self, frames: UInt8[Tensor, "1 time height width 3"]
    ) -> tuple[Float[Tensor, "1 classes"], Int[Tensor, "1 layers"]]:
        """Recognize a clip; ``neurons`` has no columns where all neurons are averaged."""
        recognition = self.model(rearrange(normalize(frames), "b t h w c -> b c t h w"))
        chosen = [selection.chosen for selection in recognition.selections]
        none = torch.zeros(1, 0, dtype=torch.int64)
        return recognition.logits, torch.stack(chosen, 1) if chosen else none


@torch.no_grad()
def export_model(
    model: Recognizer,
    clips: Sequence[UInt8[np.ndarray, "time height width 3"]],
    *,
    classes: Sequence[str],
    format: Format,
    path: Path,
) -> Exported:
    """Write a model, and give the file its name once it computes what the model computes.

    Args:
        model: On the CPU.
        clips: Of one shape, which becomes the file's; at least one. The file is checked on them.
        classes: Names; they stand in the file's metadata.
        format: ``torch`` (read by ``torch.export.load``) or ``onnx``.
        path: Of the file, which is replaced.

    Raises:
        ExportError: A package is missing, or the file computes something else.
        ConfigError: There is no clip to check on.
    """
    if not clips:
        raise ConfigError("there is no clip to check the file on; give --data a manifest of some")
    expected = [_answer(ClipRecognizer(model.eval()), clip) for clip in clips]
    program = _traced(model, clips[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write, load = (_write_torch, _load_torch) if format == "torch" else (_write_onnx, _load_onnx)
    try:
        write(program, temporary, json.dumps(list(classes)))
        found = [load(temporary)(clip) for clip in clips]
        difference = _largest_difference(expected, found)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(path, (1, *clips[0].shape), _dispatch(model), len(clips), difference)


def _traced(model: Recognizer, clip: np.ndarray) -> torch.export.ExportedProgram:
    layers = _layers(model)
    before: list[TestDispatch] = [layer.neurons.test_dispatch for layer in layers]
    for layer in layers:
        layer.neurons.test_dispatch = "gathered"
    try:
        frames = torch.from_numpy(clip).unsqueeze(0)
        program = torch.export.export(ClipRecognizer(model).eval(), (frames,))
    finally:
        for layer, dispatch in zip(layers, before, strict=True):
            layer.neurons.test_dispatch = dispatch
    return program


def _layers(model: Recognizer) -> list[DSTSLayer]:
    dsts = model.classifier.dsts
    return [] if dsts is None else [own for own in dsts.layers if isinstance(own, DSTSLayer)]


def _dispatch(model: Recognizer) -> Literal["sparse", "dense", "none"]:
    layers = _layers(model)
    if not layers:
        return "none"
    return "dense" if layers[0].synapse is None else "sparse"


def _answer(recognizer: nn.Module, clip: np.ndarray) -> Answer:
    logits, neurons = recognizer(torch.from_numpy(clip).unsqueeze(0))
    return logits.numpy(), neurons.numpy()


def _largest_difference(expected: Sequence[Answer], found: Sequence[Answer]) -> float:
    """Largest difference of a logit.

    Raises:
        ExportError: It is above ``TOLERANCE``, or a neuron is another.
    """
    pairs = list(zip(expected, found, strict=True))
    difference = max(float(np.abs(own[0] - other[0]).max()) for own, other in pairs)
    others = sum(not np.array_equal(own[1], other[1]) for own, other in pairs)
    if others or not difference <= TOLERANCE:
        raise ExportError(
            f"on {len(pairs)} clips the file's logits differ from the model's by up to "
            f"{difference:.3g} (allowed: {TOLERANCE:g}), and {others} clips activate other "
            "neurons; nothing was written. Try the other --format"
        )
    return difference


def _write_torch(program: torch.export.ExportedProgram, path: Path, classes: str) -> None:
    program.example_inputs = None  # would be pickled
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={CLASSES: classes})


def _load_torch(path: Path) -> Callable[[np.ndarray], Answer]:
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda clip: _answer(module, clip)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, classes: str) -> None:
    with _extra():
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    written = torch.onnx.export(
        program, input_names=[FRAMES], output_names=[LOGITS, NEURONS], dynamo=True, verbose=False
    )
    assert written is not None
    proto = written.model_proto
    onnx.helper.set_model_props(proto, {CLASSES: classes})
    path.write_bytes(proto.SerializeToString())


def _load_onnx(path: Path) -> Callable[[np.ndarray], Answer]:
    with _extra():
        import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(clip: np.ndarray) -> Answer:
        logits, neurons = session.run([LOGITS, NEURONS], {FRAMES: clip[None]})
        return np.asarray(logits), np.asarray(neurons)

    return answer


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ExportError(f"{error}: install the extra, python -m pip install '.[onnx]'") from error
