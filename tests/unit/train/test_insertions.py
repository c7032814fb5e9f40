"""UDL at every insertion point, with each backbone's random draws and frozen parts."""

import pytest
import torch

from dsts_ray.models.draws import Draws
from dsts_ray.train.partition import downstream_parameters, upstream_parameters
from dsts_ray.train.step import TrainingStep
from tests.support.tiny import (
    SWIN,
    clip_batch,
    copied_state,
    largest_difference,
    tiny_config,
    tiny_model,
    torch_step,
)

INSERTIONS = {
    "neck": (),
    "res4": ("dsts.insertion=res4", "model.backbone.tpn.geometry=stock"),
    "slowonly-res4": ("dsts.insertion=res4", "model.backbone.tpn.trunk=slowonly"),
    "norm": SWIN,
}
ONE_TOKEN = {"backbone.features.6.0.attn.relative_position_bias_table"}
"""A window of one token has one weight, 1, whatever its bias."""
TRAIN, HELD_OUT = clip_batch(range(6)), clip_batch(range(6, 12))


def step_of(*overrides: str) -> TrainingStep:
    config = tiny_config("udl.inner_lr=0.5", *overrides)
    return torch_step(tiny_model(config), config, weight_decay=0.0)


def names_that_stay(step: TrainingStep) -> set[str]:
    """Parameters and buffers that two steps leave as they are."""
    before = copied_state(step.model)
    for index in range(2):
        step(index, [TRAIN], [HELD_OUT], lr=0.1, upstream_lr=0.3)
    after = copied_state(step.model)
    assert all(bool(value.isfinite().all()) for value in after.values())
    return {name for name in before if torch.equal(before[name], after[name])}


@pytest.mark.parametrize("insertion", INSERTIONS)
def test_a_step_moves_upstream_and_all_downstream_parameters(insertion: str) -> None:
    step = step_of(*INSERTIONS[insertion])
    upstream = upstream_parameters(step.model)
    trained = upstream.keys() | downstream_parameters(step.model, upstream)
    assert trained == {name for name, _ in step.model.named_parameters()}
    assert names_that_stay(step) & trained - ONE_TOKEN == set()


@pytest.mark.parametrize("settings", [SWIN, (*SWIN, "dsts.enabled=false", "udl.enabled=false")])
def test_dropped_paths_do_not_depend_on_micro_batches_or_on_checkpointing(
    settings: tuple[str, ...],
) -> None:
    """Swin has no batch statistics; DSTS has, so it is compared on one micro-batch alone."""
    states = []
    for checkpointing in ("true", "false"):
        step = step_of(
            *settings,
            "model.backbone.swin3d.stochastic_depth=0.6",
            f"model.backbone.swin3d.activation_checkpointing={checkpointing}",
        )
        step(0, [TRAIN], [HELD_OUT], lr=0.1, upstream_lr=0.3)
        states.append(copied_state(step.model))
    if step.upstream is None:
        step = step_of(*settings, "model.backbone.swin3d.stochastic_depth=0.6")
        parts = [clip_batch(range(4)), clip_batch(range(4, 6), range(4, 6))]
        step(0, parts, [HELD_OUT], lr=0.1, upstream_lr=0.3)
        states.append(copied_state(step.model))
    assert all(largest_difference(states[0], state) < 1e-12 for state in states[1:])


def test_the_backbones_paths_are_those_of_the_step_and_the_train_role() -> None:
    config = tiny_config(*SWIN, "model.backbone.swin3d.stochastic_depth=0.6", "udl.inner_lr=0.5")
    reference = tiny_model(config)
    draws = Draws(config.train.seed, 5, "train", TRAIN.sample_ids, TRAIN.positions)
    logits = reference.classifier(reference.backbone(TRAIN.clips, draws), draws).logits
    expected = float(torch.nn.functional.cross_entropy(logits, TRAIN.labels).detach())
    step = torch_step(tiny_model(config), config)
    result = step(5, [TRAIN], [HELD_OUT], lr=0.1, upstream_lr=0.0)
    assert result.loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "frozen", "first_trained"),
    [
        (
            ("model.backbone.freeze_stages=3",),
            ("trunk.conv1.", "trunk.bn1.", "trunk.layer1.", "trunk.layer2."),
            "backbone.trunk.layer3.0.conv1.weight",
        ),
        (
            (*SWIN, "model.backbone.freeze_stages=2"),
            ("patch_embed.", "features.0.", "features.1."),
            "backbone.features.2.0.norm1.weight",
        ),
    ],
)
def test_frozen_stages_reach_no_optimizer_and_keep_statistics(
    settings: tuple[str, ...], frozen: tuple[str, ...], first_trained: str
) -> None:
    step = step_of(*settings)
    prefixes = tuple(f"backbone.{prefix}" for prefix in frozen)
    trained = downstream_parameters(step.model, upstream_parameters(step.model))
    assert first_trained in trained
    assert not any(name.startswith(prefixes) for name in trained)
    staying = names_that_stay(step)
    expected = {name for name in step.model.state_dict() if name.startswith(prefixes)}
    assert staying - ONE_TOKEN == expected


@pytest.mark.parametrize(
    ("settings", "part", "prefixes"),
    [
        ((), "trunk", ("backbone.trunk.",)),
        (("model.backbone.tpn.auxiliary_loss_weight=0.5",), "all", ("backbone.",)),
    ],
)
def test_a_part_in_evaluation_mode_trains_by_its_running_statistics(
    settings: tuple[str, ...], part: str, prefixes: tuple[str, ...]
) -> None:
    step = step_of(f"model.backbone.evaluation_mode={part}", *settings)
    staying = names_that_stay(step)
    buffers = {name for name, _ in step.model.named_buffers() if name.startswith(prefixes)}
    assert staying == buffers
    assert step.model.train().backbone.get_submodule("neck").training == (part == "trunk")


def test_swin_in_evaluation_mode_drops_no_path() -> None:
    settings = (*SWIN, "model.backbone.swin3d.stochastic_depth=0.9")
    draws = Draws(0, 0, "train", torch.arange(2), torch.arange(2))
    clips = clip_batch(range(2)).clips
    for part in ("none", "trunk"):
        model = tiny_model(tiny_config(*settings, f"model.backbone.evaluation_mode={part}"))
        without = model.backbone(clips).features
        assert torch.equal(model.backbone(clips, draws).features, without) == (part == "trunk")
