"""Rules between fields of the configuration, checked after every field is valid by itself."""

import itertools
import re
from collections.abc import Iterator, Sequence

from dsts_ray.config.schema import Config

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def problems(config: Config) -> list[str]:
    """Return a line for every broken rule: the keys, their values, and what to change."""
    rules = (_names, _clips, _demo, _batches, _groups, _schedule, _engine)
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
    yield from _ascending("data.crop_scale", data.crop_scale)
    yield from _ascending("data.crop_ratio", data.crop_ratio)


def _demo(config: Config) -> Iterator[str]:
    demo = config.data.demo
    if demo.min_frames > demo.max_frames:
        yield (
            f"data.demo.min_frames = {demo.min_frames} exceeds data.demo.max_frames = "
            f"{demo.max_frames}: lower the first or raise the second"
        )


def _batches(config: Config) -> Iterator[str]:
    num_workers, steps = config.scaling.num_workers, config.train.accumulation_steps
    parts, batch_size = num_workers * steps, config.train.batch_size
    if batch_size % parts:
        lower = batch_size // parts * parts
        choices = f"{lower} or {lower + parts}" if lower else f"{parts}"
        yield (
            f"train.batch_size = {batch_size} is not divisible by scaling.num_workers * "
            f"train.accumulation_steps = {num_workers} * {steps}: use a batch_size of {choices}"
        )


def _groups(config: Config) -> Iterator[str]:
    channels = config.model.backbone.neck_channels
    divisors = {"model.backbone.neck_groups": config.model.backbone.neck_groups}
    if config.dsts.enabled:
        divisors["dsts.groups"] = config.dsts.groups
        divisors["dsts.fuse_groups"] = config.dsts.fuse_groups
    for key, groups in divisors.items():
        if channels % groups:
            yield (
                f"model.backbone.neck_channels = {channels} is not divisible by {key} = {groups}: "
                f"use a divisor of {channels} for {key}"
            )


def _schedule(config: Config) -> Iterator[str]:
    optim = config.optim
    yield from _ascending("optim.betas", optim.betas)
    yield from _ascending("optim.milestones", optim.milestones)
    if optim.schedule != "step":
        return
    if not optim.milestones:
        yield "optim.milestones is empty with optim.schedule = step: give one, as in [0.5, 0.83]"
    elif optim.warmup_ratio > optim.milestones[0]:
        yield (
            f"optim.warmup_ratio = {optim.warmup_ratio} ends after the first of optim.milestones = "
            f"{list(optim.milestones)}: use a warmup_ratio of at most {optim.milestones[0]}"
        )


def _engine(config: Config) -> Iterator[str]:
    if config.engine.zero_stage == 3 and config.dsts.enabled and config.udl.enabled:
        yield (
            "engine.zero_stage = 3 with dsts.enabled and udl.enabled: ZeRO 3 partitions the "
            "parameters that Eq. 9 must read whole; use zero_stage 0, 1 or 2"
        )


def _ascending(key: str, values: Sequence[float]) -> Iterator[str]:
    if any(later < earlier for earlier, later in itertools.pairwise(values)):
        yield f"{key} = {list(values)} must ascend: use {sorted(values)}"
