"""Optimizers and the learning-rate schedule."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

ScheduleName = Literal["cosine", "step", "constant"]


def build_optimizer(
    parameters: Mapping[str, nn.Parameter],
    *,
    name: Literal["sgd", "adamw"],
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = True,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Create the optimizer; biases and normalization parameters are not decayed.

    Args:
        parameters: By name.
        name: ``sgd`` or ``adamw``.
        lr: Learning rate at schedule factor 1.
        momentum: Of ``sgd``.
        nesterov: Of ``sgd``.
        betas: Of ``adamw``.
        weight_decay: Of the parameters that are decayed.
    """
    decayed = [p for n, p in parameters.items() if is_decayed(n, p)]
    kept = [p for n, p in parameters.items() if not is_decayed(n, p)]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether weight decay applies.

    Not to biases nor to scales and shifts of normalization layers.
    """
    return parameter.ndim > 1 and "_norm." not in name


def schedule_factor(
    progress: float,
    *,
    schedule: ScheduleName,
    warmup_ratio: float = 0.0,
    milestones: tuple[float, ...] = (),
) -> float:
    """Factor on the learning rate.

    Args:
        progress: Share of the run done, in [0, 1].
        schedule: ``cosine`` falls to 0 at the end, ``step`` to a tenth at each milestone,
            ``constant`` stays.
        warmup_ratio: Share of the run with a linear rise from 0.
        milestones: Shares of the run, for ``step``.
    """
    if progress < warmup_ratio:
        return progress / warmup_ratio
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup_ratio) / (1.0 - warmup_ratio)))
    if schedule == "step":
        return 0.1 ** sum(progress >= milestone for milestone in milestones)
    return 1.0
