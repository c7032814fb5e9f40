"""Predictions of a split from all views of its videos, on any number of workers."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from dsts_ray.data.batch import normalize
from dsts_ray.errors import ClusterError, DataError
from dsts_ray.metrics.attributes import attribute_metrics
from dsts_ray.metrics.recognition import predicted_classes, recognition_metrics
from dsts_ray.metrics.specialization import specialization_metrics
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.train.collective import gather_objects

Rows = Mapping[str, np.ndarray]
Average = Literal["softmax", "logits"]

NOT_SEEN = -1
"""Neuron of a view that gave no finite logits."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of a split's videos in the manifest's order.

    Attributes:
        labels: True classes, (videos,).
        probabilities: Averaged over a video's views, (videos, classes); zeros for a refused video.
        views_seen: Views averaged, (videos,); fewer than there are where a view gave no finite
            logits.
        chosen: Activated neurons, (videos, views, layers); ``NOT_SEEN`` for a view not averaged.
        refused: Reason by row of the videos that have no prediction.
    """

    labels: Tensor
    probabilities: Tensor
    views_seen: Tensor
    chosen: Tensor
    refused: Mapping[int, str]

    @property
    def num_views(self) -> int:
        """Views a video should have."""
        return self.chosen.shape[1]

    @property
    def incomplete(self) -> list[int]:
        """Rows of the videos with a prediction from fewer views than there should be."""
        fewer = (self.views_seen > 0) & (self.views_seen < self.num_views)
        return fewer.nonzero().squeeze(1).tolist()


@dataclass(frozen=True)
class ViewPredictor:
    """Predicts decoded videos from all their views.

    A block's views go through the model in forward passes of ``batch_size`` views, in order,
    refused and filling rows included: what shares a forward pass depends on nothing but the
    block, so neither do the predictions, to the last bit.

    Attributes:
        model: Runs in evaluation mode, in float32.
        device: The model's.
        average: What is averaged over the views of a video.
        batch_size: Views in a forward pass.
        refused: A video that could not be decoded is a row without a prediction (``wrong``) or an
            error (``stop``).
    """

    model: Recognizer
    device: torch.device
    average: Average
    batch_size: int
    refused: Literal["wrong", "stop"]

    def __call__(self, rows: Rows) -> dict[str, np.ndarray]:
        """Predict a block of the evaluation stream.

        Args:
            rows: ``clip`` uint8 (videos, views, time, height, width, 3), ``sample_id``, ``label``
                and ``reason``, empty where the video was decoded.

        Returns:
            ``sample_id``, ``label``, ``reason``, ``probabilities``, ``views_seen`` and ``chosen``,
            as in :class:`Predictions`.

        Raises:
            DataError: A video was refused and ``refused`` is ``stop``.
        """
        reasons = rows["reason"].astype(object)
        present = rows["sample_id"] >= 0
        if self.refused == "stop" and (bad := [str(r) for r in reasons[present] if r]):
            raise DataError(
                f"{'; '.join(bad[:3])}: repair or leave out the video, or count it as wrong with "
                "evaluation.refused=wrong"
            )
        num_videos, num_views = rows["clip"].shape[:2]
        logits, chosen = self._forward(rows["clip"].reshape(-1, *rows["clip"].shape[2:]))
        logits = logits.view(num_videos, num_views, -1)
        chosen = chosen.view(num_videos, num_views, -1)
        decoded = torch.from_numpy(reasons == "")
        seen = logits.isfinite().all(2) & decoded.unsqueeze(1)
        views_seen = seen.sum(1)
        reasons[(decoded & (views_seen == 0)).numpy()] = "the model's logits are not finite"
        return {
            "sample_id": rows["sample_id"],
            "label": rows["label"],
            "reason": reasons,
            "probabilities": average_views(logits, seen, self.average).numpy(),
            "views_seen": views_seen.numpy(),
            "chosen": torch.where(seen.unsqueeze(2), chosen, NOT_SEEN).numpy(),
        }

    @torch.no_grad()
    def _forward(self, clips: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits (views, classes) and chosen neurons (views, layers), on the CPU."""
        was_training = self.model.training
        self.model.eval()
        logits, chosen = [], []
        for start in range(0, len(clips), self.batch_size):
            frames = torch.tensor(clips[start : start + self.batch_size]).to(self.device)
            views = rearrange(normalize(frames), "b t h w c -> b c t h w").contiguous()
            recognition = self.model(views)
            logits.append(recognition.logits.float().cpu())
            neurons = [selection.chosen.cpu() for selection in recognition.selections]
            none = torch.zeros(len(frames), 0, dtype=torch.int64)
            chosen.append(torch.stack(neurons, 1) if neurons else none)
        self.model.train(was_training)
        return torch.cat(logits), torch.cat(chosen)


def average_views(logits: Tensor, seen: Tensor, average: Average) -> Tensor:
    """Average a video's views, each that was seen with the same weight.

    Args:
        logits: (videos, views, classes).
        seen: Which views count, (videos, views).
        average: ``softmax`` averages probabilities; ``logits`` averages these and then takes the
            softmax.

    Returns:
        Probabilities, (videos, classes); zeros for a video of which no view was seen.
    """
    scores = logits.softmax(2) if average == "softmax" else logits
    total = torch.where(seen.unsqueeze(2), scores, 0.0).sum(1)
    mean = total / seen.sum(1, keepdim=True).clamp(min=1)
    if average == "logits":
        mean = mean.softmax(1)
    return torch.where(seen.any(1, keepdim=True), mean, 0.0)


@dataclass
class TimedPredictor:
    """Predicts as another does and counts the time that takes, decoding not included.

    Attributes:
        predict: The other one.
        num_views: Predicted so far.
        seconds: That took.
    """

    predict: Callable[[Rows], dict[str, np.ndarray]]
    num_views: int = 0
    seconds: float = 0.0

    def __call__(self, rows: Rows) -> dict[str, np.ndarray]:
        """Predict a block."""
        started = time.perf_counter()
        predicted = self.predict(rows)
        self.seconds += time.perf_counter() - started
        self.num_views += rows["clip"].shape[0] * rows["clip"].shape[1]
        return predicted

    @property
    def metrics(self) -> dict[str, float]:
        """Seconds a view, once there was one."""
        return {"time/inference_view_s": self.seconds / self.num_views} if self.num_views else {}


def predict_split(
    predict: Callable[[Rows], dict[str, np.ndarray]], blocks: Iterable[Rows], num_videos: int
) -> Predictions:
    """Predict a split on all training workers; each gives its own blocks and gets all videos.

    Raises:
        DataError: On all workers, where ``predict`` raises it on one.
    """
    own: list[dict[str, np.ndarray]] = []
    failure: DataError | None = None
    for rows in blocks:  # to the end, or the workers' common stream would stand still
        try:
            own += [predict(rows)] if failure is None else []
        except DataError as error:
            failure = error
    shares = gather_objects((own, failure))
    for _, failed in shares:
        if failed:
            raise failed
    return collect(itertools.chain.from_iterable(blocks for blocks, _ in shares), num_videos)


def collect(blocks: Iterable[Rows], num_videos: int) -> Predictions:
    """Put predicted blocks of all workers in the order of the videos.

    Rows with a negative sample id are left out.

    Raises:
        ClusterError: A video is missing or came twice.
    """
    blocks = list(blocks)
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    order = np.argsort(joined["sample_id"], kind="stable")
    order = order[joined["sample_id"][order] >= 0]
    rows = {name: values[order] for name, values in joined.items()}
    times = np.bincount(rows["sample_id"], minlength=num_videos)
    if len(times) != num_videos or (times != 1).any():
        raise ClusterError(
            f"of {num_videos} videos {int((times == 0).sum())} came back from the workers without "
            f"a prediction and {int((times > 1).sum())} more than once; evaluate again"
        )
    return Predictions(
        labels=torch.from_numpy(rows["label"].astype(np.int64)),
        probabilities=torch.from_numpy(rows["probabilities"]),
        views_seen=torch.from_numpy(rows["views_seen"]),
        chosen=torch.from_numpy(rows["chosen"]),
        refused={row: str(reason) for row, reason in enumerate(rows["reason"]) if reason},
    )


def score(
    predictions: Predictions, *, classes: Sequence[str], num_neurons: int
) -> dict[str, float]:
    """Metrics under the names of the design; refused videos count as errors.

    Specialization is measured over views.
    """
    labels, probabilities = predictions.labels, predictions.probabilities
    recognition = recognition_metrics(probabilities, labels)
    recognition |= attribute_metrics(predicted_classes(probabilities), labels, classes)
    metrics = {f"val/{name}": value for name, value in recognition.items()} | {
        "val/num_videos": float(len(labels)),
        "val/num_refused": float(len(predictions.refused)),
        "val/num_incomplete": float(len(predictions.incomplete)),
    }
    seen = (predictions.chosen != NOT_SEEN).all(2) & (predictions.views_seen > 0).unsqueeze(1)
    if predictions.chosen.shape[2] and bool(seen.any()):
        of_views = labels.unsqueeze(1).expand_as(seen)
        sharing = specialization_metrics(predictions.chosen[seen], of_views[seen], num_neurons)
        metrics |= {f"dsts/{name}": value for name, value in sharing.items()}
    return metrics


def gate_metrics(model: Recognizer) -> dict[str, float]:
    """``gates/layer0/neuron0_spatial_ratio`` and so on; nothing for a model without gates."""
    dsts = model.classifier.dsts
    return {
        f"gates/layer{layer}/neuron{neuron}_spatial_ratio": ratio
        for layer, ratios in enumerate(dsts.spatial_ratios() if dsts else [])
        for neuron, ratio in enumerate(ratios)
    }
