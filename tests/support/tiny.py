"""Tiny recognizers, and clips that are a function of their number."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dsts_ray.build import build_model, build_step, torch_engine
from dsts_ray.config.load import load_config
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import ClipBatch
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.train.step import TrainingStep

NUM_CLASSES = 4
NUM_FRAMES = 2
CROP_SIZE = 32

_OVERRIDES = (
    "data.manifest=tiny.parquet",
    "model.backbone.tpn.depths=[1,1,1,1]",
    "model.backbone.tpn.width=4",
    "model.backbone.tpn.neck_channels=8",
    "model.backbone.tpn.neck_groups=2",
    "model.backbone.tpn.auxiliary_loss_weight=0",
    "model.dropout=0.2",
    "dsts.num_layers=2",
    "dsts.num_neurons=3",
    "dsts.groups=2",
    "dsts.fuse_groups=2",
    f"data.num_frames={NUM_FRAMES}",
    f"data.crop_size={CROP_SIZE}",
    f"data.short_side={CROP_SIZE}",
)
SWIN = (
    "model.backbone.name=swin3d",
    "model.backbone.swin3d.channels=4",
    "model.backbone.swin3d.depths=[2,1,1,1]",
    "model.backbone.swin3d.heads=[1,2,2,2]",
    "model.backbone.swin3d.window=[1,4,4]",
    "dsts.insertion=norm",
)
"""Overrides for the smallest Swin."""


def tiny_config(*overrides: str) -> Config:
    """The schema's defaults with the smallest model."""
    return load_config(overrides=[*_OVERRIDES, *overrides])


def tiny_model(config: Config, dtype: torch.dtype = torch.float64) -> Recognizer:
    """A recognizer in training mode."""
    return build_model(config, NUM_CLASSES).to(dtype).train()


def clip_batch(
    sample_ids: Sequence[int],
    positions: Sequence[int] | None = None,
    *,
    weights: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float64,
) -> ClipBatch:
    """Clips of these samples: noise whose mean tells the class, the number modulo classes."""
    clips = []
    for sample in sample_ids:
        generator = torch.Generator().manual_seed(sample)
        noise = torch.randn(3, NUM_FRAMES, CROP_SIZE, CROP_SIZE, generator=generator)
        clips.append(noise + sample % NUM_CLASSES)
    return ClipBatch(
        torch.stack(clips).to(dtype),
        torch.tensor([sample % NUM_CLASSES for sample in sample_ids]),
        torch.tensor(list(sample_ids)),
        torch.tensor(list(range(len(sample_ids)) if positions is None else positions)),
        torch.tensor([1.0] * len(sample_ids) if weights is None else list(weights), dtype=dtype),
        (),
    )


def torch_step(
    model: Recognizer,
    config: Config,
    *,
    clip_norm: float = 0.0,
    momentum: float = 0.9,
    weight_decay: float = 0.1,
) -> TrainingStep:
    """A training step on plain torch engines, the same SGD for both."""
    optim = replace(
        config.optim,
        name="sgd",
        lr=1.0,
        momentum=momentum,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
    )
    udl = replace(config.udl, upstream_optimizer="shared", upstream_clip_norm=clip_norm)
    return build_step(replace(config, optim=optim, udl=udl), model, torch_engine)


def copied_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as they are now."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest absolute difference over tensors of equal names."""
    assert one.keys() == other.keys()
    return max(
        float((one[name].double() - other[name].double()).abs().max())
        for name in one
        if one[name].numel()
    )
