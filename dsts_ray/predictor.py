"""A trained model that classifies video files."""

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange

from dsts_ray.build import build_clip_spec, load_model
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import normalize
from dsts_ray.errors import DataError
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.tracking.base import Prediction


class VideoPredictor:
    """Decodes videos as evaluation does and classifies them one by one."""

    def __init__(self, config: Config, model: Recognizer, classes: Sequence[str]) -> None:
        """Wrap a model in evaluation mode; runs on the GPU where there is one."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        self.classes = tuple(classes)
        self.spec = build_clip_spec(config)

    def predict(self, sources: Sequence[str | bytes], *, top_k: int) -> list[Prediction]:
        """Classify videos.

        Args:
            sources: Paths or the files' bytes.
            top_k: Classes per video, at least 1; no more than there are.

        Returns:
            One prediction a source; one that cannot be decoded has the reason as its error.
        """
        return [self._predict(source, top_k) for source in sources]

    @torch.inference_mode()
    def _predict(self, source: str | bytes, top_k: int) -> Prediction:
        try:
            clip = self.spec.test_clip({"path": source, "start_frame": 0, "end_frame": None})
        except DataError as error:
            return Prediction([], [], [], str(error))
        frames = torch.from_numpy(clip).unsqueeze(0).to(self.device)
        recognition = self.model(rearrange(normalize(frames), "b t h w c -> b c t h w"))
        probabilities, order = recognition.logits[0].softmax(0).topk(min(top_k, len(self.classes)))
        neurons = [int(selection.chosen[0]) for selection in recognition.selections]
        return Prediction(
            [self.classes[i] for i in order.tolist()], probabilities.tolist(), neurons, None
        )


def load_predictor(directory: Path) -> VideoPredictor:
    """Load a predictor from a folder with ``config.yaml`` and ``model.safetensors``.

    Raises:
        CheckpointError: A file is missing, damaged, or the two do not fit.
    """
    return VideoPredictor(*load_model(directory))
