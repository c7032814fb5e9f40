"""Predictions of three videos, written by hand."""

import torch

from dsts_ray.train.evaluate import Predictions
from dsts_ray.train.predictions import EvaluationSetup, SavedPredictions

SETUP = EvaluationSetup(
    model="models:/tpn/3",
    split="test",
    num_videos=3,
    protocol="2x1",
    average="softmax",
    frames="8 by segments",
    size="224 of 256",
    refused="wrong",
)
ROWS = Predictions(
    labels=torch.tensor([0, 2, 1]),
    probabilities=torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 0.0], [0.3, 0.6, 0.1]]),
    views_seen=torch.tensor([2, 0, 1]),
    chosen=torch.tensor([[[0, 4], [1, 3]], [[-1, -1], [-1, -1]], [[2, 2], [-1, -1]]]),
    refused={1: "b.mp4: is empty"},
)
SAVED = SavedPredictions(
    setup=SETUP,
    classes=("x", "y", "z"),
    num_neurons=5,
    video_ids=("a", "b", "c"),
    predictions=ROWS,
)
