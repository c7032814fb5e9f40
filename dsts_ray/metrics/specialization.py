"""How a layer's neurons share the videos."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
