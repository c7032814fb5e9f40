"""A trained model that classifies video files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import one_hot

from dsts_ray.build import build_view_predictor, build_view_spec, load_model
from dsts_ray.config.schema import Config
from dsts_ray.data.isolated import DecodingProcess, limited_views
from dsts_ray.data.storage import is_url
from dsts_ray.errors import DataError
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.tracking.base import Prediction
from dsts_ray.tracking.limits import ServingLimits
from dsts_ray.train.evaluate import NOT_SEEN


class VideoPredictor:
    """Decodes videos as evaluation does, all views, and classifies them one by one."""

    def __init__(self, config: Config, model: Recognizer, classes: Sequence[str]) -> None:
        """Wrap a model in evaluation mode; runs on the GPU where there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classes = tuple(classes)
        self.spec = build_view_spec(config)
        self.views: Callable[[dict[str, Any]], np.ndarray] = self.spec.views
        self.predict_views = build_view_predictor(config, model.to(device), device)

    def predict(self, sources: Sequence[str | bytes], *, top_k: int) -> list[Prediction]:
        """Classify videos.

        Args:
            sources: Paths or the files' bytes.
            top_k: Classes per video, at least 1; no more than there are.

        Returns:
            One prediction a source; one that cannot be decoded has the reason as its error. Of
            several views the neurons are the most frequent ones.
        """
        return [self._predict(source, top_k) for source in sources]

    def predict_row(self, row: Mapping[str, Any], *, top_k: int) -> Prediction:
        """Classify a video of a table, wherever it lies; see :meth:`predict`.

        Args:
            row: As ``ViewSpec.views`` takes it.
            top_k: Classes, at least 1; no more than there are.
        """
        try:
            views = self.views(dict(row))
        except DataError as error:
            return Prediction([], [], [], str(error))
        rows = {"sample_id": np.zeros(1, np.int64), "label": np.zeros(1, np.int64)}
        rows |= {"clip": views[None], "reason": np.array([""], dtype=object)}
        predicted = self.predict_views(rows)
        if reason := predicted["reason"][0]:
            return Prediction([], [], [], str(reason))
        best = most_probable(predicted, top_k)
        return Prediction(
            [self.classes[label] for label in best.labels[0].tolist()],
            best.probabilities[0].tolist(),
            best.neurons[0].tolist(),
            None,
        )

    def _predict(self, source: str | bytes, top_k: int) -> Prediction:
        if isinstance(source, str) and is_url(source):  # a served model must not fetch for others
            return Prediction([], [], [], f"{source}: give a file of this machine, or its bytes")
        return self.predict_row({"path": source, "start_frame": 0, "end_frame": None}, top_k=top_k)


class MostProbable(NamedTuple):
    """What is told of predicted videos.

    Attributes:
        labels: Most probable first, (videos, classes told).
        probabilities: Of these.
        neurons: Activated in most of the views that were seen, (videos, layers).
    """

    labels: np.ndarray
    probabilities: np.ndarray
    neurons: np.ndarray


def most_probable(predicted: Mapping[str, np.ndarray], top_k: int) -> MostProbable:
    """Choose what to tell of the videos that a ``ViewPredictor`` predicted.

    Args:
        predicted: Its answer.
        top_k: Classes, at least 1; no more than there are.
    """
    probabilities = torch.from_numpy(predicted["probabilities"])
    best, order = probabilities.topk(min(top_k, probabilities.shape[1]))
    chosen = torch.from_numpy(predicted["chosen"])
    num_neurons = int(predicted["chosen"].max(initial=0)) + 1
    votes = one_hot(chosen.clamp(min=0), num_neurons) * (chosen != NOT_SEEN).unsqueeze(3)
    return MostProbable(order.numpy(), best.numpy(), votes.sum(1).argmax(2).numpy())


def load_predictor(directory: Path) -> VideoPredictor:
    """Load a predictor from a folder with ``config.yaml`` and ``model.safetensors``.

    Raises:
        CheckpointError: A file is missing, damaged, or the two do not fit.
    """
    return VideoPredictor(*load_model(directory))


def load_served_predictor(directory: Path, limits: ServingLimits) -> VideoPredictor:
    """Load a predictor that decodes in a process of its own, and nothing that is too long.

    Raises:
        CheckpointError: As ``load_predictor``.
    """
    predictor = load_predictor(directory)
    views = partial(limited_views, predictor.spec, limits.max_seconds)
    predictor.views = DecodingProcess(views, timeout_s=limits.timeout_s)
    return predictor
