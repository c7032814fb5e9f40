"""Predictions of a split, on any number of workers, and their metrics."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsts_ray.data.batch import to_device
from dsts_ray.metrics import recognition_metrics, specialization_metrics
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.train.collective import gather_rows


class Predictions(NamedTuple):
    """Predictions, one row a video.

    Attributes:
        sample_ids: Row in the manifest's split, (videos,).
        labels: True classes, (videos,).
        probabilities: (videos, classes); zeros for a refused video.
        chosen: Activated neurons, (videos, layers).
        refused: (sample id, reason) of this worker's refused videos.
    """

    sample_ids: Tensor
    labels: Tensor
    probabilities: Tensor
    chosen: Tensor
    refused: tuple[tuple[int, str], ...]


@torch.no_grad()
def predict(
    model: Recognizer, blocks: Iterable[Mapping[str, np.ndarray]], device: torch.device
) -> Predictions:
    """Predict decoded rows in evaluation mode, in float32.

    Rows with a negative sample id are left out.
    """
    was_training = model.training
    model.eval()
    num_classes = model.classifier.fc.out_features
    num_layers = dsts.num_selections if (dsts := model.classifier.dsts) is not None else 0
    ids, labels, probabilities, chosen, refused = [], [], [], [], []
    for rows in blocks:
        present = rows["sample_id"] >= 0
        if not present.any():
            continue
        batch = to_device({name: values[present] for name, values in rows.items()}, device)
        recognition = model(batch.clips)
        answered = batch.weights > 0
        ids.append(batch.sample_ids[answered])
        labels.append(batch.labels[answered])
        probabilities.append(recognition.logits.float().softmax(1)[answered])
        neurons = [selection.chosen for selection in recognition.selections]
        chosen.append(
            torch.stack(neurons, 1)[answered]
            if neurons
            else batch.labels.new_zeros((len(batch.labels), 0))[answered]
        )
        refused.extend(batch.refused)
        labels_of = dict(zip(rows["sample_id"].tolist(), rows["label"].tolist(), strict=True))
        bad = torch.tensor(
            [sample for sample, _ in batch.refused], dtype=torch.int64, device=device
        )
        ids.append(bad)
        labels.append(
            torch.tensor([labels_of[i] for i in bad.tolist()], dtype=torch.int64, device=device)
        )
        probabilities.append(torch.zeros(len(bad), num_classes, device=device))
        chosen.append(torch.zeros(len(bad), num_layers, dtype=torch.int64, device=device))
    model.train(was_training)
    empty = torch.zeros(0, dtype=torch.int64, device=device)
    return Predictions(
        torch.cat([empty, *ids]),
        torch.cat([empty, *labels]),
        torch.cat([torch.zeros(0, num_classes, device=device), *probabilities]),
        torch.cat([empty.view(0, 1).expand(0, num_layers), *chosen]),
        tuple(refused),
    )


def joined(local: Predictions) -> Predictions:
    """Join all workers' predictions in the order of sample ids; ``refused`` stays this worker's."""
    ids, labels, probabilities, chosen = (gather_rows(rows) for rows in local[:4])
    order = ids.argsort()
    return Predictions(
        ids[order], labels[order], probabilities[order], chosen[order], local.refused
    )


def score(predictions: Predictions, num_neurons: int) -> dict[str, float]:
    """Metrics under the names of the design; refused videos count as errors."""
    answered = predictions.probabilities.sum(1) > 0
    metrics = {
        f"val/{name}": value
        for name, value in recognition_metrics(
            predictions.probabilities.cpu(), predictions.labels.cpu()
        ).items()
    }
    metrics |= {"val/num_videos": float(len(answered)), "val/num_refused": float((~answered).sum())}
    if predictions.chosen.shape[1] and bool(answered.any()):
        metrics |= {
            f"dsts/{name}": value
            for name, value in specialization_metrics(
                predictions.chosen[answered].cpu(), predictions.labels[answered].cpu(), num_neurons
            ).items()
        }
    return metrics
