"""How a layer's neurons share the videos."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

NUM_SHUFFLES = 100
SEED = 0


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
    for layer in range(chosen.shape[1]):
        joint = joint_distribution(F.one_hot(chosen[:, layer], num_neurons), labels)
        metrics[f"layer{layer}/utilization"] = utilization(joint.sum(1))
        metrics[f"layer{layer}/mutual_information"] = mutual_information(joint)
    return metrics


def utilization(shares: Float[Tensor, " neurons"]) -> float:
    """Entropy over log N of the neurons' shares of the views; 1 for a single neuron."""
    return entropy(shares) / math.log(len(shares)) if len(shares) > 1 else 1.0


def mutual_information(joint: Float[Tensor, "neurons classes"]) -> float:
    """Mutual information in nats of a joint distribution."""
    return max(0.0, entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint.flatten()))


class ShuffledInformation(NamedTuple):
    """Mutual information that chance alone gives, nats: mean and 97.5th percentile of the draws."""

    mean: float
    high: float


def shuffled_information(
    counts: Int[Tensor, "videos neurons"],
    labels: Int[Tensor, " videos"],
    *,
    num_shuffles: int = NUM_SHUFFLES,
    seed: int = SEED,
) -> ShuffledInformation:
    """Measure how much neurons seem to know of classes dealt out at random among the videos.

    Few videos of many classes give a mutual information far above 0 by themselves.

    Args:
        counts: How many views of a video activated each neuron.
        labels: True classes.
        num_shuffles: Draws.
        seed: Names them.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(num_shuffles):
        shuffled = labels[torch.from_numpy(rng.permutation(len(labels)))]
        drawn.append(mutual_information(joint_distribution(counts, shuffled)))
    return ShuffledInformation(float(np.mean(drawn)), float(np.percentile(drawn, 97.5)))


def joint_distribution(
    counts: Int[Tensor, "videos neurons"], labels: Int[Tensor, " videos"]
) -> Float[Tensor, "neurons classes"]:
    """Share of all views by neuron and class."""
    by_class = torch.zeros(int(labels.max()) + 1, counts.shape[1], dtype=torch.float64)
    by_class.index_add_(0, labels, counts.double())
    return by_class.T / by_class.sum()


def entropy(shares: Float[Tensor, " outcomes"]) -> float:
    """Entropy of a distribution in nats."""
    return max(0.0, float(-torch.special.xlogy(shares, shares).sum()))
