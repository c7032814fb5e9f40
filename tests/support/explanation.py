"""Predictions of six videos by hand, with names that would be markup in a page."""

from dataclasses import replace

import torch

from dsts_ray.train.evaluate import Predictions
from dsts_ray.train.predictions import SavedPredictions
from tests.support.predictions import SETUP

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;"
CLASSES = ("Back+15som+05Twis+FREE", "Back+15som+NoTwis+PIKE", "Forward+Dive+NoTwis+STR")
SPATIAL_RATIOS = [[0.25, 0.5, 1.0], [0.0, 0.75, 0.125]]
HISTORY = {
    "train/loss": [(step, 3.0 - step / 1000) for step in range(1000)],
    "val/top1": [(499, 0.25), (999, 0.5)],
    "val/loss": [(499, float("nan")), (999, 1.5)],
    "dsts/layer0/utilization": [(499, 0.75), (999, 0.5)],
    "gates/layer0/neuron0_spatial_ratio": [(499, 0.5), (999, 0.25)],
    "gates/layer0/neuron1_spatial_ratio": [(499, 0.5), (999, 0.5)],
    "system/cpu": [(0, 1.0)],
}
LABELS = [0, 0, 1, 1, 2, 2]
PREDICTED = [0, 1, 1, 0, 2, None]
BASELINE = [1, 0, 1, 0, 0, None]
CHOSEN = [  # two views, two layers
    [[0, 2], [0, 2]],
    [[0, 1], [0, 1]],
    [[1, 1], [0, 1]],
    [[1, 0], [1, 0]],
    [[2, 0], [-1, -1]],
    [[-1, -1], [-1, -1]],
]


def many_predictions(*, num_classes: int, num_neurons: int) -> SavedPredictions:
    """Random predictions of four videos a class, by one layer of neurons."""
    num_videos = 4 * num_classes
    generator = torch.Generator().manual_seed(0)
    rows = Predictions(
        labels=torch.arange(num_videos) % num_classes,
        probabilities=torch.rand(num_videos, num_classes, generator=generator).softmax(1),
        views_seen=torch.ones(num_videos, dtype=torch.int64),
        chosen=torch.randint(num_neurons, (num_videos, 1, 1), generator=generator),
        refused={},
    )
    return SavedPredictions(
        setup=replace(SETUP, num_videos=num_videos),
        classes=tuple(f"class {index}" for index in range(num_classes)),
        num_neurons=num_neurons,
        video_ids=tuple(f"video{row}" for row in range(num_videos)),
        predictions=rows,
    )


def predictions(
    predicted: list[int | None],
    *,
    classes: tuple[str, ...] = CLASSES,
    model: str = "models:/dsts/1",
    order: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
) -> SavedPredictions:
    """Predictions with a probability of 0.8; None is a refused video, the third class's last."""
    probabilities = torch.full((6, 3), 0.1)
    for row, best in enumerate(predicted):
        if best is None:
            probabilities[row] = 0.0
        else:
            probabilities[row, best] = 0.8
    rows = Predictions(
        labels=torch.tensor(LABELS)[list(order)],
        probabilities=probabilities[list(order)],
        views_seen=torch.tensor([2, 2, 2, 2, 1, 0])[list(order)],
        chosen=torch.tensor(CHOSEN)[list(order)],
        refused={order.index(5): f"{HOSTILE}: is empty"},
    )
    return SavedPredictions(
        setup=replace(SETUP, model=model, num_videos=6),
        classes=classes,
        num_neurons=3,
        video_ids=tuple(f"video{row}" for row in order),
        predictions=rows,
    )
