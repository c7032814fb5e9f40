from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from dsts_ray.tracking import registry
from dsts_ray.tracking.mlflow import open_run
from tests.support.store import new_store

MODEL_SCRIPT = """
from pathlib import Path

from dsts_ray.tracking.pyfunc import Prediction, serve


class FirstBytePredictor:
    def __init__(self, directory, limits):
        self.scale = float((directory / "config.yaml").read_text())
        self.weights = (directory / "model.safetensors").read_bytes()

    def predict(self, sources, *, top_k):
        return [self.predict_one(source, top_k) for source in sources]

    def predict_one(self, source, top_k):
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not content:
            return Prediction([], [], [], "no video stream")
        ranks = range(top_k)
        classes = [f"class{content[0] + rank}" for rank in ranks]
        return Prediction(classes, [self.scale / 2**rank for rank in ranks], [3, 1], None)


serve(FirstBytePredictor)
"""


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def run_id(uri: str, request: pytest.FixtureRequest) -> str:
    return open_run(
        uri=uri,
        experiment="tests",
        run_name=request.node.name,
        artifact_root=None,
        params={},
        tags={},
    )


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.yaml").write_text("0.5")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "model_script.py").write_text(MODEL_SCRIPT)
    return folder


@pytest.fixture
def register(
    uri: str, run_id: str, model_folder: Path
) -> Callable[[str, Mapping[str, float]], str]:
    def register(name: str, metrics: Mapping[str, float]) -> str:
        return registry.register_model(
            uri=uri,
            run_id=run_id,
            name=name,
            model_script=model_folder / "model_script.py",
            artifacts={
                "config": model_folder / "config.yaml",
                "weights": model_folder / "model.safetensors",
            },
            code_paths=[],
            example=b"\x01video",
            pip_requirements=["mlflow"],
            metrics=metrics,
            tags={"protocol": "4x3 views"},
        )

    return register
