from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.batch_norm import frozen_statistics
from dsts_ray.models.draws import Draws
from dsts_ray.models.recognizer import Recognition
from dsts_ray.train import step as step_module
from dsts_ray.train.losses import utilization_loss
from dsts_ray.train.partition import partition_classifier, upstream_parameters
from dsts_ray.train.step import TrainingStep
from dsts_ray.train.udl import FeatureBatch, UpstreamGradient, upstream_gradient
from tests.support.tiny import (
    clip_batch,
    copied_state,
    largest_difference,
    tiny_config,
    tiny_model,
    torch_step,
)

LR, UPSTREAM_LR = 0.1, 0.3
TRAIN, HELD_OUT = clip_batch(range(6)), clip_batch(range(6, 12))


def named(step: TrainingStep) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Upstream and all other parameters as they are now."""
    upstream = set(upstream_parameters(step.model))
    values = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    return (
        {name: value for name, value in values.items() if name in upstream},
        {name: value for name, value in values.items() if name not in upstream},
    )


def fresh(*overrides: str) -> TrainingStep:
    config = tiny_config("udl.inner_lr=0.5", *overrides)
    return torch_step(tiny_model(config), config)


@pytest.mark.parametrize(("lr", "upstream_lr"), [(0.0, UPSTREAM_LR), (LR, 0.0)])
def test_each_update_moves_its_own_parameters_alone(lr: float, upstream_lr: float) -> None:
    """With momentum and weight decay, over three steps."""
    step = fresh()
    upstream, downstream = named(step)
    for index in range(3):
        step(index, [TRAIN], [HELD_OUT], lr=lr, upstream_lr=upstream_lr)
    upstream_after, downstream_after = named(step)
    assert (largest_difference(upstream, upstream_after) > 0) == (upstream_lr > 0)
    assert (largest_difference(downstream, downstream_after) > 0) == (lr > 0)


@pytest.mark.parametrize("covers", ["operators", "module"])
def test_the_actual_update_finds_everything_but_upstream_as_it_was(
    monkeypatch: pytest.MonkeyPatch, covers: str
) -> None:
    """Parameters, classifier's statistics, optimizer state and the random stream, bit by bit."""
    step = fresh(f"udl.covers={covers}")
    step(0, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)

    def state() -> dict[str, Tensor]:
        classifier = copied_state(step.model.classifier)
        kept = {k: v for k, v in classifier.items() if k not in step.partition.upstream}
        return {**kept, **step.downstream.state(), "random": torch.get_rng_state()}

    before, found = state(), []
    actual_update = step._actual_update

    def spied(*arguments: Any) -> tuple[Tensor, Recognition]:  # noqa: ANN401
        found.append(state())
        return actual_update(*arguments)

    monkeypatch.setattr(step, "_actual_update", spied)
    upstream, _ = named(step)
    step(1, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)
    assert largest_difference(upstream, named(step)[0]) > 0
    assert found[0].keys() == before.keys()
    assert any(name.endswith("momentum_buffer") for name in before)
    assert all(torch.equal(value, found[0][name]) for name, value in before.items())


def test_a_step_is_eq9_to_eq11() -> None:
    """SGD without momentum or decay, by hand: u' from Eq. 10, then d' from Eq. 11 at u'."""
    config = tiny_config("udl.inner_lr=0.5")
    model, reference = tiny_model(config), tiny_model(config)
    step = torch_step(model, config, momentum=0.0, weight_decay=0.0)
    step(0, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)

    def criterion(labels: Tensor, logits: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels)

    def features(role: str) -> FeatureBatch:
        batch = TRAIN if role == "train" else HELD_OUT
        draws = Draws(
            0, 0, "train" if role == "train" else "held_out", batch.sample_ids, batch.positions
        )
        with torch.no_grad(), frozen_statistics(reference):
            output = reference.backbone(batch.clips)
        return FeatureBatch(output, draws, lambda logits: criterion(batch.labels, logits))

    train = features("train")
    gradients = upstream_gradient(
        reference.classifier,
        partition_classifier(reference.classifier, "operators"),
        train=[train],
        held_out=[features("held_out")],
        inner_lr=0.5,
    ).gradients
    parameters = dict(reference.classifier.named_parameters())
    with torch.no_grad():
        for name, gradient in gradients.items():
            parameters[name].sub_(UPSTREAM_LR * gradient)
    criterion(TRAIN.labels, reference(TRAIN.clips, train.draws).logits).backward()
    upstream = upstream_parameters(reference)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name not in upstream and parameter.grad is not None:
                parameter -= LR * parameter.grad
    assert largest_difference(copied_state(model), copied_state(reference)) < 1e-12


def test_running_statistics_move_once_by_the_train_batch_alone() -> None:
    for train in ([TRAIN], [clip_batch(range(3)), clip_batch(range(3, 6), range(3, 6))]):
        step = fresh()
        reference = tiny_model(tiny_config())
        for batch in train:
            draws = Draws(0, 0, "train", batch.sample_ids, batch.positions)
            reference(batch.clips, draws)
        step(0, train, [HELD_OUT], lr=0.0, upstream_lr=0.0)
        own, expected = copied_state(step.model), copied_state(reference)
        buffers = [name for name in own if "running" in name or "num_batches" in name]
        assert len(buffers) > 20
        for name in buffers:
            torch.testing.assert_close(own[name], expected[name], rtol=1e-12, atol=1e-12)


def test_without_udl_a_step_is_one_backpropagation_of_everything() -> None:
    step = fresh("udl.enabled=false")
    assert step.upstream is None
    reference = tiny_model(tiny_config())
    draws = Draws(0, 0, "train", TRAIN.sample_ids, TRAIN.positions)
    optimizer = torch.optim.SGD(reference.parameters(), lr=LR)
    loss = torch.nn.functional.cross_entropy(reference(TRAIN.clips, draws).logits, TRAIN.labels)
    loss.backward()
    optimizer.step()
    for engine in (step.downstream,):
        for group in engine.optimizer.param_groups:  # pyright: ignore[reportAttributeAccessIssue]
            group["weight_decay"], group["momentum"], group["nesterov"] = 0.0, 0.0, False
    result = step(0, [TRAIN], [], lr=LR, upstream_lr=0.0)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert largest_difference(copied_state(step.model), copied_state(reference)) < 1e-12


def test_a_clip_of_weight_zero_does_not_count_in_the_loss() -> None:
    """Its row still takes part in batch statistics, so the classifier's gradient is compared."""
    config = tiny_config("udl.enabled=false")
    weighted = clip_batch(range(6), weights=[1, 1, 0, 1, 1, 1])
    step = torch_step(tiny_model(config), config, momentum=0.0, weight_decay=0.0)
    reference = tiny_model(config)
    draws = Draws(0, 0, "train", TRAIN.sample_ids, TRAIN.positions)
    kept = [0, 1, 3, 4, 5]
    logits = reference(TRAIN.clips, draws).logits[kept]
    loss = torch.nn.functional.cross_entropy(logits, TRAIN.labels[kept])
    loss.backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.grad is not None:
                parameter -= LR * parameter.grad
    result = step(0, [weighted], [], lr=LR, upstream_lr=0.0)
    assert result.num_clips == 5
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert largest_difference(copied_state(step.model), copied_state(reference)) < 1e-12


def test_a_batch_without_any_counting_clip_moves_nothing() -> None:
    config = tiny_config("udl.inner_lr=0.5")
    step = torch_step(tiny_model(config), config, momentum=0.0, weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    empty = clip_batch([3], weights=[0.0])
    result = step(0, [clip_batch([3, 4], weights=[0.0, 0.0])], [empty], lr=LR, upstream_lr=1.0)
    assert (result.loss, result.num_clips) == (0.0, 0)
    after = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    assert largest_difference(before, after) == 0.0


def test_accumulation_adds_the_gradients_of_the_joined_loss() -> None:
    """Micro-batches of 4 and 2 clips count by their clips; statistics are each micro-batch's."""
    config = tiny_config("udl.inner_lr=0.5")
    step = torch_step(tiny_model(config), config, momentum=0.0, weight_decay=0.0)
    reference = tiny_model(config)
    train = [clip_batch(range(4)), clip_batch(range(4, 6), range(4, 6))]
    held_out = [clip_batch(range(6, 10)), clip_batch(range(10, 12), range(4, 6))]

    def micro(role: str, batch_index: int) -> FeatureBatch:
        batch = (train if role == "train" else held_out)[batch_index]
        draws = Draws(
            0, 0, "train" if role == "train" else "held_out", batch.sample_ids, batch.positions
        )
        with torch.no_grad(), frozen_statistics(reference):
            output: BackboneOutput = reference.backbone(batch.clips)
        return FeatureBatch(output, draws, lambda logits: summed(logits, batch.labels))

    def summed(logits: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / 6

    gradients = upstream_gradient(
        reference.classifier,
        partition_classifier(reference.classifier, "operators"),
        train=[micro("train", 0), micro("train", 1)],
        held_out=[micro("held_out", 0), micro("held_out", 1)],
        inner_lr=0.5,
    ).gradients
    parameters = dict(reference.classifier.named_parameters())
    with torch.no_grad():
        for name, gradient in gradients.items():
            parameters[name].sub_(UPSTREAM_LR * gradient)
    total = 0.0
    for batch in train:
        draws = Draws(0, 0, "train", batch.sample_ids, batch.positions)
        loss = summed(reference(batch.clips, draws).logits, batch.labels)
        loss.backward()
        total += float(loss.detach())
    upstream = upstream_parameters(reference)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name not in upstream and parameter.grad is not None:
                parameter -= LR * parameter.grad
    result = step(0, train, held_out, lr=LR, upstream_lr=UPSTREAM_LR)
    assert result.loss == pytest.approx(total, rel=1e-12)
    assert largest_difference(copied_state(step.model), copied_state(reference)) < 1e-12


def test_the_same_step_from_the_same_state_gives_the_same_bits() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(torch.seed())
        step = fresh("model.backbone.tpn.auxiliary_loss_weight=0.5", "model.dropout=0.5")
        for index in range(2):
            step(index, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)
        states.append(copied_state(step.model))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_a_step_reports() -> None:
    step = fresh("dsts.num_layers=3")
    result = step(0, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)
    assert result.chosen is not None
    assert result.chosen.shape == (3, 3)
    assert result.chosen.sum(1).tolist() == [6, 6, 6]
    assert result.num_clips == 6
    assert result.num_refused == 0
    assert set(result.metrics) == {
        "train/loss",
        "train/top1",
        "train/lr",
        "train/gradient_norm",
        "udl/held_out_loss",
        "udl/upstream_gradient_norm",
        "udl/upstream_update_ratio",
    }
    assert 0 < result.metrics["udl/upstream_update_ratio"] < 1
    assert result.metrics["train/lr"] == LR


def test_the_model_without_dsts_trains() -> None:
    step = fresh("dsts.enabled=false", "udl.enabled=false")
    before = copied_state(step.model)
    result = step(0, [TRAIN], [], lr=LR, upstream_lr=0.0)
    assert result.chosen is None
    assert largest_difference(before, copied_state(step.model)) > 0


def test_bfloat16_stays_finite_and_near_float32() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        config = tiny_config(f"engine.precision={precision}", "udl.inner_lr=0.5")
        step = torch_step(tiny_model(config, torch.float32), config)
        train, held_out = (clip_batch(ids, dtype=torch.float32) for ids in (range(6), range(6, 12)))
        results = [step(index, [train], [held_out], lr=0.02, upstream_lr=0.1) for index in range(3)]
        losses.append(results[-1].loss)
        for value in step.model.state_dict().values():
            assert value.dtype in (torch.float32, torch.int64)
            assert bool(torch.isfinite(value).all())
        upstream, _ = named(step)
        start = upstream_parameters(tiny_model(config, torch.float32))
        assert all(not torch.equal(value, start[name]) for name, value in upstream.items())
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


def test_label_smoothing_reaches_the_loss() -> None:
    config = tiny_config("udl.enabled=false", "optim.label_smoothing=0.2")
    model = tiny_model(config)
    draws = Draws(0, 0, "train", TRAIN.sample_ids, TRAIN.positions)
    with frozen_statistics(model):
        logits = functional_call(model, {}, (TRAIN.clips, draws)).logits
    expected = torch.nn.functional.cross_entropy(logits, TRAIN.labels, label_smoothing=0.2)
    result = torch_step(model, config)(0, [TRAIN], [], lr=LR, upstream_lr=0.0)
    assert result.loss == pytest.approx(float(expected.detach()), rel=1e-12)


def test_with_udl_the_utilization_loss_moves_upstream_alone() -> None:
    states = []
    for weight in (0.0, 3.0):
        step = fresh(f"dsts.utilization_loss_weight={weight}", "udl.inner_lr=0.0")
        step(0, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=0.0)
        states.append(named(step))
    assert largest_difference(states[0][1], states[1][1]) == 0.0
    for weight in (0.0, 3.0):
        step = fresh(f"dsts.utilization_loss_weight={weight}", "udl.inner_lr=0.0")
        for engine in (step.upstream, step.downstream):
            for group in engine.optimizer.param_groups:  # pyright: ignore
                group["weight_decay"] = 0.0
        start, _ = named(step)
        step(0, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)
        assert (largest_difference(start, named(step)[0]) > 1e-6) == (weight > 0)


def test_without_udl_the_utilization_loss_is_part_of_the_loss() -> None:
    config = tiny_config("udl.enabled=false", "dsts.utilization_loss_weight=0.7")
    step = torch_step(tiny_model(config), config, momentum=0.0, weight_decay=0.0)
    reference = tiny_model(config)
    draws = Draws(0, 0, "train", TRAIN.sample_ids, TRAIN.positions)
    recognition = reference(TRAIN.clips, draws)
    loss = torch.nn.functional.cross_entropy(recognition.logits, TRAIN.labels)
    (loss + 0.7 * utilization_loss(recognition.selections, temperature=1.0)).backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.grad is not None:
                parameter -= LR * parameter.grad
    result = step(0, [TRAIN], [], lr=LR, upstream_lr=0.0)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert largest_difference(copied_state(step.model), copied_state(reference)) < 1e-12


def test_previous_features_are_held_out_at_no_backbone_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first step has none and takes the next batch; a clip of this step's batch is left out."""
    step = fresh("udl.held_out=previous_features")
    outputs: list[Tensor] = []
    step.model.backbone.register_forward_hook(
        lambda module, inputs, output: outputs.append(output.features.detach())
    )
    held_out: list[FeatureBatch] = []

    def spied(*arguments: Any, **named_arguments: Any) -> UpstreamGradient:  # noqa: ANN401
        held_out.extend(named_arguments["held_out"])
        return upstream_gradient(*arguments, **named_arguments)

    monkeypatch.setattr(step_module, "upstream_gradient", spied)
    following = clip_batch([5, 6, 7])
    step(0, [TRAIN], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)
    step(1, [following], [HELD_OUT], lr=LR, upstream_lr=UPSTREAM_LR)
    assert [len(features) for features in outputs] == [6, 6, 3]
    assert torch.equal(held_out[0].output.features, outputs[1])
    assert torch.equal(held_out[1].output.features, outputs[0])
    assert held_out[1].draws.role == "held_out"
    assert held_out[1].draws.step == 1
    logits = torch.randn(6, 4, dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(logits[:5], TRAIN.labels[:5])
    torch.testing.assert_close(held_out[1].criterion(logits), expected)
