"""What owns parameters during training.

It reduces their gradients over workers, clips them and steps.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from dsts_ray.train.collective import mean_over_workers


class ParameterEngine(Protocol):
    """Owner of a set of parameters.

    One optimizer step is ``accumulation_steps`` calls of ``backward`` followed by one of ``step``.
    Gradients of the micro-batches are summed and averaged over workers.
    """

    def backward(self, loss: Tensor) -> None:
        """Differentiate a loss with respect to the owned parameters."""
        ...

    def step(self, lr: float) -> float:
        """Clip, update and clear; returns the gradient's norm before clipping.

        Where the norm is NaN or infinite, gradients are cleared and nothing else changes.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Optimizer state by ``parameter/entry``, independent of the number of workers.

        Called on all of them.
        """
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        ...


class TorchEngine:
    """Plain torch optimizer with gradients averaged over workers; needs no DeepSpeed."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float,
    ) -> None:
        """Own ``parameters``; ``clip_norm`` 0 switches clipping off."""
        self.parameters = dict(parameters)
        self.optimizer = optimizer
        self.clip_norm = clip_norm

    def backward(self, loss: Tensor) -> None:
        """See :class:`ParameterEngine`."""
        loss.backward(inputs=list(self.parameters.values()))

    def step(self, lr: float) -> float:
        """See :class:`ParameterEngine`."""
        gradients = [
            torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters.values()
        ]
        for parameter, gradient in zip(
            self.parameters.values(), mean_over_workers(gradients), strict=True
        ):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.clip_norm or float("inf"))
        set_lr(self.optimizer, lr)
        if norm.isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """See :class:`ParameterEngine`."""
        return optimizer_state(self.optimizer, self.parameters)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`ParameterEngine`."""
        load_optimizer_state(self.optimizer, self.parameters, state)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups, each times its ``lr_multiplier``, 1 by default."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_multiplier", 1.0)


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Copy an optimizer's state into ``parameter/entry``."""
    return {
        f"{name}/{entry}": value.detach().to("cpu", copy=True).contiguous()
        for name, parameter in parameters.items()
        for entry, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Tensor],
) -> None:
    """Restore what :func:`optimizer_state` returned."""
    for name, parameter in parameters.items():
        entries = {
            key.rpartition("/")[2]: value
            for key, value in state.items()
            if key.rpartition("/")[0] == name
        }
        if entries:
            optimizer.state[parameter] = {
                entry: value.clone() if entry == "step" else value.to(parameter, copy=True)
                for entry, value in entries.items()
            }
