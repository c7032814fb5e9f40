"""Configuration to objects: the one mapping."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from dsts_ray.config.load import config_from_yaml
from dsts_ray.config.schema import Config
from dsts_ray.data.augment import Augmentation
from dsts_ray.data.batch import ClipBatch
from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.order import TrainingOrder
from dsts_ray.errors import CheckpointError, ConfigError
from dsts_ray.models.backbones.base import Backbone
from dsts_ray.models.backbones.swin3d import VideoSwin
from dsts_ray.models.backbones.tpn import TPNBackbone
from dsts_ray.models.dsts.module import DSTSModule
from dsts_ray.models.dsts.variant import Variant
from dsts_ray.models.recognizer import Classifier, Recognizer
from dsts_ray.tracking.base import Tracker
from dsts_ray.train.checkpoint import CONFIG_FILE, load_weights, read_classes
from dsts_ray.train.context import RunContext
from dsts_ray.train.engine import ParameterEngine, TorchEngine
from dsts_ray.train.evaluate import ViewPredictor
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.loop import TrainingLoop, WriteCheckpoint
from dsts_ray.train.optim import build_optimizer, schedule_factor
from dsts_ray.train.partition import downstream_parameters, upstream_parameters
from dsts_ray.train.plan import Plan
from dsts_ray.train.predictions import EvaluationSetup
from dsts_ray.train.samples import SampleRecord
from dsts_ray.train.step import TrainingStep


def build_model(config: Config, num_classes: int) -> Recognizer:
    """Create the recognizer with weights drawn from ``train.seed``."""
    torch.manual_seed(config.train.seed)
    backbone = _build_backbone(config, num_classes)
    backbone.freeze(config.model.backbone.freeze_stages)
    backbone.keep_in_evaluation_mode(config.model.backbone.evaluation_mode)
    dsts = _build_dsts(config, backbone.feature_channels) if config.dsts.enabled else None
    classifier = Classifier(
        dsts=dsts,
        feature_channels=backbone.feature_channels,
        pooled_channels=backbone.pooled_channels,
        num_classes=num_classes,
        dropout=config.model.dropout,
    )
    return Recognizer(backbone, classifier)


def _build_backbone(config: Config, num_classes: int) -> Backbone:
    tpn, swin3d = config.model.backbone.tpn, config.model.backbone.swin3d
    if config.model.backbone.name == "swin3d":
        return VideoSwin(
            channels=swin3d.channels,
            depths=swin3d.depths,
            heads=swin3d.heads,
            window=swin3d.window,
            stochastic_depth=swin3d.stochastic_depth,
            activation_checkpointing=swin3d.activation_checkpointing,
        )
    return TPNBackbone(
        num_classes=num_classes,
        trunk=tpn.trunk,
        depths=tpn.depths,
        width=tpn.width,
        shift_div=tpn.shift_div,
        shift_downsample=tpn.shift_downsample,
        geometry=tpn.geometry,
        side_branch=config.dsts.enabled and config.dsts.insertion == "res4",
        neck_channels=tpn.neck_channels,
        neck_groups=tpn.neck_groups,
        auxiliary_loss_weight=tpn.auxiliary_loss_weight,
        synchronize=config.engine.synchronize_batch_norm,
    )


def _build_dsts(config: Config, channels: int) -> DSTSModule:
    dsts = config.dsts
    variant = Variant(
        num_neurons=dsts.num_neurons,
        specialization=dsts.specialization,
        synapse=dsts.synapse,
        scoring_kernel=dsts.scoring_kernel,
        scoring_rows=dsts.scoring_rows,
        impulse=dsts.impulse,
        impulse_deviation=dsts.impulse_deviation,
        temperature=dsts.temperature,
        dispatch=dsts.dispatch,
        width=dsts.width,
        groups=dsts.groups,
        fuse=dsts.fuse,
        fuse_groups=dsts.fuse_groups,
        fuse_kernel=dsts.fuse_kernel,
        channel_shuffle=dsts.channel_shuffle,
    )
    return DSTSModule(
        channels=channels, num_layers=dsts.num_layers, variant=variant, skip=dsts.skip
    )


def load_model(directory: Path) -> tuple[Config, Recognizer, tuple[str, ...]]:
    """Load a model folder (``config.yaml``, ``model.safetensors``) for prediction.

    Returns:
        Its configuration, the model in evaluation mode, its class names.

    Raises:
        CheckpointError: A file is missing, damaged, of another version, or the two do not fit.
    """
    classes = read_classes(directory)
    try:
        config = config_from_yaml(directory / CONFIG_FILE)
    except ConfigError as error:
        raise CheckpointError(
            f"{directory / CONFIG_FILE} does not hold the model's configuration (one of another "
            f"version of dsts_ray needs that version): {error}"
        ) from error
    model = build_model(config, len(classes))
    load_weights(directory, model)
    return config, model.eval(), classes


MakeEngine = Callable[
    [Config, Mapping[str, nn.Parameter], torch.optim.Optimizer, float, int], ParameterEngine
]
"""From configuration, parameters, optimizer, clip norm and accumulation steps to an engine."""


def deepspeed_engine(
    config: Config,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    accumulation_steps: int,
) -> ParameterEngine:
    """Create the engine of a training run."""
    from dsts_ray.train.deepspeed_engine import (
        DeepSpeedEngine,
    )  # seconds of import that prediction does not need

    return DeepSpeedEngine(
        parameters,
        optimizer,
        zero_stage=config.engine.zero_stage,
        clip_norm=clip_norm,
        accumulation_steps=accumulation_steps,
    )


def torch_engine(
    config: Config,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    accumulation_steps: int,
) -> ParameterEngine:
    """Create an engine that needs no process group."""
    del config, accumulation_steps
    return TorchEngine(parameters, optimizer, clip_norm=clip_norm)


def build_step(
    config: Config, model: Recognizer, make_engine: MakeEngine = deepspeed_engine
) -> TrainingStep:
    """Create the engines and the optimizer step around a model on its device."""
    uses_udl = config.dsts.enabled and config.udl.enabled
    upstream = upstream_parameters(model) if uses_udl else {}
    downstream = downstream_parameters(model, upstream)
    return TrainingStep(
        model,
        make_engine(
            config,
            downstream,
            build_downstream_optimizer(config, downstream),
            config.optim.clip_norm,
            config.accumulation_steps,
        ),
        _build_upstream_engine(config, upstream, make_engine) if uses_udl else None,
        seed=config.train.seed,
        inner_lr=config.udl.inner_lr,
        covers=config.udl.covers,
        first_order=config.udl.upstream_gradient == "with_first_order",
        reuses_features=config.udl.held_out == "previous_features",
        utilization_loss_weight=config.dsts.utilization_loss_weight,
        label_smoothing=config.optim.label_smoothing,
        precision=config.engine.precision,
        keeps_statistics=config.train.on_nonfinite_loss == "skip",
    )


def build_downstream_optimizer(
    config: Config, parameters: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """Create the optimizer of ``optim`` over parameters of the recognizer, by name."""
    optim = config.optim
    return build_optimizer(
        parameters,
        name=optim.name,
        lr=scaled_lr(config),
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        rule=optim.groups,
        backbone_lr_multiplier=optim.backbone_lr_multiplier,
        head_lr_multiplier=optim.head_lr_multiplier,
    )


def _build_upstream_engine(
    config: Config, parameters: Mapping[str, nn.Parameter], make_engine: MakeEngine
) -> ParameterEngine:
    if config.udl.upstream_optimizer == "shared":
        optimizer = build_downstream_optimizer(config, parameters)
    else:
        optimizer = build_optimizer(parameters, name="adamw", lr=config.udl.upstream_lr)
    return make_engine(config, parameters, optimizer, config.udl.upstream_clip_norm, 1)


def scaled_lr(config: Config) -> float:
    """Downstream learning rate at schedule factor 1, scaled linearly where the recipe says so."""
    base = config.optim.base_batch_size or config.train.batch_size
    return config.optim.lr * (config.train.batch_size / base)


def learning_rates(config: Config, progress: float) -> tuple[float, float]:
    """Downstream and upstream learning rate at a share of the run done."""
    num_epochs, lr = config.train.num_epochs, scaled_lr(config)
    factor = schedule_factor(
        progress * num_epochs,
        num_epochs=num_epochs,
        schedule=config.optim.schedule,
        warmup_epochs=config.optim.warmup_epochs,
        milestones=config.optim.milestones,
    )
    shared = config.udl.upstream_optimizer == "shared"
    return factor * lr, factor * (lr if shared else config.udl.upstream_lr)


def build_clip_spec(config: Config) -> ClipSpec:
    """How videos become training clips."""
    data = config.data
    return ClipSpec(
        num_frames=data.num_frames,
        short_side=data.short_side,
        crop_size=data.crop_size,
        sampling=data.sampling,
        frame_stride=data.frame_stride,
        crop=data.crop,
        crop_scale=data.crop_scale,
        crop_ratio=data.crop_ratio,
        crop_sides=data.crop_sides,
        seed=config.train.seed,
    )


def build_decoder_pool(config: Config) -> DecoderPool:
    """Build the settings of a stream's decoders, each stream has such a pool."""
    data = config.data
    return DecoderPool(
        num_decoders=data.num_decoders,
        cpus=data.cpus_per_decoder,
        timeout_s=data.decode_timeout_s,
        resource=data.decoder_resource,
    )


def build_augmentation(config: Config) -> Augmentation:
    """How training clips change on the device."""
    augment = config.augment
    return Augmentation(
        flip_probability=augment.flip_probability,
        flip_labels=augment.flip_labels,
        color_jitter=augment.color_jitter,
        rand_augment_operations=augment.rand_augment_operations,
        rand_augment_magnitude=augment.rand_augment_magnitude,
        erase_probability=augment.erase_probability,
        seed=config.train.seed,
    )


def build_view_spec(config: Config) -> ViewSpec:
    """How videos become the views of an evaluation."""
    data, evaluation = config.data, config.evaluation
    num_clips, num_crops = map(int, evaluation.protocol.split("x"))
    return ViewSpec(
        num_clips=num_clips,
        num_crops=num_crops,
        num_frames=data.num_frames,
        short_side=evaluation.short_side or data.short_side,
        crop_size=evaluation.crop_size or data.crop_size,
        sampling=data.sampling,
        frame_stride=data.frame_stride,
    )


def build_view_predictor(config: Config, model: Recognizer, device: torch.device) -> ViewPredictor:
    """How a model on a device predicts the views."""
    return ViewPredictor(
        model,
        device,
        average=config.evaluation.average,
        batch_size=config.evaluation.batch_size,
        refused=config.evaluation.refused,
    )


def build_setup(config: Config, *, model: str, split: str, num_videos: int) -> EvaluationSetup:
    """What results on a split hold for."""
    spec = build_view_spec(config)
    stride = f", stride {spec.frame_stride}" if spec.sampling == "dense" else ""
    return EvaluationSetup(
        model=model,
        split=split,
        num_videos=num_videos,
        protocol=config.evaluation.protocol,
        average=config.evaluation.average,
        frames=f"{spec.num_frames} by {spec.sampling}{stride}",
        size=f"{spec.crop_size} of {spec.short_side}",
        refused=config.evaluation.refused,
    )


def build_order(config: Config, num_clips: int) -> TrainingOrder:
    """Order of the training stream."""
    return TrainingOrder(
        num_clips=num_clips,
        batch_size=config.train.batch_size,
        num_workers=config.scaling.num_workers,
        accumulation_steps=config.accumulation_steps,
        seed=config.train.seed,
    )


def build_plan(config: Config, num_clips: int) -> Plan:
    """Length of the run."""
    return Plan(
        num_clips=num_clips,
        batch_size=config.train.batch_size,
        num_epochs=config.train.num_epochs,
        max_steps=config.train.max_steps,
        evaluate_every_epochs=config.train.evaluate_every_epochs,
        checkpoint_every_steps=config.train.checkpoint_every_steps,
    )


def build_loop(
    config: Config,
    *,
    num_clips: int,
    context: RunContext,
    step: TrainingStep,
    stream: Iterator[ClipBatch],
    evaluate: Callable[[], dict[str, float]],
    write: WriteCheckpoint,
    tracker: Tracker,
    ledger: Ledger,
    record: SampleRecord | None,
) -> TrainingLoop:
    """The training loop of a worker."""
    return TrainingLoop(
        context=context,
        plan=build_plan(config, num_clips),
        step=step,
        stream=stream,
        accumulation_steps=config.accumulation_steps,
        evaluate=evaluate,
        write=write,
        learning_rates=partial(learning_rates, config),
        tracker=tracker,
        max_bad_ratio=config.data.max_bad_ratio,
        held_out_ratio=config.udl.held_out_ratio,
        stops_on_nonfinite_loss=config.train.on_nonfinite_loss == "stop",
        ledger=ledger,
        record=record,
    )
