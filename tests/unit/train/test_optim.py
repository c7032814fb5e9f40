import pytest
import torch

from dsts_ray.train.optim import build_optimizer, is_decayed, schedule_factor
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


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.5), (1.0, 0.0)]
)
def test_cosine_after_a_linear_warmup(progress: float, factor: float) -> None:
    own = schedule_factor(progress, schedule="cosine", warmup_ratio=0.2)
    assert own == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 1.0), (0.5, 0.1), (0.79, 0.1), (0.8, 0.01)])
def test_steps_at_the_milestones(progress: float, factor: float) -> None:
    own = schedule_factor(progress, schedule="step", milestones=(0.5, 0.8))
    assert own == pytest.approx(factor)


def test_constant_stays() -> None:
    assert schedule_factor(0.99, schedule="constant") == 1.0
