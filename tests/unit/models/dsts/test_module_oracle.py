"""DSTSModule against the loops of the oracle: forward, all gradients, selection, statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import cycle, product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.module import DSTSModule, DSTSOutput
from dsts_ray.models.dsts.variant import Variant as Form
from tests.support.oracle import LayerResult, Noise, Variant, run_module

TOLERANCE = 1e-9

TABLES = [
    Variant(specialization=specialization, synapse=synapse, dispatch=dispatch, groups=2)
    for specialization, synapse, dispatch in product(
        ("gates", "fixed", "conv3d"), ("gumbel", "average"), ("dense", "sparse")
    )
    if (synapse, dispatch) != ("average", "sparse")
]
SCORING = [
    Variant(scoring_kernel=kernel, scoring_rows=rows, impulse=impulse, dispatch=dispatch)
    for (kernel, rows, impulse), dispatch in zip(
        product(
            ("1x1x1", "1x3x3", "double"),
            ("collapsed", "literal"),
            ("sum", "mean", "standardized", "running"),
        ),
        cycle(("dense", "sparse", "sparse", "dense", "sparse")),
        strict=False,
    )
]
FUSE = [
    Variant(
        fuse=fuse,
        fuse_kernel=kernel,
        fuse_groups=fuse_groups,
        groups=2,
        width=width,
        channel_shuffle=shuffle,
        dispatch=dispatch,
    )
    for (fuse, kernel, fuse_groups, dispatch), (width, shuffle) in zip(
        product(("shared", "per_neuron"), ("1x1x1", "1x3x3", "3x1x1"), (1, 2), ("dense", "sparse")),
        cycle([(0, True), (6, True), (2, False), (8, True), (0, False)]),
        strict=False,
    )
]
EDGES = [
    Variant(dispatch="dense", groups=2, scoring_kernel="1x3x3", impulse_deviation=4.0),
    Variant(
        dispatch="sparse",
        groups=2,
        fuse_groups=4,
        temperature=0.5,
        impulse="running",
        impulse_deviation=0.5,
    ),
    Variant(impulse="mean", groups=4, fuse_groups=2, channel_shuffle=False, skip=False),
    Variant(specialization="conv3d", fuse="per_neuron", fuse_kernel="1x3x3", width=2),
    Variant(specialization="fixed", synapse="average", fuse_kernel="3x1x1", skip=False),
]
BASE = (5, 4, 3, 3, 2)
"""batch, channels, time, height, width"""
ODD_SIZES = [(5, 4, 1, 3, 2), (5, 4, 3, 1, 1), (1, 4, 3, 2, 2), (1, 4, 1, 1, 1), (2, 4, 1, 1, 3)]


def random_module(variant: Variant, *, num_neurons: int, num_layers: int) -> DSTSModule:
    form = asdict(variant)
    skip = form.pop("skip")
    module = DSTSModule(
        channels=4,
        num_layers=num_layers,
        variant=Form(num_neurons=num_neurons, **form),
        skip=skip,
    ).double()
    for name, value in module.state_dict().items():
        if name.endswith("num_batches"):
            value.fill_(2)
        elif "running_var" in name:
            value.copy_(torch.rand_like(value) + 0.5)
        else:
            value.copy_(torch.randn_like(value))
    return module


def noises_of(draws: Draws, *, num_neurons: int, channels: int, num_layers: int) -> list[Noise]:
    return [
        Noise(
            draws.gumbel(layer, num_neurons),
            draws.gate_noise(layer, num_neurons, channels),
            draws.takes_binary_gates(layer).tolist(),
        )
        for layer in range(num_layers)
    ]


def describe(variant: Variant) -> str:
    """What differs from the defaults."""
    return "-".join(
        f"{name}={value}"
        for name, value in asdict(variant).items()
        if value != asdict(Variant())[name]
    )


class Passes(NamedTuple):
    """A pass of the module and the oracle's of the same values, with parameters by name."""

    module: DSTSModule
    output: DSTSOutput
    parameters: dict[str, Tensor]
    expected: Tensor
    layers: list[LayerResult]
    values: dict[str, Tensor]


FEATURES = "features"


def passes(
    variant: Variant, size: tuple[int, ...], *, num_neurons: int, num_layers: int, training: bool
) -> Passes:
    module = random_module(variant, num_neurons=num_neurons, num_layers=num_layers).train(training)
    features = torch.randn(size, dtype=torch.float64, requires_grad=True)
    ids = torch.arange(size[0])
    draws = Draws(0, 3, "train", ids + 10, ids) if training else None
    values = {
        name: value.detach().clone().requires_grad_(name in dict(module.named_parameters()))
        for name, value in module.state_dict().items()
    }
    own = features.detach().clone().requires_grad_()
    noises = draws and noises_of(
        draws, num_neurons=num_neurons, channels=size[1], num_layers=num_layers
    )
    expected, layers = run_module(values, own, noises, variant, num_layers=num_layers)
    output = module(features, draws)
    parameters = dict(module.named_parameters()) | {FEATURES: features}
    return Passes(module, output, parameters, expected, layers, values | {FEATURES: own})


def compare(
    variant: Variant,
    size: tuple[int, ...],
    *,
    num_neurons: int = 3,
    num_layers: int = 2,
    training: bool,
) -> None:
    module, output, parameters, expected, layers, values = passes(
        variant, size, num_neurons=num_neurons, num_layers=num_layers, training=training
    )
    probe = torch.randn(size, dtype=torch.float64)
    torch.testing.assert_close(output.features, expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert len(output.selections) == (num_layers if variant.synapse == "gumbel" else 0)
    for selection, layer in zip(output.selections, layers, strict=False):
        assert layer.impulses is not None
        assert selection.chosen.tolist() == layer.chosen
        torch.testing.assert_close(
            selection.impulses, layer.impulses, rtol=TOLERANCE, atol=TOLERANCE
        )
    (output.features * probe).sum().backward()
    (expected * probe).sum().backward()
    for name, parameter in parameters.items():
        zeros = torch.zeros_like(parameter)
        mine = zeros if parameter.grad is None else parameter.grad
        theirs = values[name].grad
        theirs = zeros if theirs is None else theirs
        torch.testing.assert_close(
            mine,
            theirs,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            msg=lambda text, name=name: f"{name} {text}",
        )
    after = module.state_dict()
    for index, layer in enumerate(layers):
        for name, value in layer.running.items():
            torch.testing.assert_close(
                after[f"layers.{index}.{name}"], value.detach(), rtol=TOLERANCE, atol=TOLERANCE
            )
    if not training:
        for name, value in after.items():
            assert torch.equal(value, values[name])


@pytest.mark.parametrize("variant", [*TABLES, *FUSE[::3], *EDGES], ids=describe)
@pytest.mark.parametrize("size", [(4, *BASE[1:]), (1, 4, 1, 3, 2)], ids=str)
def test_second_derivatives_equal_the_oracles(variant: Variant, size: tuple[int, ...]) -> None:
    """Of the gradient along a random direction of all parameters and features."""
    _, output, parameters, expected, _, values = passes(
        variant, size, num_neurons=3, num_layers=2, training=True
    )
    probe = torch.randn(size, dtype=torch.float64)
    directions = {name: torch.randn_like(value) for name, value in parameters.items()}
    found, wanted = (
        _twice((result * probe).sum(), [leaves[name] for name in parameters], directions)
        for result, leaves in ((output.features, parameters), (expected, values))
    )
    for name, mine, theirs in zip(parameters, found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8, msg=name)


def _twice(
    objective: Tensor, leaves: Sequence[Tensor], directions: Mapping[str, Tensor]
) -> tuple[Tensor, ...]:
    """Derivatives of the gradient's product with directions."""
    first = torch.autograd.grad(objective, leaves, create_graph=True, materialize_grads=True)
    products = [(one * own).sum() for one, own in zip(first, directions.values(), strict=True)]
    return torch.autograd.grad(torch.stack(products).sum(), leaves, materialize_grads=True)


@pytest.mark.parametrize("variant", TABLES, ids=describe)
def test_training_of_two_layers_equals_the_oracle(variant: Variant) -> None:
    compare(variant, BASE, training=True)


@pytest.mark.parametrize("variant", [*SCORING, *FUSE], ids=describe)
def test_training_of_a_layer_equals_the_oracle(variant: Variant) -> None:
    compare(variant, BASE, num_layers=1, training=True)


@pytest.mark.parametrize("variant", EDGES, ids=describe)
@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_training_equals_the_oracle_at_odd_sizes(variant: Variant, size: tuple[int, ...]) -> None:
    compare(variant, size, training=True)


@pytest.mark.parametrize("variant", EDGES, ids=describe)
@pytest.mark.parametrize("training", [True, False])
def test_a_single_neuron_equals_the_oracle(variant: Variant, *, training: bool) -> None:
    compare(variant, BASE, num_neurons=1, training=training)


@pytest.mark.parametrize("variant", [*TABLES, *SCORING[::5], *FUSE[::5], *EDGES], ids=describe)
@pytest.mark.parametrize("size", [BASE, (1, 4, 1, 1, 1)], ids=str)
def test_evaluation_equals_the_oracle(variant: Variant, size: tuple[int, ...]) -> None:
    compare(variant, size, training=False)
