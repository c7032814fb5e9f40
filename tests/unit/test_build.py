from typing import Any

import pytest
import torch

from dsts_ray.build import (
    build_augmentation,
    build_clip_spec,
    build_downstream_optimizer,
    build_loop,
    build_model,
    build_order,
    build_plan,
    build_step,
    build_view_spec,
    learning_rates,
    scaled_lr,
    torch_engine,
)
from dsts_ray.config.load import load_config
from dsts_ray.data.augment import Augmentation
from dsts_ray.models.batch_norm import RunningStandardization
from dsts_ray.models.dsts.module import DSTSLayer, DSTSModule
from dsts_ray.train.engine import TorchEngine
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.partition import upstream_parameters
from tests.support.tiny import NUM_CLASSES, clip_batch, tiny_config


def test_the_same_seed_gives_the_same_weights() -> None:
    states = [build_model(tiny_config(f"train.seed={seed}"), 4).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.fc.weight"], states[2]["classifier.fc.weight"])


def test_settings_reach_the_module() -> None:
    config = tiny_config(
        "dsts.num_neurons=5",
        "dsts.num_layers=3",
        "dsts.specialization=fixed",
        "dsts.scoring_kernel=1x3x3",
        "dsts.scoring_rows=literal",
        "dsts.impulse=running",
        "dsts.impulse_deviation=4",
        "dsts.temperature=0.5",
        "dsts.dispatch=sparse",
        "dsts.width=4",
        "dsts.groups=4",
        "dsts.fuse=per_neuron",
        "dsts.fuse_groups=1",
        "dsts.fuse_kernel=3x1x1",
        "dsts.channel_shuffle=false",
        "dsts.skip=false",
        "model.dropout=0.3",
    )
    model = build_model(config, NUM_CLASSES)
    dsts = model.classifier.dsts
    assert isinstance(dsts, DSTSModule)
    assert (len(dsts.layers), dsts.num_neurons, dsts.skip) == (3, 5, False)
    shapes = {name: tuple(value.shape) for name, value in dsts.layers[0].named_parameters()}
    assert shapes == {
        "synapse.scoring.kernels": (5, 8, 8, 3, 3),
        "neurons.operators.spatial": (5, 4, 2, 1, 3, 3),
        "neurons.operators.temporal": (5, 4, 2, 3, 1, 1),
        "neurons.operator_norm.weight": (5, 8),
        "neurons.operator_norm.bias": (5, 8),
        "neurons.fuse.weight": (5, 8, 4, 3, 1, 1),
    }
    layer = dsts.layers[0]
    assert isinstance(layer, DSTSLayer)
    assert layer.synapse is not None
    assert (layer.neurons.dispatch, layer.neurons.fuse.shuffle_groups) == ("sparse", 1)
    assert (layer.synapse.impulse, layer.synapse.temperature) == ("running", 0.5)
    assert layer.synapse.impulse_deviation == 4.0
    assert isinstance(layer.synapse.statistics, RunningStandardization)
    assert model.classifier.dropout == 0.3


@pytest.mark.parametrize(
    ("specialization", "synapse", "upstream"),
    [
        ("gates", "gumbel", {"gates.gates", "synapse.scoring.kernels"}),
        ("fixed", "gumbel", {"synapse.scoring.kernels"}),
        ("conv3d", "gumbel", {"synapse.scoring.kernels"}),
        ("gates", "average", {"gates.gates"}),
        ("fixed", "average", set()),
        ("conv3d", "average", set()),
    ],
)
def test_upstream_of_the_papers_ablations(
    specialization: str, synapse: str, upstream: set[str]
) -> None:
    config = tiny_config(
        f"dsts.specialization={specialization}", f"dsts.synapse={synapse}", "udl.enabled=false"
    )
    model = build_model(config, NUM_CLASSES)
    names = {name.split(".", 4)[4] for name in upstream_parameters(model)}
    assert names == upstream
    recognition = model(clip_batch(range(3), dtype=torch.float32).clips)
    assert len(recognition.selections) == (2 if synapse == "gumbel" else 0)


def test_the_model_maps_clips_to_logits_and_one_selection_per_layer() -> None:
    model = build_model(tiny_config(), NUM_CLASSES).eval()
    recognition = model(clip_batch(range(3), dtype=torch.float32).clips)
    assert recognition.logits.shape == (3, NUM_CLASSES)
    assert len(recognition.selections) == 2
    plain = build_model(tiny_config("dsts.enabled=false", "udl.enabled=false"), NUM_CLASSES)
    assert plain.classifier.dsts is None


def test_learning_rates_follow_one_schedule() -> None:
    config = tiny_config(
        "optim.lr=0.1", "optim.warmup_epochs=0", "optim.schedule=cosine", "udl.upstream_lr=0.01"
    )
    assert learning_rates(config, 0.5) == pytest.approx((0.05, 0.005))
    shared = tiny_config("optim.lr=0.1", "optim.warmup_epochs=0", "udl.upstream_optimizer=shared")
    assert learning_rates(shared, 0.5) == pytest.approx((0.05, 0.05))


def test_the_learning_rate_is_scaled_where_its_batch_is_stated() -> None:
    assert scaled_lr(tiny_config("optim.lr=0.3", "train.batch_size=7")) == 0.3
    stated = ("optim.lr=0.3", "optim.base_batch_size=64")
    assert scaled_lr(tiny_config(*stated, "train.batch_size=64")) == 0.3
    config = tiny_config(*stated, "train.batch_size=16", "optim.schedule=constant")
    assert learning_rates(config, 0.0)[0] == pytest.approx(0.075)


def test_multipliers_reach_the_engine() -> None:
    config = tiny_config(
        "optim.lr=0.5",
        "optim.backbone_lr_multiplier=0.1",
        "optim.head_lr_multiplier=5",
        "optim.groups=decay_all",
        "optim.weight_decay=0.3",
    )
    parameters = dict(build_model(config, NUM_CLASSES).named_parameters())
    optimizer = build_downstream_optimizer(config, parameters)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.05, 0.5, 2.5]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}


def test_settings_reach_the_step() -> None:
    config = tiny_config(
        "train.seed=3",
        "udl.inner_lr=0.3",
        "udl.covers=module",
        "udl.upstream_gradient=with_first_order",
        "udl.held_out=previous_features",
        "udl.upstream_clip_norm=0.25",
        "dsts.utilization_loss_weight=0.5",
        "optim.label_smoothing=0.1",
        "optim.clip_norm=0.75",
        "engine.precision=bf16",
    )
    step = build_step(config, build_model(config, NUM_CLASSES), torch_engine)
    assert (step.seed, step.inner_lr, step.covers, step.precision) == (3, 0.3, "module", "bf16")
    assert (step.first_order, step.reuses_features) == (True, True)
    assert (step.utilization_loss_weight, step.label_smoothing) == (0.5, 0.1)
    assert isinstance(step.downstream, TorchEngine)
    assert isinstance(step.upstream, TorchEngine)
    assert (step.downstream.clip_norm, step.upstream.clip_norm) == (0.75, 0.25)
    without = tiny_config("udl.enabled=false")
    assert build_step(without, build_model(without, 4), torch_engine).upstream is None


def test_settings_reach_the_loop() -> None:
    config = tiny_config(
        "udl.held_out_ratio=0.5",
        "data.max_bad_ratio=0.25",
        "train.batch_size=8",
        "train.micro_batch_size=2",
        "train.max_steps=5",
        "optim.lr=0.5",
        "optim.schedule=constant",
    )
    parts = ("context", "step", "stream", "evaluate", "write", "tracker")
    given: dict[str, Any] = dict.fromkeys(parts)
    loop = build_loop(config, num_clips=20, ledger=Ledger(num_clips=4), record=None, **given)
    assert (loop.held_out_ratio, loop.max_bad_ratio) == (0.5, 0.25)
    assert (loop.accumulation_steps, loop.plan.num_steps, loop.ledger.num_clips) == (4, 5, 4)
    assert loop.learning_rates(0.5)[0] == 0.5


@pytest.mark.parametrize(
    ("batch_size", "num_workers", "micro_batch_size", "steps"),
    [
        (64, 8, 0, 1),
        (64, 8, 8, 1),
        (64, 8, 1, 8),
        (64, 2, 8, 4),
        (64, 1, 1, 64),
        (64, 4, 6, 3),  # 16 clips a worker: 6, 5, 5
        (64, 3, 8, 3),  # 22, 21 and 21 clips a worker
        (64, 7, 0, 1),
        (10, 2, 3, 2),
        (8, 2, 100, 1),
    ],
)
def test_accumulation_reaches_the_global_batch_on_any_number_of_workers(
    batch_size: int, num_workers: int, micro_batch_size: int, steps: int
) -> None:
    config = tiny_config(
        f"train.batch_size={batch_size}",
        f"scaling.num_workers={num_workers}",
        f"train.micro_batch_size={micro_batch_size}",
    )
    assert config.accumulation_steps == steps
    order = build_order(config, 1000)
    assert 0 <= order.rows_per_batch - batch_size < order.micro_batches
    assert not micro_batch_size or order.micro_batch_size <= micro_batch_size


def test_augmentation_follows_the_configuration() -> None:
    config = tiny_config(
        "augment.flip_probability=0.25",
        "augment.flip_labels=[[1, 2]]",
        "augment.color_jitter=[0.1, 0.2, 0.3, 0.4]",
        "augment.rand_augment_operations=4",
        "augment.rand_augment_magnitude=9",
        "augment.erase_probability=0.75",
        "train.seed=3",
    )
    assert build_augmentation(config) == Augmentation(
        flip_probability=0.25,
        flip_labels=((1, 2),),
        color_jitter=(0.1, 0.2, 0.3, 0.4),
        rand_augment_operations=4,
        rand_augment_magnitude=9,
        erase_probability=0.75,
        seed=3,
    )


def test_order_plan_and_clip_follow_the_configuration() -> None:
    config = load_config(
        preset="demo",
        overrides=[
            "train.batch_size=8",
            "train.micro_batch_size=2",
            "train.max_steps=5",
            "scaling.num_workers=2",
            "data.num_frames=8",
            "data.short_side=90",
            "data.crop_size=80",
            "data.crop_scale=[0.6, 1.0]",
            "data.crop=multi_scale",
            "data.crop_sides=[1, 0.5]",
        ],
    )
    order = build_order(config, 100)
    assert (order.num_clips, order.micro_batch_size, order.micro_batches) == (100, 2, 4)
    assert build_plan(config, 100).num_steps == 5
    spec = build_clip_spec(config)
    assert spec.shape == (8, 80, 80, 3)
    assert spec.crop_scale == (0.6, 1.0)
    assert (spec.crop, spec.crop_sides) == ("multi_scale", (1.0, 0.5))


def test_views_take_the_sizes_of_training_unless_evaluation_names_its_own() -> None:
    config = load_config(
        overrides=["data.manifest=x", "data.crop_size=80", "data.sampling=uniform"]
    )
    assert build_view_spec(config).shape == (1, 8, 80, 80, 3)
    config = load_config(
        overrides=[
            "data.manifest=x",
            "evaluation.protocol=2x3",
            "evaluation.short_side=256",
            "evaluation.crop_size=256",
        ]
    )
    spec = build_view_spec(config)
    assert (spec.num_clips, spec.num_crops, spec.short_side) == (2, 3, 256)
    assert spec.shape == (6, 8, 256, 256, 3)
