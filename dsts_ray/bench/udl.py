"""Algorithm 1 written directly on the whole network, and ours on features."""

from functools import partial

import torch
from torch import Tensor

from dsts_ray.bench import algorithm_1
from dsts_ray.bench.compare import Comparison, Way, compare
from dsts_ray.bench.networks import Setting
from dsts_ray.bench.rows import Row
from dsts_ray.build import build_step, torch_engine
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import ClipBatch
from dsts_ray.models.batch_norm import frozen_statistics
from dsts_ray.models.draws import Draws, Role
from dsts_ray.models.recognizer import Recognizer
from dsts_ray.train.losses import joined_cross_entropy
from dsts_ray.train.partition import partition_classifier
from dsts_ray.train.udl import FeatureBatch, upstream_gradient

_LR = 1e-6  # moves nothing far
_PLAIN = ("model.backbone.tpn.auxiliary_loss_weight=0", "model.dropout=0")


def udl(setting: Setting) -> list[Row]:
    """Two bounds: time and memory of an iteration, and the gradient with the same d."""
    rows = []
    for dispatch, bound in (("sparse", 3.0), ("dense", 2.0)):
        config = setting.config(f"dsts.dispatch={dispatch}", *_PLAIN)
        rows += _iteration(setting, config, dispatch, bound)
    rows.append(_same_gradient(setting, setting.config("dsts.dispatch=dense", *_PLAIN)))
    return rows


def _iteration(setting: Setting, config: Config, dispatch: str, bound: float) -> list[Row]:
    """A whole iteration; the direct one's d includes the backbone."""
    model = setting.model(config)
    batches = [setting.batch(config, number) for number in range(2)]
    step = build_step(config, model, torch_engine)
    upstream = {
        f"classifier.{name}"
        for name in partition_classifier(model.classifier, "operators").upstream
    }

    def direct() -> list[Tensor]:
        train, held_out = (_whole(b, r) for b, r in zip(batches, _ROLES, strict=True))
        algorithm_1.iteration(
            model,
            upstream=upstream,
            train=train,
            held_out=held_out,
            inner_lr=config.udl.inner_lr,
            step=partial(_descend, model),
        )
        return []

    def ours() -> list[Tensor]:
        step(0, batches[:1], batches[1:], lr=_LR, upstream_lr=_LR)
        return []

    comparison = compare(
        Way("Algorithm 1 on the whole network, d includes the backbone", direct),
        Way("on features", ours),
        device=setting.device,
        repeats=setting.repeats,
    )
    time, memory = comparison.time_ratio, comparison.memory_ratio
    row = partial(_row, setting, config, comparison)
    return [
        row(f"{dispatch}, time", time, f"at least {bound:g}", time >= bound),
        row(f"{dispatch}, peak memory", memory, "at least 2", memory >= 2),
    ]


def _same_gradient(setting: Setting, config: Config) -> Row:
    """The gradient alone, with d the operators in both."""
    model = setting.model(config)
    partition = partition_classifier(model.classifier, "operators")
    names = {
        kind: [f"classifier.{name}" for name in getattr(partition, kind)]
        for kind in ("upstream", "simulated")
    }
    batches = [setting.batch(config, number) for number in range(2)]

    def direct() -> list[Tensor]:
        train, held_out = (_whole(b, r) for b, r in zip(batches, _ROLES, strict=True))
        with frozen_statistics(model):  # neurons without samples use theirs
            gradient = algorithm_1.upstream_gradient(
                model, **names, train=train, held_out=held_out, inner_lr=config.udl.inner_lr
            )
        return list(gradient.values())

    def ours() -> list[Tensor]:
        with torch.no_grad():
            outputs = [model.backbone(batch.clips) for batch in batches]
        train, held_out = (
            [FeatureBatch(output, *_named(batch, role))]
            for output, batch, role in zip(outputs, batches, _ROLES, strict=True)
        )
        gradient = upstream_gradient(
            model.classifier,
            partition,
            train=train,
            held_out=held_out,
            inner_lr=config.udl.inner_lr,
        )
        return list(gradient.gradients.values())

    comparison = compare(
        Way("Algorithm 1 on the whole network, d the operators", direct),
        Way("on features", ours),
        device=setting.device,
        repeats=setting.repeats,
    )
    ratio, error = comparison.time_ratio, comparison.max_rel_error
    assert error is not None
    holds = ratio >= 1 and error <= 1e-5
    asked = "at least 1, gradients equal to 1e-5"
    return _row(setting, config, comparison, "same d, dense", ratio, asked, holds)


_ROLES: tuple[Role, Role] = ("train", "held_out")


def _row(
    setting: Setting,
    config: Config,
    comparison: Comparison,
    variant: str,
    ratio: float,
    asked: str,
    holds: bool,
) -> Row:
    shapes = setting.shapes(config)
    return Row("udl", variant, setting.device_name, shapes, comparison, ratio, asked, holds)


def _named(batch: ClipBatch, role: Role) -> tuple[Draws, partial[Tensor]]:
    criterion = partial(
        joined_cross_entropy,
        labels=batch.labels,
        weights=batch.weights,
        normalizer=batch.weights.sum(),
        label_smoothing=0.0,
    )
    return Draws(0, 0, role, batch.sample_ids, batch.positions), criterion


def _whole(batch: ClipBatch, role: Role) -> algorithm_1.Batch:
    return algorithm_1.Batch(batch.clips, *_named(batch, role))


@torch.no_grad()
def _descend(model: Recognizer, gradients: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, gradient in gradients.items():
        parameters[name].sub_(_LR * gradient)
