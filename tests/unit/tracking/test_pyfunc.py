from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow.pyfunc
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.pyfunc import signature


@pytest.fixture
def model(uri: str, root: Path, register: Callable[[str, Mapping[str, float]], str]) -> PyFuncModel:
    version = register("served", {})
    return mlflow.pyfunc.load_model(connect(uri).get_model_version_download_uri("served", version))


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is served."""
    root = tmp_path / "served"
    root.mkdir()
    monkeypatch.setenv("DSTS_SERVE_ROOT", str(root))
    monkeypatch.setenv("DSTS_SERVE_MAX_BYTES", "100")
    return root


def test_videos_and_paths_in_one_table(model: PyFuncModel, root: Path) -> None:
    file = root / "clip.mp4"
    file.write_bytes(b"\x07content")
    table = pd.DataFrame({"video": [b"\x01ab", None, b""], "path": [None, str(file), None]})
    out = model.predict(table, params={"top_k": 2})
    assert list(out.columns) == [
        "class",
        "probability",
        "classes",
        "probabilities",
        "neurons",
        "error",
    ]
    assert out["class"].iloc[:2].tolist() == ["class1", "class7"]
    assert out["classes"].tolist() == [["class1", "class2"], ["class7", "class8"], []]
    assert out["probabilities"].tolist() == [[0.5, 0.25], [0.5, 0.25], []]
    assert out["neurons"].tolist() == [[3, 1], [3, 1], []]
    assert out["error"].tolist()[2] == "no video stream"
    assert out["error"].isna().tolist() == [True, True, False]
    assert out["probability"].isna().tolist() == [False, False, True]


def test_one_column_is_enough_and_five_classes_are_the_default(model: PyFuncModel) -> None:
    out = model.predict(pd.DataFrame({"video": [b"\x01"]}))
    assert len(out["classes"].iloc[0]) == 5


@pytest.mark.parametrize(
    ("table", "params", "message"),
    [
        ({"video": [b"\x01", None], "path": [None, None]}, {}, "row 1 gives 0 of the columns"),
        ({"video": [b"\x01"], "path": ["clip.mp4"]}, {}, "row 0 gives 2 of the columns"),
        ({}, {}, "the table has no row with a column video or path"),
        ({"video": [b"\x01"]}, {"top_k": 0}, "top_k is 0; allowed: 1 or more"),
        ({"video": [b"\x01" * 101]}, {}, "the video has 101 bytes; this server takes 100"),
        ({"path": ["../model/config.yaml"]}, {}, "lies outside the folder"),
        ({"video": [b"", b""]}, {}, "read; row 0: no video stream; row 1: no video stream"),
    ],
)
def test_malformed_input_is_the_callers_error(
    model: PyFuncModel, table: dict[str, list[object]], params: dict[str, int], message: str
) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(pd.DataFrame(table), params=params)
    assert caught.value.get_http_status_code() == 400


def test_signature_stands_in_the_model(model: PyFuncModel) -> None:
    assert model.metadata.signature == signature()
    assert model.input_example is not None
