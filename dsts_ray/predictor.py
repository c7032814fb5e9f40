"""A trained model that classifies video files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dsts_ray.build import build_view_predictor, build_view_spec, load_model
from dsts_ray.config.schema import Config
from dsts_ray.data.storage import is_url
from dsts_ray.errors import DataError
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.tracking.base import Prediction


class VideoPredictor:
    """Decodes videos as evaluation does, all views, and classifies them one by one."""

    def __init__(self, config: Config, model: Recognizer, classes: Sequence[str]) -> None:
        """Wrap a model in evaluation mode; runs on the GPU where there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classes = tuple(classes)
        self.spec = build_view_spec(config)
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

    def _predict(self, source: str | bytes, top_k: int) -> Prediction:
        if isinstance(source, str) and is_url(source):  # a served model must not fetch for others
            return Prediction([], [], [], f"{source}: give a file of this machine, or its bytes")
        try:
            views = self.spec.views({"path": source, "start_frame": 0, "end_frame": None})
        except DataError as error:
            return Prediction([], [], [], str(error))
        rows = {"sample_id": np.zeros(1, np.int64), "label": np.zeros(1, np.int64)}
        rows |= {"clip": views[None], "reason": np.array([""], dtype=object)}
        predicted = self.predict_views(rows)
        if reason := predicted["reason"][0]:
            return Prediction([], [], [], str(reason))
        probabilities = torch.from_numpy(predicted["probabilities"][0])
        best, order = probabilities.topk(min(top_k, len(self.classes)))
        neurons = torch.from_numpy(predicted["chosen"][0]).mode(0).values
        return Prediction(
            [self.classes[i] for i in order.tolist()], best.tolist(), neurons.tolist(), None
        )


def load_predictor(directory: Path) -> VideoPredictor:
    """Load a predictor from a folder with ``config.yaml`` and ``model.safetensors``.

    Raises:
        CheckpointError: A file is missing, damaged, or the two do not fit.
    """
    return VideoPredictor(*load_model(directory))
