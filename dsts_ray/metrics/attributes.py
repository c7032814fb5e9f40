"""Accuracy on the four attributes that a Diving48 class name joins, as Back+15som+05Twis+FREE."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from dsts_ray.metrics.recognition import REFUSED

ATTRIBUTES = ("takeoff", "somersaults", "twists", "position")

_POSITIONS = {"STR", "PIKE", "TUCK", "FREE"}


def attribute_metrics(
    predicted: Int[Tensor, " videos"], labels: Int[Tensor, " videos"], classes: Sequence[str]
) -> dict[str, float]:
    """Score each attribute of the predicted class against the true class's.

    Args:
        predicted: Predicted classes; a refused video is never right.
        labels: True classes.
        classes: Class names.

    Returns:
        ``takeoff_accuracy``, ``somersaults_accuracy``, ``twists_accuracy``, ``position_accuracy``;
        nothing where the class names are not Diving48's.
    """
    answered = predicted != REFUSED
    metrics = {}
    for name, values in class_attributes(classes).items():
        code = torch.tensor([sorted(set(values)).index(value) for value in values])
        right = (code[predicted] == code[labels]) & answered
        metrics[f"{name}_accuracy"] = float(right.double().mean())
    return metrics


def class_attributes(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Value of each attribute by class; nothing where the class names are not Diving48's."""
    attributes = [tuple(name.split("+")) for name in classes]
    if not all(len(parts) == 4 and parts[3] in _POSITIONS for parts in attributes):
        return {}
    return dict(zip(ATTRIBUTES, zip(*attributes, strict=True), strict=True))
