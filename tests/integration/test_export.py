"""Exported files against the models they come from."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dsts_ray.data.batch import normalize
from dsts_ray.errors import ConfigError, ExportError
from dsts_ray.export import CLASSES, Exported, Format, export_model
from dsts_ray.models.dsts.module import DSTSLayer
from dsts_ray.models.recognizer import Recognizer
from tests.support.tiny import CROP_SIZE, NUM_FRAMES, SWIN, tiny_config, tiny_model

NAMES = ("forward pike", "back tuck", "inward", "reverse")
CLIPS = [
    np.random.default_rng(seed)
    .integers(0, 64 * seed, (NUM_FRAMES, CROP_SIZE, CROP_SIZE, 3))
    .astype(np.uint8)
    for seed in (1, 2, 3, 4)
]


def layers_of(model: Recognizer) -> list[DSTSLayer]:
    dsts = model.classifier.dsts
    return [layer for layer in dsts.layers if isinstance(layer, DSTSLayer)] if dsts else []


def model_of(*overrides: str) -> Recognizer:
    """A model whose clips activate several neurons."""
    model = tiny_model(tiny_config(*overrides), torch.float32).eval()
    torch.nn.init.normal_(model.classifier.fc.weight)
    for layer in layers_of(model):
        if layer.synapse is not None and layer.synapse.statistics is not None:
            layer.synapse.train()  # running statistics of the clips, so that neurons share them
    with torch.no_grad():
        for _ in range(30):
            frames = normalize(torch.from_numpy(np.stack(CLIPS)))
            model(frames.permute(0, 4, 1, 2, 3))
    return model.eval()


@torch.no_grad()
def neurons_of(model: Recognizer, clip: np.ndarray) -> tuple[int, ...]:
    """Activated neuron of each layer."""
    frames = normalize(torch.from_numpy(clip).unsqueeze(0)).permute(0, 4, 1, 2, 3)
    return tuple(int(selection.chosen) for selection in model(frames).selections)


def export(model: Recognizer, format: Format, folder: Path) -> Exported:
    path = folder / f"model.{format}"
    return export_model(model, CLIPS, classes=NAMES, format=format, path=path)


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return model_of()


@pytest.fixture(scope="module")
def files(model: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Exported]:
    folder = tmp_path_factory.mktemp("files")
    formats: tuple[Format, ...] = ("torch", "onnx")
    return {format: export(model, format, folder) for format in formats}


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_a_file_computes_what_the_model_does(
    format: Format, model: Recognizer, files: dict[Format, Exported]
) -> None:
    written = files[format]
    assert (written.dispatch, written.num_clips) == ("sparse", 4)
    assert written.frames == (1, NUM_FRAMES, CROP_SIZE, CROP_SIZE, 3)
    assert written.difference <= 1e-4
    assert len({neurons_of(model, clip) for clip in CLIPS}) > 1
    assert sorted(p.name for p in written.path.parent.iterdir()) == ["model.onnx", "model.torch"]
    assert {layer.neurons.test_dispatch for layer in layers_of(model)} == {"sparse"}


def test_a_torch_file_holds_names_and_nothing_pickled(files: dict[Format, Exported]) -> None:
    with zipfile.ZipFile(files["torch"].path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (names,) = (value for name, value in content.items() if name.endswith(CLASSES))
    assert json.loads(names) == list(NAMES)
    assert not [name for name, value in content.items() if value.startswith(b"PK\x03\x04")]
    (samples,) = (value for name, value in content.items() if "sample_inputs" in name)
    assert samples == b""
    configs = [value for name, value in content.items() if name.endswith("_config.json")]
    payloads = [entry for config in configs for entry in json.loads(config)["config"].values()]
    assert len(payloads) > 50
    assert not any(payload["use_pickle"] for payload in payloads)


def test_an_onnx_file_takes_the_kernels_of_one_neuron(files: dict[Format, Exported]) -> None:
    """The graph chooses them: they are no constants."""
    proto = onnx.load(files["onnx"].path)
    onnx.checker.check_model(proto, full_check=True)
    assert json.loads({one.key: one.value for one in proto.metadata_props}[CLASSES]) == list(NAMES)
    assert [value.name for value in proto.graph.output] == ["logits", "neurons"]
    constants = {value.name for value in proto.graph.initializer}
    gathered = [
        node
        for node in proto.graph.node
        if node.op_type == "Conv" and node.input[1] not in constants
    ]
    assert len(gathered) == 4  # two operators in each of two layers


@pytest.mark.parametrize(
    ("overrides", "dispatch"),
    [(("dsts.synapse=average",), "dense"), (("dsts.enabled=false",), "none")],
)
def test_other_models(overrides: tuple[str, ...], dispatch: str, tmp_path: Path) -> None:
    assert export(model_of(*overrides), "torch", tmp_path).dispatch == dispatch


@pytest.mark.exhaustive
@pytest.mark.parametrize("format", ["torch", "onnx"])
@pytest.mark.parametrize(
    "overrides",
    [
        ("dsts.specialization=conv3d",),
        ("dsts.fuse=per_neuron",),
        ("dsts.scoring_kernel=1x3x3",),
        ("dsts.synapse=average",),
        ("dsts.enabled=false",),
        SWIN,
    ],
)
def test_every_form_of_the_model(
    overrides: tuple[str, ...], format: Format, tmp_path: Path
) -> None:
    assert export(model_of(*overrides), format, tmp_path).difference <= 1e-4


def test_a_file_that_computes_something_else_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.torch").write_text("an earlier one")
    monkeypatch.setattr("dsts_ray.export.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="nothing was written"):
        export(model_of(), "torch", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no clip to check the file on"):
        export_model(model_of(), [], classes=NAMES, format="torch", path=tmp_path / "x")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install '\.\[onnx\]'"):
        export(model_of(), "onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []
