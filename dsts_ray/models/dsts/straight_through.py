"""The straight-through gradient of a selection at the neurons that a sample does not activate.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 3 (Gumbel-softmax), and Eq. 9-10, which
differentiate that gradient again.

The weight of such a neuron is 0 in value: its output adds nothing to Z', and nothing to the
gradient of its own parameters. Its weight's gradient is <dL/dZ', Z'_n>, whose derivatives are asked
for where that gradient is differentiated again. All of these are computed when they are asked for,
one neuron at a time: no pass computes these neurons, and no graph keeps them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from dsts_ray.models.dsts.synapse import Selection


class _Neuron(NamedTuple):
    """A neuron, and the rows of the batch that do not activate it."""

    number: int
    rows: Tensor


class _Unchosen(NamedTuple):
    neurons: Sequence[_Neuron]
    output: Callable[..., Tensor]


def straight_through(
    merged: Tensor,
    features: Tensor,
    inputs: Sequence[Tensor],
    output: Callable[..., Tensor],
    *,
    selection: Selection,
    takes: Tensor | None,
) -> Tensor:
    """Return Z' unchanged, with the gradient of the weights of the neurons not activated.

    Args:
        merged: Z' of the activated neurons, (batch, channels, time, height, width).
        features: X.
        inputs: What the neurons are computed from, theirs in dimension 0, or one for all.
        output: Maps X and the inputs of one neuron to its Z'_n.
        selection: Its weights are one-hot in value.
        takes: Samples with these inputs, as a mask; None for all.
    """
    if not selection.weights.requires_grad:
        return merged
    neurons = []
    for number in range(selection.weights.shape[1]):
        others = selection.chosen != number
        rows = (others if takes is None else others & takes).nonzero().flatten()
        if len(rows):
            neurons.append(_Neuron(number, rows))
    device = features.device.type
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def as_here(*own: Tensor) -> Tensor:
        with torch.autocast(device, dtype, enabled):
            return output(*own)

    unchosen = _Unchosen(neurons, as_here)
    return cast(Tensor, _Add.apply(unchosen, merged, selection.weights, features, *inputs))


_Context = Any
"""What torch hands a function, which each pass makes a class of its own for."""


class _Add(torch.autograd.Function):
    """Z' + sum_n w_n Z'_n over the neurons of weight 0."""

    @staticmethod
    def forward(ctx: _Context, unchosen: _Unchosen, merged: Tensor, *rest: Tensor) -> Tensor:
        ctx.unchosen = unchosen
        ctx.save_for_backward(*rest)
        return merged.view_as(merged)

    @staticmethod
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (along,) = gradients
        return None, along, *_Gradients.apply(ctx.unchosen, along, *ctx.saved_tensors)


class _Gradients(torch.autograd.Function):
    """<along, Z'_n> for the weights, and 0 for the inputs, but differentiable."""

    @staticmethod
    def forward(
        ctx: _Context, unchosen: _Unchosen, along: Tensor, weights: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.unchosen = unchosen
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(along, weights, *inputs)
        products = torch.zeros_like(weights)
        for neuron in unchosen.neurons:
            _put(products, neuron, unchosen.output(*_own(inputs, neuron)), along)
        return products, *(values.new_zeros(()).expand_as(values) for values in inputs)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context, *gradients: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        of_products, *of_inputs = gradients
        along, weights, *inputs = ctx.saved_tensors
        output, neurons = ctx.unchosen.output, ctx.unchosen.neurons
        of_weights = torch.zeros_like(weights)
        for neuron in neurons:
            parts = _parts(inputs, neuron)
            directions = [
                one if one is None else one[part]
                for one, part in zip(of_inputs, parts, strict=True)
            ]
            tangent = _tangent(output, _own(inputs, neuron), directions)
            if tangent is not None:
                _put(of_weights, neuron, tangent, along)
        if of_products is None:
            return None, None, of_weights, *[None] * len(inputs)
        of_along, totals = torch.zeros_like(along), [torch.zeros_like(one) for one in inputs]
        for neuron in neurons:
            factors = of_products[neuron.rows, neuron.number].view(-1, 1, 1, 1, 1)
            with torch.enable_grad():
                leaves = [one.detach().requires_grad_() for one in _own(inputs, neuron)]
                computed = output(*leaves)
            of_along[neuron.rows] += factors * computed.detach()
            cotangent = (factors * along[neuron.rows]).to(computed)
            found = torch.autograd.grad(computed, leaves, cotangent)
            for total, part, gradient in zip(totals, _parts(inputs, neuron), found, strict=True):
                total[part] += gradient
        return None, of_along, of_weights, *totals


def _own(inputs: Sequence[Tensor], neuron: _Neuron) -> list[Tensor]:
    return [one[part] for one, part in zip(inputs, _parts(inputs, neuron), strict=True)]


def _parts(inputs: Sequence[Tensor], neuron: _Neuron) -> list[Tensor | slice]:
    """Which part of each input a neuron is computed from: its samples, and what is its own."""
    own = slice(neuron.number, neuron.number + 1)
    return [neuron.rows, *(slice(None) if len(one) == 1 else own for one in inputs[1:])]


def _put(products: Tensor, neuron: _Neuron, output: Tensor, along: Tensor) -> None:
    """Set a neuron's column to every sample's <along, output>."""
    own = (output * along[neuron.rows]).flatten(1).sum(1)
    products[neuron.rows, neuron.number] = own.to(products)


def _tangent(
    output: Callable[..., Tensor], inputs: Sequence[Tensor], directions: Sequence[Tensor | None]
) -> Tensor | None:
    """Derivative of an output along directions of its inputs; None where it is 0."""
    with forward_ad.dual_level():
        duals = [
            one if direction is None else forward_ad.make_dual(one, direction)
            for one, direction in zip(inputs, directions, strict=True)
        ]
        return forward_ad.unpack_dual(output(*duals)).tangent
