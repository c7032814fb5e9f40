import pytest
import torch

from dsts_ray.train.engine import set_lr
from dsts_ray.train.optim import (
    GroupRule,
    Treatment,
    build_optimizer,
    is_decayed,
    schedule_factor,
    treatment,
)
from tests.support.tiny import tiny_config, tiny_model


def test_biases_and_normalization_are_not_decayed() -> None:
    parameters = dict(
        tiny_model(tiny_config("model.backbone.tpn.auxiliary_loss_weight=0.5")).named_parameters()
    )
    decayed = {name for name, value in parameters.items() if is_decayed(name, value)}
    assert "classifier.fc.weight" in decayed
    assert "classifier.dsts.layers.0.neurons.operators.spatial" in decayed
    assert "backbone.trunk.layer1.0.conv1.weight" in decayed
    for name in (
        "classifier.fc.bias",
        "classifier.dsts.layers.0.neurons.operator_norm.weight",
        "classifier.dsts.layers.1.neurons.operator_norm.bias",
        "backbone.trunk.bn1.weight",
        "backbone.auxiliary_head.norm.weight",
    ):
        assert name in parameters
        assert name not in decayed
    optimizer = build_optimizer(parameters, name="adamw", lr=0.1, weight_decay=0.3)
    groups = {group["weight_decay"]: len(group["params"]) for group in optimizer.param_groups}
    assert groups == {0.3: len(decayed), 0.0: len(parameters) - len(decayed)}


def test_settings_reach_the_optimizers() -> None:
    parameters = {"a": torch.nn.Parameter(torch.ones(2, 2))}
    sgd = build_optimizer(parameters, name="sgd", lr=0.1, momentum=0.8, weight_decay=0.01)
    (group,) = sgd.param_groups
    assert (group["momentum"], group["nesterov"], group["lr"]) == (0.8, True, 0.1)
    plain = build_optimizer(parameters, name="sgd", lr=0.1, momentum=0.0)
    assert plain.param_groups[0]["nesterov"] is False
    adamw = build_optimizer(parameters, name="adamw", lr=0.1, betas=(0.7, 0.8))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["betas"] == (0.7, 0.8)


NAMES = {
    "backbone.features.0.0.attn.qkv.weight": (4, 4),
    "backbone.features.0.0.attn.qkv.bias": (4,),
    "backbone.features.0.0.attn.relative_position_bias_table": (9, 2),
    "backbone.features.0.0.norm1.weight": (4,),
    "classifier.dsts.layers.0.neurons.spatial": (3, 4, 2, 1, 3, 3),
    "classifier.dsts.layers.0.neurons.spatial_norm.weight": (3, 4),
    "classifier.fc.weight": (5, 4),
    "classifier.fc.bias": (5,),
}
TREATMENTS: dict[GroupRule, list[Treatment]] = {
    "by_role": [
        Treatment(0.1, decayed=True),
        Treatment(0.1, decayed=False),
        Treatment(0.1, decayed=False),
        Treatment(0.1, decayed=False),
        Treatment(1.0, decayed=True),
        Treatment(1.0, decayed=False),
        Treatment(5.0, decayed=True),
        Treatment(5.0, decayed=False),
    ],
    "longest_key": [
        Treatment(0.1, decayed=True),
        Treatment(0.1, decayed=True),  # biases are decayed
        Treatment(1.0, decayed=False),  # the table keeps the full rate
        Treatment(0.1, decayed=True),  # a norm of the backbone is decayed
        Treatment(1.0, decayed=True),
        Treatment(1.0, decayed=False),
        Treatment(5.0, decayed=True),
        Treatment(5.0, decayed=True),
    ],
    "decay_all": [Treatment(m, decayed=True) for m in (0.1, 0.1, 0.1, 0.1, 1.0, 1.0, 5.0, 5.0)],
}


@pytest.mark.parametrize("rule", list(TREATMENTS))
def test_multipliers_and_decay_by_rule(rule: GroupRule) -> None:
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in NAMES.items()}
    treatments = [
        treatment(n, p, rule=rule, backbone_lr_multiplier=0.1, head_lr_multiplier=5.0)
        for n, p in parameters.items()
    ]
    assert treatments == TREATMENTS[rule]
    optimizer = build_optimizer(
        parameters,
        name="adamw",
        lr=0.2,
        weight_decay=0.3,
        rule=rule,
        backbone_lr_multiplier=0.1,
        head_lr_multiplier=5.0,
    )
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for parameter, (multiplier, decayed) in zip(parameters.values(), treatments, strict=True):
        assert found[id(parameter)] == (0.2 * multiplier, 0.3 if decayed else 0.0)
    assert len(optimizer.param_groups) == len(set(treatments))


def test_a_schedule_keeps_the_ratio_of_the_learning_rates() -> None:
    parameters = {
        name: torch.nn.Parameter(torch.zeros(2, 2)) for name in ("backbone.a", "classifier.fc.b")
    }
    optimizer = build_optimizer(parameters, name="sgd", lr=1.0, backbone_lr_multiplier=0.1)
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0.0, 0.0), (1.25, 0.5), (2.5, 1.0), (31.25, 0.5), (60.0, 0.0)],
)
def test_cosine_after_a_linear_warmup_of_two_and_a_half_epochs(epoch: float, factor: float) -> None:
    own = schedule_factor(epoch, num_epochs=60, schedule="cosine", warmup_epochs=2.5)
    assert own == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0.0, 1.0), (74.99, 1.0), (75.0, 0.1), (124.9, 0.1), (125.0, 0.01)]
)
def test_steps_at_the_milestones(epoch: float, factor: float) -> None:
    own = schedule_factor(epoch, num_epochs=150, schedule="step", milestones=(75, 125))
    assert own == pytest.approx(factor)


def test_constant_stays() -> None:
    assert schedule_factor(9.9, num_epochs=10, schedule="constant") == 1.0
