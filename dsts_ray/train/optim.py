"""Optimizers, their parameter groups and the learning-rate schedule."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

ScheduleName = Literal["cosine", "step", "constant"]
GroupRule = Literal["by_role", "longest_key", "decay_all"]

_POSITION_TABLE = "relative_position_bias_table"


class Treatment(NamedTuple):
    """How the optimizer treats a parameter.

    Attributes:
        lr_multiplier: On the learning rate.
        decayed: Whether weight decay applies.
    """

    lr_multiplier: float
    decayed: bool


def treatment(
    name: str,
    parameter: nn.Parameter,
    *,
    rule: GroupRule = "by_role",
    backbone_lr_multiplier: float = 1.0,
    head_lr_multiplier: float = 1.0,
) -> Treatment:
    """Decide how the optimizer treats a parameter of a recognizer.

    Args:
        name: In the recognizer.
        parameter: Of that name.
        rule: ``by_role``: the backbone's multiplier on all of the backbone, and weight decay on
            all but biases, normalization and position tables. ``longest_key``: what Video Swin's
            released code does, where of the keys "relative_position_bias_table" (no decay),
            "backbone" (multiplier) and "norm" (no decay) the longest that is in the name counts
            alone; so position tables keep the full learning rate, and the backbone's norms and
            all biases are decayed. ``decay_all``: as ``by_role``, with weight decay on everything.
        backbone_lr_multiplier: Of the backbone.
        head_lr_multiplier: Of the linear layer before the logits.
    """
    in_backbone = name.startswith("backbone.")
    if rule == "longest_key":
        if _POSITION_TABLE in name:
            return Treatment(1.0, decayed=False)
        if in_backbone:
            return Treatment(backbone_lr_multiplier, decayed=True)
        return Treatment(_head_multiplier(name, head_lr_multiplier), decayed="norm" not in name)
    multiplier = (
        backbone_lr_multiplier if in_backbone else _head_multiplier(name, head_lr_multiplier)
    )
    return Treatment(multiplier, decayed=rule == "decay_all" or is_decayed(name, parameter))


def _head_multiplier(name: str, multiplier: float) -> float:
    return multiplier if name.startswith("classifier.fc.") else 1.0


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether a parameter is a weight: no bias, normalization parameter or position table."""
    return parameter.ndim > 1 and "_norm." not in name and _POSITION_TABLE not in name


def build_optimizer(
    parameters: Mapping[str, nn.Parameter],
    *,
    name: Literal["sgd", "adamw"],
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = True,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    rule: GroupRule = "by_role",
    backbone_lr_multiplier: float = 1.0,
    head_lr_multiplier: float = 1.0,
) -> torch.optim.Optimizer:
    """Create the optimizer; parameters that :func:`treatment` treats alike form a group.

    A group's ``lr_multiplier`` stays with it, so that a schedule sets one rate for all groups.

    Args:
        parameters: By name.
        name: ``sgd`` or ``adamw``.
        lr: Learning rate at schedule factor 1.
        momentum: Of ``sgd``.
        nesterov: Of ``sgd``.
        betas: Of ``adamw``.
        weight_decay: Of the parameters that are decayed.
        rule: See :func:`treatment`.
        backbone_lr_multiplier: See :func:`treatment`.
        head_lr_multiplier: See :func:`treatment`.
    """
    alike: defaultdict[Treatment, list[nn.Parameter]] = defaultdict(list)
    for parameter_name, parameter in parameters.items():
        treated = treatment(
            parameter_name,
            parameter,
            rule=rule,
            backbone_lr_multiplier=backbone_lr_multiplier,
            head_lr_multiplier=head_lr_multiplier,
        )
        alike[treated].append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": members,
            "lr": lr * treated.lr_multiplier,
            "lr_multiplier": treated.lr_multiplier,
            "weight_decay": weight_decay if treated.decayed else 0.0,
        }
        for treated, members in alike.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def schedule_factor(
    epoch: float,
    *,
    num_epochs: float,
    schedule: ScheduleName,
    warmup_epochs: float = 0.0,
    milestones: tuple[float, ...] = (),
) -> float:
    """Factor on the learning rate, which changes with every optimizer step.

    Args:
        epoch: Epochs done, with fractions, in [0, num_epochs].
        num_epochs: Length of the run.
        schedule: ``cosine`` falls from the end of the warm-up to 0 at the end of the run, ``step``
            to a tenth at each milestone, ``constant`` stays.
        warmup_epochs: Epochs with a linear rise from 0, fractions allowed.
        milestones: Epochs, for ``step``.
    """
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    if schedule == "cosine":
        done = (epoch - warmup_epochs) / (num_epochs - warmup_epochs)
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "step":
        return 0.1 ** sum(epoch >= milestone for milestone in milestones)
    return 1.0
