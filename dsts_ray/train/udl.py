"""Upstream-Downstream Learning: the upstream gradient of the simulated and meta update.

Reference: Li et al., ECCV 2022, section 3.3, Eq. 9 and 10; supplement, Algorithm 1.

Differences from the paper: none in ``operators`` coverage. The step runs on backbone features,
which is exact: upstream parameters act after the backbone and the simulated update moves nothing in
it. On several workers D_train and D_val are the joined batches.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from dsts_ray.models.backbones.output import BackboneOutput, Criterion
from dsts_ray.models.batch_norm import frozen_statistics
from dsts_ray.models.draws import Draws
from dsts_ray.models.recognizer import Classifier
from dsts_ray.train.collective import mean_over_workers
from dsts_ray.train.partition import Partition


class FeatureBatch(NamedTuple):
    """A micro-batch as the classifier sees it.

    Attributes:
        output: Detached backbone output.
        draws: Names of its random draws.
        criterion: Logits to loss; the mean over workers of the sum over micro-batches is the joined
            loss.
    """

    output: BackboneOutput
    draws: Draws
    criterion: Criterion


class UpstreamGradient(NamedTuple):
    """Gradients of Eq. 10 by parameter name, and the two losses on this worker.

    Attributes:
        gradients: This worker's summand; their mean over workers is the gradient.
        simulated_loss: l(u, d; D_train).
        held_out_loss: l(u, d-hat; D_val).
    """

    gradients: dict[str, Tensor]
    simulated_loss: Tensor
    held_out_loss: Tensor


def upstream_gradient(
    classifier: Classifier,
    partition: Partition,
    *,
    train: Sequence[FeatureBatch],
    held_out: Sequence[FeatureBatch],
    inner_lr: float,
) -> UpstreamGradient:
    """Differentiate the held-out loss with respect to u as used in the simulated update.

    With g(u) the gradient of Eq. 9 and v = grad_d l(u-hat, d-hat; D_val), Eq. 10's gradient is
    -inner_lr * d<g(u), v>/du: one mixed second-order product, no first-order term in u-hat.
    Parameters, buffers and the random state stay as they are.

    Args:
        classifier: In training mode.
        partition: Upstream and simulated parameters.
        train: Micro-batches of D_train.
        held_out: Micro-batches of D_val.
        inner_lr: Alpha of Eq. 9.
    """
    parameters = {name: value.detach() for name, value in classifier.named_parameters()}
    upstream = {name: parameters[name].clone().requires_grad_() for name in partition.upstream}
    downstream = {name: parameters[name].clone().requires_grad_() for name in partition.simulated}
    with frozen_statistics(classifier):
        simulated_loss = _loss(classifier, {**parameters, **upstream, **downstream}, train)
        gradients = torch.autograd.grad(
            simulated_loss, tuple(downstream.values()), create_graph=True
        )
        moved = {
            name: (value.detach() - inner_lr * gradient).requires_grad_()  # Eq. 9
            for (name, value), gradient in zip(
                downstream.items(), mean_over_workers(gradients), strict=True
            )
        }
        held_out_loss = _loss(classifier, {**parameters, **moved}, held_out)
        direction = mean_over_workers(torch.autograd.grad(held_out_loss, tuple(moved.values())))
    product = sum(
        ((g * v).sum() for g, v in zip(gradients, direction, strict=True)),
        simulated_loss.new_zeros(()),
    )
    mixed = torch.autograd.grad(product, tuple(upstream.values()), allow_unused=True)  # Eq. 10
    return UpstreamGradient(
        {
            name: torch.zeros_like(value) if gradient is None else -inner_lr * gradient
            for (name, value), gradient in zip(upstream.items(), mixed, strict=True)
        },
        simulated_loss.detach(),
        held_out_loss.detach(),
    )


def _loss(
    classifier: Classifier, parameters: dict[str, Tensor], batches: Sequence[FeatureBatch]
) -> Tensor:
    losses = [
        batch.criterion(functional_call(classifier, parameters, (batch.output, batch.draws)).logits)
        for batch in batches
    ]
    return torch.stack(losses).sum()
