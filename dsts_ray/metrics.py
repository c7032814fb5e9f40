"""Metrics of recognition and of specialization, from predictions."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix


def recognition_metrics(
    probabilities: Float[Tensor, "videos classes"], labels: Int[Tensor, " videos"]
) -> dict[str, float]:
    """Score predictions.

    Args:
        probabilities: Rows of probabilities; a row of zeros stands for a refused video and is never
            right.
        labels: True classes.

    Returns:
        ``top1``, ``top5``, ``top1_low`` (lower end of the 95 % Wilson interval),
        ``mean_class_accuracy`` (mean of the classes present in ``labels``), ``loss`` (cross-entropy
        over the videos not refused), all as fractions but the loss.
    """
    answered = probabilities.sum(1) > 0
    order = probabilities.argsort(dim=1, descending=True, stable=True)
    hits = (order == labels.unsqueeze(1)) & answered.unsqueeze(1)
    top1 = float(hits[:, :1].any(1).double().mean())
    num_classes = probabilities.shape[1]
    confusion = multiclass_confusion_matrix(order[answered, 0], labels[answered], num_classes)
    counts = torch.bincount(labels, minlength=num_classes)
    present = counts > 0
    own = probabilities[answered].gather(1, labels[answered].unsqueeze(1)).double()
    return {
        "top1": top1,
        "top5": float(hits[:, :5].any(1).double().mean()),
        "top1_low": wilson_low(top1, len(labels)),
        "mean_class_accuracy": float(
            (confusion.diagonal()[present].double() / counts[present]).mean()
        ),
        "loss": float(-own.clamp(min=1e-12).log().mean()) if len(own) else math.nan,
    }


def wilson_low(share: float, count: int, z: float = 1.959964) -> float:
    """Lower end of the Wilson score interval of a share.

    Args:
        share: Observed, in [0, 1].
        count: Trials, at least 1.
        z: Quantile of the normal distribution; the default gives 95 %.
    """
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + z * z / count))


def specialization_metrics(
    chosen: Int[Tensor, "videos layers"], labels: Int[Tensor, " videos"], num_neurons: int
) -> dict[str, float]:
    """Measure how a layer's neurons share the videos.

    Args:
        chosen: Activated neuron of every video and layer.
        labels: True classes.
        num_neurons: N.

    Returns:
        For each layer i ``layer{i}/utilization``, the entropy of the activations over log N (1 is
        even, 0 is collapse), and ``layer{i}/mutual_information``, between neuron and class, in
        nats.
    """
    metrics = {}
    num_classes = int(labels.max()) + 1
    for layer in range(chosen.shape[1]):
        joint = torch.bincount(
            chosen[:, layer] * num_classes + labels, minlength=num_neurons * num_classes
        )
        joint = joint.view(num_neurons, num_classes).double() / len(labels)
        by_neuron = entropy(joint.sum(1))
        metrics[f"layer{layer}/utilization"] = (
            by_neuron / math.log(num_neurons) if num_neurons > 1 else 1.0
        )
        information = by_neuron + entropy(joint.sum(0)) - entropy(joint.flatten())
        metrics[f"layer{layer}/mutual_information"] = max(0.0, information)
    return metrics


def entropy(shares: Float[Tensor, " outcomes"]) -> float:
    """Entropy of a distribution in nats."""
    return max(0.0, float(-torch.special.xlogy(shares, shares).sum()))
