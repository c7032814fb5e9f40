"""Which neurons a split's videos activate, and what these tell about them.

Reference: Li et al., ECCV 2022, supplement, Fig. 1 (gates) and Fig. 2 (videos of a neuron).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dsts_ray.explain.drawing import Figure, Table
from dsts_ray.metrics.attributes import class_attributes
from dsts_ray.metrics.specialization import (
    NUM_SHUFFLES,
    entropy,
    joint_distribution,
    mutual_information,
    shuffled_information,
    utilization,
)
from dsts_ray.train.evaluate import NOT_SEEN, Predictions

NEURONS = "Neurons"


def activation_counts(
    predictions: Predictions, num_neurons: int
) -> Int[Tensor, "videos layers neurons"]:
    """Count the views of each video that activate a neuron."""
    seen = predictions.chosen != NOT_SEEN
    one_hot = F.one_hot(predictions.chosen.clamp(min=0), num_neurons)
    return (one_hot * seen.unsqueeze(3)).sum(1)


def gate_figures(spatial_ratios: Sequence[Sequence[float]]) -> list[Figure]:
    """Share of channels that each neuron gives to either operator, a figure a layer."""
    return [
        Figure(
            name=f"gates_layer{layer}",
            section=NEURONS,
            title=f"Channels of the operators, layer {layer}",
            note="Share of the channels that each neuron's gates give to the spatial and to the "
            "temporal operator at test time.",
            kind="stacked",
            x=[str(neuron) for neuron in range(len(ratios))],
            series=[("spatial", list(ratios)), ("temporal", [1.0 - ratio for ratio in ratios])],
            x_title="neuron",
            y_title="share of channels",
        )
        for layer, ratios in enumerate(spatial_ratios)
    ]


def use_figure(counts: Tensor) -> Figure:
    """Share of the views that each neuron of a layer gets, and how even that is."""
    shares = counts.sum(0).double()
    shares = shares / shares.sum(1, keepdim=True)
    return Figure(
        name="use",
        section=NEURONS,
        title="Use of the neurons",
        note="Share of the views that activate a neuron. Utilization, 1 where it is even: "
        + ", ".join(f"{utilization(own):.3f} in layer {n}" for n, own in enumerate(shares))
        + ".",
        kind="grouped",
        x=[str(neuron) for neuron in range(counts.shape[2])],
        series=[(f"layer {layer}", own.tolist()) for layer, own in enumerate(shares)],
        x_title="neuron",
        y_title="share of the views",
    )


def information_table(counts: Tensor, labels: Int[Tensor, " videos"]) -> Table:
    """How a layer's neurons share the videos, and what they tell about the class."""
    rows = []
    for layer in range(counts.shape[1]):
        joint = joint_distribution(counts[:, layer], labels)
        chance = shuffled_information(counts[:, layer], labels)
        rows.append(
            [
                f"layer {layer}",
                utilization(joint.sum(1)),
                mutual_information(joint),
                chance.mean,
                chance.high,
                entropy(joint.sum(0)),
            ]
        )
    return Table(
        name="information",
        section=NEURONS,
        title="Utilization and information",
        note="Utilization is the entropy of the activations over log N: 1 is even, 0 is collapse. "
        f"Information is in nats; of {NUM_SHUFFLES} drawings with the classes dealt out at random "
        "the mean and the 97.5th percentile. Above that, neurons know more than chance gives.",
        columns=[
            "layer",
            "utilization",
            "information of neuron and class",
            "by chance",
            "by chance, at most",
            "entropy of the classes",
        ],
        rows=rows,
    )


def class_figures(
    counts: Tensor, labels: Int[Tensor, " videos"], classes: Sequence[str]
) -> list[Figure]:
    """Neurons against classes, and against Diving48's attributes where the names have them."""
    figures = []
    by_class = torch.zeros(len(classes), *counts.shape[1:], dtype=torch.float64)
    by_class.index_add_(0, labels, counts.double())
    for layer in range(counts.shape[1]):
        figures.append(
            _shares(
                by_class[:, layer],
                classes,
                name=f"classes_layer{layer}",
                title=f"Neurons and classes, layer {layer}",
                what="class",
            )
        )
        names, sums = [], []
        for attribute, values in class_attributes(classes).items():
            for value in sorted(set(values)):
                members = torch.tensor([own == value for own in values])
                names.append(f"{attribute} {value}")
                sums.append(by_class[members, layer].sum(0))
        if names:
            figures.append(
                _shares(
                    torch.stack(sums),
                    names,
                    name=f"attributes_layer{layer}",
                    title=f"Neurons and attributes, layer {layer}",
                    what="attribute",
                )
            )
    return figures


def path_figures(paths: Int[Tensor, "videos layers"], num_neurons: int) -> list[Figure]:
    """From which neuron of a layer to which of the next the videos go."""
    figures = []
    for layer in range(paths.shape[1] - 1):
        pairs = paths[:, layer] * num_neurons + paths[:, layer + 1]
        table = pairs.bincount(minlength=num_neurons**2).view(num_neurons, num_neurons)
        figures.append(
            Figure(
                name=f"paths_layer{layer}",
                section=NEURONS,
                title=f"Paths from layer {layer} to layer {layer + 1}",
                note=f"Videos by their neuron in layer {layer} (row) and in layer {layer + 1}.",
                kind="heat",
                x=[str(neuron) for neuron in range(num_neurons)],
                series=[(str(neuron), row) for neuron, row in enumerate(table.tolist())],
                x_title=f"neuron of layer {layer + 1}",
                y_title=f"neuron of layer {layer}",
            )
        )
    return figures


def _shares(
    sums: Float[Tensor, "columns neurons"],
    columns: Sequence[str],
    *,
    name: str,
    title: str,
    what: str,
) -> Figure:
    totals = sums.sum(1, keepdim=True)
    shares = (sums / totals.clamp(min=1)).T.tolist()
    present = (totals.squeeze(1) > 0).tolist()
    return Figure(
        name=name,
        section=NEURONS,
        title=title,
        note=f"Share of the views of each {what} that activate a neuron; a column adds up to 1.",
        kind="heat",
        x=list(columns),
        series=[
            (
                str(neuron),
                [share if there else None for share, there in zip(row, present, strict=True)],
            )
            for neuron, row in enumerate(shares)
        ],
        x_title=what,
        y_title="neuron",
    )
