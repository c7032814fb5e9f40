"""The registered model as MLflow sees it: a table of videos in, a table of predictions out.

A model script (MLflow's "models from code": the script is stored with the model, nothing is
pickled) consists of a function that loads a predictor and one call of ``serve``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from dsts_ray.errors import LimitError
from dsts_ray.tracking.base import Prediction, Predictor
from dsts_ray.tracking.limits import ServingLimits

CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "model.safetensors"
DEFAULT_TOP_K = 5


def signature() -> ModelSignature:
    """Input, output and parameters of the registered model.

    Input: ``video`` (a file's content) or ``path`` (of a file in the folder that the server
    declares), within the limits of ``ServingLimits``.
    Output: ``class``, ``probability``, and the lists ``classes``, ``probabilities``, ``neurons``;
    ``error`` where a video could not be read and another could. Parameter ``top_k``: classes per
    video, 1 or more.
    """
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.binary, "video", required=False),
                ColSpec(DataType.string, "path", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.string, "class", required=False),
                ColSpec(DataType.double, "probability", required=False),
                ColSpec(Array(DataType.string), "classes"),
                ColSpec(Array(DataType.double), "probabilities"),
                ColSpec(Array(DataType.long), "neurons"),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
        params=ParamSchema([ParamSpec("top_k", DataType.long, DEFAULT_TOP_K)]),
    )


def serve(load_predictor: Callable[[Path, ServingLimits], Predictor]) -> None:
    """Make the running script a model script whose predictor ``load_predictor`` loads.

    Args:
        load_predictor: takes a folder that holds ``config.yaml`` and ``model.safetensors``, and
            the limits that the predictor keeps: length and time of decoding.
    """
    set_model(_VideoModel(load_predictor))


class _VideoModel(PythonModel):
    def __init__(self, load_predictor: Callable[[Path, ServingLimits], Predictor]) -> None:
        self._load_predictor = load_predictor

    def load_context(self, context: PythonModelContext) -> None:
        self._limits = ServingLimits.of()
        folder = Path(context.artifacts["config"]).parent
        self._predictor = self._load_predictor(folder, self._limits)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        top_k = int((params or {}).get("top_k", DEFAULT_TOP_K))
        if top_k < 1:
            raise MlflowException.invalid_parameter_value(f"top_k is {top_k}; allowed: 1 or more")
        try:
            sources = [self._limits.check(source) for source in _to_sources(model_input)]
            predictions = self._predictor.predict(sources, top_k=top_k)
        except LimitError as error:  # the server answers with status 400 and the reason
            raise MlflowException.invalid_parameter_value(str(error)) from error
        if all(prediction.error for prediction in predictions):
            reasons = [f"row {row}: {own.error}" for row, own in enumerate(predictions)]
            raise MlflowException.invalid_parameter_value(
                f"no video could be read; {'; '.join(reasons)}"
            )
        return _to_table(predictions)


def _to_sources(table: pd.DataFrame) -> list[str | bytes]:
    sources = []
    for index, row in enumerate(table.to_dict("records")):
        given = [row[name] for name in ("video", "path") if name in row and pd.notna(row[name])]
        if len(given) != 1:
            raise MlflowException.invalid_parameter_value(
                f"row {index} gives {len(given)} of the columns video and path; give exactly one"
            )
        sources.append(given[0])
    if not sources:
        raise MlflowException.invalid_parameter_value(
            "the table has no row with a column video or path; give one a video"
        )
    return sources


def _to_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    rows = [
        {
            "class": prediction.classes[0] if prediction.classes else None,
            "probability": prediction.probabilities[0] if prediction.probabilities else None,
            **prediction._asdict(),
        }
        for prediction in predictions
    ]
    columns = ["class", "probability", "classes", "probabilities", "neurons", "error"]
    return pd.DataFrame(rows, columns=columns)
