"""Algorithm 1 of the supplement written directly, for comparison with ``train/udl.py``.

The whole network is in the graph of every pass, as the algorithm reads. What the simulated update
moves is a parameter: with all parameters but upstream the backbone is differentiated twice.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from dsts_ray.models.backbones.output import Criterion
from dsts_ray.models.draws import Draws
from dsts_ray.models.recognizer import Recognizer


class Batch(NamedTuple):
    """Clips, the names of their random draws, and logits to loss."""

    clips: Tensor
    draws: Draws
    criterion: Criterion


def upstream_gradient(
    model: Recognizer,
    *,
    upstream: Collection[str],
    simulated: Collection[str],
    train: Batch,
    held_out: Batch,
    inner_lr: float,
) -> dict[str, Tensor]:
    """Gradient of Eq. 10 with respect to u of Eq. 9, by parameter name.

    Args:
        model: In training mode.
        upstream: Names of u.
        simulated: Names of d, which Eq. 9 moves.
        train: D_train.
        held_out: D_val.
        inner_lr: Alpha of Eq. 9.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    u = {name: parameters[name].clone().requires_grad_() for name in upstream}
    d = {name: parameters[name].clone().requires_grad_() for name in simulated}
    loss = _loss(model, {**parameters, **u, **d}, train)
    gradients = torch.autograd.grad(loss, tuple(d.values()), create_graph=True)
    d_hat = {
        name: value - inner_lr * gradient
        for (name, value), gradient in zip(d.items(), gradients, strict=True)
    }
    held_out_loss = _loss(model, {**parameters, **d_hat}, held_out)
    mixed = torch.autograd.grad(held_out_loss, tuple(u.values()))
    return dict(zip(u, mixed, strict=True))


def iteration(
    model: Recognizer,
    *,
    upstream: Collection[str],
    train: Batch,
    held_out: Batch,
    inner_lr: float,
    step: Callable[[dict[str, Tensor]], None],
) -> dict[str, Tensor]:
    """Simulated, meta and actual update with d all parameters but u; returns u's gradient.

    ``step`` applies gradients by parameter name.
    """
    names = {name for name, _ in model.named_parameters()}
    downstream = sorted(names - set(upstream))
    mixed = upstream_gradient(
        model,
        upstream=upstream,
        simulated=downstream,
        train=train,
        held_out=held_out,
        inner_lr=inner_lr,
    )
    step(mixed)
    parameters = dict(model.named_parameters())
    loss = _loss(model, parameters, train)
    gradients = torch.autograd.grad(loss, [parameters[name] for name in downstream])
    step(dict(zip(downstream, gradients, strict=True)))
    return mixed


def _loss(model: Recognizer, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
    recognition = functional_call(model, dict(parameters), (batch.clips, batch.draws))
    return batch.criterion(recognition.logits)
