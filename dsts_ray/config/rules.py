"""Rules between fields of the configuration, checked after every field is valid by itself."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence

from dsts_ray.config.schema import Config

_STRIDE, _PATCH_FRAMES = 32, 2
_INSERTIONS = {"tpn": ("neck", "res4"), "swin3d": ("norm",)}
_RESOURCES_OF_RAY = ("CPU", "GPU", "TPU", "memory", "object_store_memory")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PROTOCOL = re.compile(r"[1-9][0-9]{0,2}x[1-9][0-9]{0,2}")


def problems(config: Config) -> list[str]:
    """Return a line for every broken rule: the keys, their values, and what to change."""
    rules = (
        _names,
        _clips,
        _views,
        _demo,
        _augmentation,
        _batches,
        _elastic,
        _backbone,
        _insertion,
        _divisors,
        _dsts,
        _udl,
        _schedule,
        _engine,
        _placement,
    )
    return [problem for rule in rules for problem in rule(config)]


def _names(config: Config) -> Iterator[str]:
    if config.name and not _RUN_NAME.fullmatch(config.name):
        yield (
            f"name = {config.name!r} becomes a folder's name: use up to 100 letters, digits, dots, "
            "dashes and underscores, beginning with a letter or digit"
        )
    if re.search(r"[/:]", config.tracking.model_name):
        yield f"tracking.model_name = {config.tracking.model_name!r} must not contain / or :"


def _clips(config: Config) -> Iterator[str]:
    data = config.data
    if not data.manifest:
        yield (
            "data.manifest is empty: name the Parquet file written by jobs/prepare_data.py index, "
            "or demo"
        )
    if data.crop_size > data.short_side:
        yield (
            f"data.crop_size = {data.crop_size} exceeds data.short_side = {data.short_side}: "
            f"use a crop_size of at most {data.short_side}, or a larger short_side"
        )
    if data.frame_stride > 1 and data.sampling != "dense":
        yield (
            f"data.frame_stride = {data.frame_stride} is for data.sampling=dense; "
            f"{data.sampling} takes its frames from the whole video: use 1, or dense"
        )
    yield from _ascending("data.crop_scale", data.crop_scale)
    yield from _ascending("data.crop_ratio", data.crop_ratio)
    falling = sorted(data.crop_sides, reverse=True)
    if list(data.crop_sides) != falling:
        yield f"data.crop_sides = {list(data.crop_sides)} must fall: use {falling}"


def _views(config: Config) -> Iterator[str]:
    evaluation = config.evaluation
    if not _PROTOCOL.fullmatch(evaluation.protocol):
        yield (
            f"evaluation.protocol = {evaluation.protocol!r} must be num_clips x num_crops, each 1 "
            "to 999: 1x1, 1x3, 2x3, 10x3 or another such pair"
        )
    short_side = evaluation.short_side or config.data.short_side
    crop_size = evaluation.crop_size or config.data.crop_size
    sizes_given = evaluation.short_side or evaluation.crop_size
    if sizes_given and crop_size > short_side:
        yield (
            f"evaluation.crop_size = {crop_size} exceeds evaluation.short_side = {short_side}: "
            f"use a crop_size of at most {short_side}, or a larger short_side (0 takes the data's)"
        )


def _demo(config: Config) -> Iterator[str]:
    demo = config.data.demo
    if demo.min_frames > demo.max_frames:
        yield (
            f"data.demo.min_frames = {demo.min_frames} exceeds data.demo.max_frames = "
            f"{demo.max_frames}: lower the first or raise the second"
        )


def _batches(config: Config) -> Iterator[str]:
    scaling, batch_size = config.scaling, config.train.batch_size
    most = scaling.most_workers
    if batch_size < most:
        key = "max_workers" if scaling.max_workers else "num_workers"
        yield (
            f"train.batch_size = {batch_size} leaves some of scaling.{key} = {most} "
            f"without a clip: use a batch_size of at least {most}"
        )


def _elastic(config: Config) -> Iterator[str]:
    scaling = config.scaling
    fewest, most, cpus = scaling.fewest_workers, scaling.most_workers, scaling.cpus_per_worker
    if not fewest <= scaling.num_workers <= most:
        yield (
            f"scaling.num_workers = {scaling.num_workers} is not between scaling.min_workers = "
            f"{fewest} and scaling.max_workers = {most}: lower the first or raise the last"
        )
    elif fewest < most and any(round(n * cpus, 4) // cpus != n for n in range(1, most + 1)):
        yield (
            f"scaling.cpus_per_worker = {cpus:g} with scaling.min_workers = {fewest} and "
            f"scaling.max_workers = {most}: Ray counts how many workers a node holds by dividing, "
            "which rounding breaks for such a fraction; use a whole number, or 0.5, 0.25, 0.125"
        )


def _augmentation(config: Config) -> Iterator[str]:
    augment = config.augment
    labels = [label for pair in augment.flip_labels for label in pair]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        yield (
            f"augment.flip_labels names class {twice[0]} more than once: a mirrored clip changes "
            "between the two classes of one pair"
        )
    if augment.color_jitter[3] > 0.5:
        yield (
            f"augment.color_jitter = {list(augment.color_jitter)} turns the hue by more than half "
            "a circle: use at most 0.5 as the fourth"
        )


def _backbone(config: Config) -> Iterator[str]:
    """Clips that the backbone can take."""
    name, num_frames = config.model.backbone.name, config.data.num_frames
    crops = {"data": config.data.crop_size, "evaluation": config.evaluation.crop_size}
    for section, crop_size in crops.items():
        if name == "tpn" and 0 < crop_size < _STRIDE:
            yield (
                f"{section}.crop_size = {crop_size} is below the stride of model.backbone.name = "
                f"tpn: use a crop_size of at least {_STRIDE}"
            )
        if name == "swin3d" and crop_size % _STRIDE:
            yield (
                f"{section}.crop_size = {crop_size} is not divisible by {_STRIDE}, the stride of "
                f"model.backbone.name = swin3d: use a multiple of {_STRIDE}, as 224"
            )
    if name == "swin3d" and num_frames % _PATCH_FRAMES:
        yield (
            f"data.num_frames = {num_frames} is not divisible by {_PATCH_FRAMES}, the frames "
            "of a patch of model.backbone.name = swin3d: use an even number"
        )


def _insertion(config: Config) -> Iterator[str]:
    """The insertion point must exist in the backbone."""
    name, insertion = config.model.backbone.name, config.dsts.insertion
    allowed = _INSERTIONS[name]
    if not config.dsts.enabled:
        return
    if insertion not in allowed:
        yield (
            f"dsts.insertion = {insertion} with model.backbone.name = {name}: use "
            f"dsts.insertion = {' or '.join(allowed)}, or another backbone"
        )
    elif insertion == "neck" and config.model.backbone.tpn.geometry == "stock":
        yield (
            "dsts.insertion = neck with model.backbone.tpn.geometry = stock, whose output has one "
            "frame: use geometry = stride1, or dsts.insertion = res4"
        )


def _divisors(config: Config) -> Iterator[str]:
    """Channels that groups and heads must divide."""
    tpn, swin3d = config.model.backbone.tpn, config.model.backbone.swin3d
    neck = ("model.backbone.tpn.neck_channels", tpn.neck_channels)
    wide = ("32 * model.backbone.tpn.width", 32 * tpn.width)
    read_by_dsts = {
        "neck": neck,
        "res4": ("16 * model.backbone.tpn.width", 16 * tpn.width),
        "norm": ("8 * model.backbone.swin3d.channels", 8 * swin3d.channels),
    }[config.dsts.insertion]
    groups_key = "model.backbone.tpn.neck_groups"
    pairs = [(key, channels, groups_key, tpn.neck_groups) for key, channels in (neck, wide)]
    if config.model.backbone.name == "swin3d":
        pairs = [
            (
                f"{2**stage} * model.backbone.swin3d.channels",
                2**stage * swin3d.channels,
                f"model.backbone.swin3d.heads[{stage}]",
                heads,
            )
            for stage, heads in enumerate(swin3d.heads)
        ]
    if config.dsts.enabled:
        key, channels = read_by_dsts
        pairs.append((key, channels, "dsts.groups", config.dsts.groups))
        pairs.append((key, channels, "dsts.fuse_groups", config.dsts.fuse_groups))
    broken = {pair[2]: pair for pair in reversed(pairs) if pair[1] % pair[3]}
    for channels_key, channels, key, groups in broken.values():
        yield (
            f"{channels_key} = {channels} is not divisible by {key} = {groups}: "
            f"use a divisor of {channels} for {key}"
        )


def _dsts(config: Config) -> Iterator[str]:
    dsts = config.dsts
    if not dsts.enabled:
        return
    for key, groups in (("dsts.groups", dsts.groups), ("dsts.fuse_groups", dsts.fuse_groups)):
        if dsts.width % groups:
            yield (
                f"dsts.width = {dsts.width} is not divisible by {key} = {groups}: "
                f"use a multiple of {groups} for dsts.width, or 0 for the features' channels"
            )
    if dsts.synapse == "average" and dsts.utilization_loss_weight:
        yield (
            f"dsts.utilization_loss_weight = {dsts.utilization_loss_weight} with dsts.synapse = "
            "average, which selects no neurons; use dsts.utilization_loss_weight=0"
        )


def _udl(config: Config) -> Iterator[str]:
    dsts, udl = config.dsts, config.udl
    if not (dsts.enabled and udl.enabled):
        return
    if dsts.synapse == "average" and dsts.specialization != "gates":
        yield (
            f"udl.enabled with dsts.synapse = average and dsts.specialization = "
            f"{dsts.specialization}: without scoring kernels and gates no upstream parameter "
            "remains for Eq. 10; use udl.enabled=false"
        )
    if udl.held_out == "previous_features" and udl.held_out_ratio < 1.0:
        yield (
            f"udl.held_out_ratio = {udl.held_out_ratio} with udl.held_out = previous_features, "
            "which costs no backbone pass to save; use udl.held_out_ratio=1.0"
        )
    most = config.with_workers(config.scaling.most_workers)
    micro_batches = most.scaling.num_workers * most.accumulation_steps
    num_clips = math.ceil(udl.held_out_ratio * config.train.batch_size)
    if udl.held_out_ratio < 1.0 and num_clips < micro_batches:
        smallest = micro_batches / config.train.batch_size
        yield (
            f"udl.held_out_ratio = {udl.held_out_ratio} leaves less than a held-out clip for each "
            f"of the {micro_batches} micro-batches of train.batch_size = "
            f"{config.train.batch_size}: use at least {smallest:g}"
        )


def _schedule(config: Config) -> Iterator[str]:
    optim, num_epochs = config.optim, config.train.num_epochs
    yield from _ascending("optim.betas", optim.betas)
    if optim.warmup_epochs >= num_epochs:
        yield (
            f"optim.warmup_epochs = {optim.warmup_epochs:g} takes all of train.num_epochs = "
            f"{num_epochs}: use fewer warmup_epochs, or more num_epochs"
        )
    if optim.schedule == "step":
        yield from _milestones(optim.milestones, optim.warmup_epochs, num_epochs)


def _milestones(
    milestones: tuple[float, ...], warmup_epochs: float, num_epochs: int
) -> Iterator[str]:
    yield from _ascending("optim.milestones", milestones)
    if not milestones:
        yield "optim.milestones is empty with optim.schedule = step: give one, as in [75, 125]"
        return
    if max(milestones) >= num_epochs:
        yield (
            f"optim.milestones = {list(milestones)} are not all below train.num_epochs = "
            f"{num_epochs}: use earlier ones, or more num_epochs"
        )
    if warmup_epochs > min(milestones):
        yield (
            f"optim.warmup_epochs = {warmup_epochs:g} ends after the first of optim.milestones = "
            f"{list(milestones)}: use at most {min(milestones):g}"
        )


def _engine(config: Config) -> Iterator[str]:
    if config.engine.zero_stage == 3:
        yield (
            "engine.zero_stage = 3 partitions the parameters, which Eq. 9 and the checkpoints must "
            "read whole; use zero_stage 0, 1 or 2"
        )


def _placement(config: Config) -> Iterator[str]:
    resource = config.data.decoder_resource
    if resource in _RESOURCES_OF_RAY:
        yield (
            f"data.decoder_resource = {resource} is counted by Ray itself: name a custom resource, "
            "as one started with ray start --resources='{\"decode\": 8}'"
        )


def _ascending(key: str, values: Sequence[float]) -> Iterator[str]:
    if any(later < earlier for earlier, later in itertools.pairwise(values)):
        yield f"{key} = {list(values)} must ascend: use {sorted(values)}"
