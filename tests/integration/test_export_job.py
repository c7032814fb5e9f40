"""The export job on a trained model, its files read by other programs' libraries."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dsts_ray.data.manifest import Manifest
from dsts_ray.predictor import load_predictor
from dsts_ray.tracking.registry import resolve_model
from tests.support.jobs import RunJob, TrainedRun

CHAMPION = "models:/dsts_ray@champion"


def test_both_files_give_the_champions_probabilities(
    run_job: RunJob, trained: TrainedRun, tmp_path: Path
) -> None:
    files = {name: tmp_path / "files" / f"champion.{name}" for name in ("torch", "onnx")}
    store = ("--tracking-uri", trained.tracking_uri)
    for name, file in files.items():
        options = ("--format", name, "--out", file)
        result = run_job("export.py", "--model", CHAMPION, *store, *options)
        assert result.code == 0, result.err
        assert f"wrote {file}: frames (uint8, 1 x 4 x 32 x 32 x 3)" in result.out
        assert "dispatch of the neurons: sparse" in result.out
        assert "on 8 clips logits differ by" in result.out
    model = resolve_model(uri=trained.tracking_uri, model=CHAMPION, cache_dir=tmp_path).directory
    predictor = load_predictor(model)
    session = onnxruntime.InferenceSession(files["onnx"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(metadata["classes.json"])) == predictor.classes
    module = torch.export.load(files["torch"]).module()
    for video in Manifest.read(trained.manifest).split("test").table.to_pylist()[:3]:
        frames = predictor.spec.views(video)
        (prediction,) = predictor.predict([video["path"]], top_k=4)
        logits, neurons = module(torch.from_numpy(frames))
        from_onnx, neurons_of_onnx = session.run(None, {"frames": frames})
        assert neurons.tolist() == np.asarray(neurons_of_onnx).tolist() == [prediction.neurons]
        for found in (logits.detach(), torch.from_numpy(np.asarray(from_onnx))):
            best = found.softmax(1)[0].sort(descending=True).values.tolist()
            assert best == pytest.approx(prediction.probabilities, abs=1e-4)


def test_bad_requests(run_job: RunJob, tmp_path: Path) -> None:
    options = ("--format", "torch", "--out", tmp_path / "x")
    result = run_job("export.py", "--model", tmp_path, *options)
    assert result.code == 2
    assert "lacks config.yaml and model.safetensors" in result.error
    result = run_job("export.py", "--model", tmp_path, "--format", "torch", "--out", tmp_path)
    assert result.code == 2
    assert f"--out {tmp_path} is a folder: name a file in it" in result.error
    result = run_job("export.py", "--model", tmp_path, "--format", "pickle", "--out", "x")
    assert result.code == 2
    assert "invalid choice: 'pickle'" in result.err
