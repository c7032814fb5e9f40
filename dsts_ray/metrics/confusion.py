"""Which classes are taken for which."""

from jaxtyping import Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from dsts_ray.metrics.recognition import REFUSED


def confusion_matrix(
    predicted: Int[Tensor, " videos"], labels: Int[Tensor, " videos"], num_classes: int
) -> Int[Tensor, "classes classes"]:
    """Count videos by true class (row) and predicted class (column), refused ones left out."""
    answered = predicted != REFUSED
    return multiclass_confusion_matrix(predicted[answered], labels[answered], num_classes)
