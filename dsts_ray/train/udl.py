"""Upstream-Downstream Learning: the upstream gradient of the simulated and meta update.

Reference: Li et al., ECCV 2022, section 3.3, Eq. 9 and 10; supplement, Algorithm 1.

Differences from the paper: none in ``operators`` coverage. The step runs on backbone features,
which is exact: upstream parameters act after the backbone and the simulated update moves nothing in
it. On several workers D_train and D_val are the joined batches. Two options are ours:
``first_order`` adds the gradient in u-hat that Eq. 10 leaves out, so that u descends on all of
l(u, d-hat(u); D_val); ``penalty`` adds the gradient in u of a term of the simulated update's pass.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.profiler import record_function

from dsts_ray.models.backbones.output import BackboneOutput, Criterion
from dsts_ray.models.batch_norm import frozen_statistics
from dsts_ray.models.draws import Draws
from dsts_ray.models.recognizer import Classifier, Recognition
from dsts_ray.train.collective import mean_over_workers
from dsts_ray.train.partition import Partition

Penalty = Callable[[Recognition], Tensor]
"""Maps a pass to a scalar; means over workers and sums over micro-batches as the criterion's."""


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
    first_order: bool = False,
    penalty: Penalty | None = None,
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
        first_order: Add the gradient in u-hat.
        penalty: Term of every micro-batch of D_train that u alone answers for.
    """
    parameters = {name: value.detach() for name, value in classifier.named_parameters()}
    upstream, copies, downstream = (
        {name: parameters[name].clone().requires_grad_() for name in names}
        for names in (
            partition.upstream,
            partition.upstream if first_order else (),
            partition.simulated,
        )
    )
    with frozen_statistics(classifier), record_function("simulated update"):
        simulated = _passes(classifier, {**parameters, **upstream, **downstream}, train)
        simulated_loss = _joined_loss(simulated, train)
        gradients = torch.autograd.grad(
            simulated_loss, tuple(downstream.values()), create_graph=True
        )
        moved = {
            name: (value.detach() - inner_lr * gradient).requires_grad_()  # Eq. 9
            for (name, value), gradient in zip(
                downstream.items(), mean_over_workers(gradients), strict=True
            )
        }
    with frozen_statistics(classifier), record_function("meta update"):
        held_out_loss = _joined_loss(
            _passes(classifier, {**parameters, **moved, **copies}, held_out), held_out
        )
        held_out_gradients = torch.autograd.grad(
            held_out_loss, (*moved.values(), *copies.values()), materialize_grads=True
        )
        direction = mean_over_workers(held_out_gradients[: len(moved)])
        objective = simulated_loss.new_zeros(())
        for gradient, along in zip(gradients, direction, strict=True):
            objective = objective - inner_lr * (gradient * along).sum()
        if penalty is not None:
            objective = sum((penalty(recognition) for recognition in simulated), objective)
        mixed = torch.autograd.grad(objective, tuple(upstream.values()), materialize_grads=True)
    result = dict(zip(upstream, mixed, strict=True))  # Eq. 10
    for name, gradient in zip(copies, held_out_gradients[len(moved) :], strict=True):
        result[name] = result[name] + gradient
    return UpstreamGradient(result, simulated_loss.detach(), held_out_loss.detach())


def _passes(
    classifier: Classifier, parameters: dict[str, Tensor], batches: Sequence[FeatureBatch]
) -> list[Recognition]:
    return [
        functional_call(classifier, parameters, (batch.output, batch.draws)) for batch in batches
    ]


def _joined_loss(passes: Sequence[Recognition], batches: Sequence[FeatureBatch]) -> Tensor:
    losses = [
        batch.criterion(recognition.logits)
        for recognition, batch in zip(passes, batches, strict=True)
    ]
    return torch.stack(losses).sum()
