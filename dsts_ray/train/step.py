"""One optimizer step: the three updates of Eq. 9-11, or one plain backpropagation step."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.profiler import record_function

from dsts_ray.data.batch import ClipBatch
from dsts_ray.models.backbones.output import BackboneOutput, Criterion
from dsts_ray.models.batch_norm import frozen_statistics
from dsts_ray.models.draws import Draws, Role
from dsts_ray.models.recognizer import Recognition, Recognizer
from dsts_ray.models.synchronize import num_workers
from dsts_ray.train.collective import gather_rows, sum_over_workers
from dsts_ray.train.engine import ParameterEngine
from dsts_ray.train.losses import joined_cross_entropy, utilization_loss
from dsts_ray.train.partition import SimulatedUpdate, partition_classifier
from dsts_ray.train.udl import FeatureBatch, Penalty, upstream_gradient


class StepResult(NamedTuple):
    """What one optimizer step reports, over all workers.

    Attributes:
        loss: Classification loss of the joined training batch, before the update.
        metrics: By name, for the tracker.
        num_clips: Clips that counted in the joined training batch.
        num_refused: Clips of it that could not be decoded.
        chosen: Activations of each layer's neurons on this worker, (layers, neurons), or None.
        was_skipped: A gradient was NaN or infinite. Nothing has changed then, but for upstream
            where that was the actual update's: its own step was taken before.
    """

    loss: float
    metrics: dict[str, float]
    num_clips: int
    num_refused: int
    chosen: Tensor | None
    was_skipped: bool = False


@dataclass
class TrainingStep:
    """Runs optimizer steps of a recognizer.

    Attributes:
        model: In training mode.
        downstream: Owns all parameters but upstream; without UDL all of them.
        upstream: Owns upstream with UDL, else None.
        seed: Of the run; names all random draws.
        inner_lr: Alpha of Eq. 9.
        covers: What the simulated update moves.
        first_order: Add Eq. 10's gradient in u-hat.
        reuses_features: Take D_val's features from the previous step's actual update, whatever
            ``held_out`` is given, from the second call on. Those clips were just trained on; the
            ones that are also in this step's batch (two epochs meet) weigh nothing.
        utilization_loss_weight: Of the loss that spreads samples over neurons; with UDL its
            gradient reaches upstream alone.
        label_smoothing: In [0, 1).
        precision: ``bf16`` runs all passes under autocast.
        keeps_statistics: Running statistics are put back where a step is skipped.
    """

    model: Recognizer
    downstream: ParameterEngine
    upstream: ParameterEngine | None
    seed: int = 0
    inner_lr: float = 0.01
    covers: SimulatedUpdate = "operators"
    first_order: bool = False
    reuses_features: bool = False
    utilization_loss_weight: float = 0.0
    label_smoothing: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    keeps_statistics: bool = False
    _frozen_names: tuple[str, ...] = field(init=False)
    _previous: list[tuple[ClipBatch, BackboneOutput]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Sort the classifier's parameters once."""
        self.partition = partition_classifier(self.model.classifier, self.covers)
        self._frozen_names = self.partition.upstream if self.upstream is not None else ()

    def __call__(
        self,
        step: int,
        train: Sequence[ClipBatch],
        held_out: Sequence[ClipBatch],
        *,
        lr: float,
        upstream_lr: float,
    ) -> StepResult:
        """Update the parameters.

        Args:
            step: Optimizer step, from 0.
            train: Micro-batches of D_train on this worker.
            held_out: Micro-batches of D_val; read with UDL alone.
            lr: Downstream learning rate.
            upstream_lr: Upstream learning rate.
        """
        criteria, total = self._criteria(train)
        metrics = {"train/lr": lr}
        statistics = [b.clone() for b in self.model.buffers()] if self.keeps_statistics else []
        outputs: list[BackboneOutput | None] = [None] * len(train)
        if self.upstream is not None:
            if len(train) == 1:
                outputs[0] = self._backbone(step, "train", train[0])
            metrics |= self._meta_update(step, train, held_out, criteria, outputs, upstream_lr)
            if not math.isfinite(metrics["udl/upstream_gradient_norm"]):
                return self._skipped(math.nan, metrics, statistics)
        penalty = self._penalty(len(train)) if self.upstream is None else None
        counts, chosen, trained = [], [], []
        for batch, criterion, output in zip(train, criteria, outputs, strict=True):
            features = output or self._backbone(step, "train", batch)
            loss, recognition = self._actual_update(step, batch, criterion, features, penalty)
            if self.reuses_features and self.upstream is not None:
                trained.append((batch, _detached(features)))
            correct = ((recognition.logits.argmax(1) == batch.labels) * batch.weights).sum()
            counts.append(torch.stack([loss, correct, correct.new_tensor(len(batch.refused))]))
            chosen.append([selection.chosen for selection in recognition.selections])
        self._previous = trained
        metrics["train/gradient_norm"] = self.downstream.step(lr)
        sums = sum_over_workers(torch.stack(counts).double().sum(0)).tolist()
        loss = sums[0] / num_workers()
        metrics |= {"train/loss": loss, "train/top1": sums[1] / max(total, 1.0)}
        if not math.isfinite(metrics["train/gradient_norm"]):
            return self._skipped(loss, metrics, statistics)
        return StepResult(loss, metrics, int(total), int(sums[2]), self._count(chosen))

    def _skipped(
        self, loss: float, metrics: dict[str, float], statistics: Sequence[Tensor]
    ) -> StepResult:
        """Result of a step without an update."""
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), statistics, strict=False):
                buffer.copy_(before)
        self._previous = []
        return StepResult(loss, {**metrics, "train/loss": loss}, 0, 0, None, was_skipped=True)

    def _criteria(self, batches: Sequence[ClipBatch]) -> tuple[list[Criterion], float]:
        """Criteria normalized by the joined batch's weight, and that weight."""
        total = sum_over_workers(torch.stack([batch.weights.sum() for batch in batches]).sum())
        normalizer = total.clamp(min=1.0) / num_workers()
        smoothing = self.label_smoothing
        return [
            partial(
                _criterion,
                labels=b.labels,
                weights=b.weights,
                normalizer=normalizer,
                label_smoothing=smoothing,
            )
            for b in batches
        ], float(total)

    def _draws(self, step: int, role: Role, batch: ClipBatch) -> Draws:
        return Draws(self.seed, step, role, batch.sample_ids, batch.positions)

    def _backbone(self, step: int, role: Role, batch: ClipBatch) -> BackboneOutput:
        with record_function("backbone pass"), self._autocast(batch):
            return self.model.backbone(batch.clips, self._draws(step, role, batch))

    def _meta_update(
        self,
        step: int,
        train: Sequence[ClipBatch],
        held_out: Sequence[ClipBatch],
        criteria: Sequence[Criterion],
        outputs: Sequence[BackboneOutput | None],
        lr: float,
    ) -> dict[str, float]:
        """Eq. 9 and 10; returns metrics."""
        with torch.no_grad(), frozen_statistics(self.model.backbone):
            features = [
                output or self._backbone(step, "train", batch)
                for batch, output in zip(train, outputs, strict=True)
            ]
            held_out, held_out_features = self._held_out(step, train, held_out)
        with self._autocast(train[0]):
            result = upstream_gradient(
                self.model.classifier,
                self.partition,
                train=self._feature_batches(step, "train", train, features, criteria),
                held_out=self._feature_batches(
                    step, "held_out", held_out, held_out_features, self._criteria(held_out)[0]
                ),
                inner_lr=self.inner_lr,
                first_order=self.first_order,
                penalty=self._penalty(len(train)),
            )
        loss = float(sum_over_workers(result.held_out_loss)) / num_workers()
        return {"udl/held_out_loss": loss, **self._update_upstream(result.gradients, lr)}

    def _held_out(
        self, step: int, train: Sequence[ClipBatch], held_out: Sequence[ClipBatch]
    ) -> tuple[Sequence[ClipBatch], list[BackboneOutput]]:
        """D_val and its features."""
        if not self._previous:
            return held_out, [self._backbone(step, "held_out", batch) for batch in held_out]
        seen = gather_rows(torch.cat([batch.sample_ids for batch in train]))
        batches = [
            replace(batch, weights=batch.weights * ~torch.isin(batch.sample_ids, seen))
            for batch, _ in self._previous
        ]
        return batches, [output for _, output in self._previous]

    def _feature_batches(
        self,
        step: int,
        role: Role,
        batches: Sequence[ClipBatch],
        outputs: Sequence[BackboneOutput],
        criteria: Sequence[Criterion],
    ) -> list[FeatureBatch]:
        return [
            FeatureBatch(_detached(output), self._draws(step, role, batch), criterion)
            for batch, output, criterion in zip(batches, outputs, criteria, strict=True)
        ]

    def _penalty(self, num_micro_batches: int) -> Penalty | None:
        """The utilization loss of a micro-batch."""
        dsts = self.model.classifier.dsts
        if dsts is None or not self.utilization_loss_weight:
            return None
        weight, temperature = self.utilization_loss_weight, dsts.variant.temperature
        return lambda recognition: (
            weight
            / num_micro_batches
            * utilization_loss(recognition.selections, temperature=temperature)
        )

    def _update_upstream(self, gradients: Mapping[str, Tensor], lr: float) -> dict[str, float]:
        """Step with gradients computed by hand, through a loss whose gradients they are."""
        assert self.upstream is not None
        parameters = dict(self.model.classifier.named_parameters())
        before = {name: parameters[name].detach().clone() for name in gradients}
        products = [(parameters[name] * gradient).sum() for name, gradient in gradients.items()]
        self.upstream.backward(torch.stack(products).sum())
        norm = self.upstream.step(lr)
        moved = torch.stack(
            [(parameters[name].detach() - value).norm() for name, value in before.items()]
        ).norm()
        size = torch.stack([value.norm() for value in before.values()]).norm()
        return {
            "udl/upstream_gradient_norm": norm,
            "udl/upstream_update_ratio": float(moved / size),
        }

    @record_function("actual update")
    def _actual_update(
        self,
        step: int,
        batch: ClipBatch,
        criterion: Criterion,
        output: BackboneOutput,
        penalty: Penalty | None,
    ) -> tuple[Tensor, Recognition]:
        """Accumulate the gradient of Eq. 11 with u' detached; returns the classification loss."""
        classifier = self.model.classifier
        parameters = dict(classifier.named_parameters())
        frozen = {name: parameters[name].detach() for name in self._frozen_names}
        draws = self._draws(step, "train", batch)
        with self._autocast(batch):
            recognition = functional_call(classifier, frozen, (output, draws))
            loss = criterion(recognition.logits)
            auxiliary = [term(criterion, draws) for term in output.auxiliary_losses]
            if penalty is not None:
                auxiliary.append(penalty(recognition))
        self.downstream.backward(sum(auxiliary, loss))
        return loss.detach(), recognition

    def _autocast(self, batch: ClipBatch) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(batch.clips.device.type, torch.bfloat16)

    def _count(self, chosen: list[list[Tensor]]) -> Tensor | None:
        dsts = self.model.classifier.dsts
        if dsts is None or not dsts.num_selections:
            return None
        layers = [torch.cat(parts) for parts in zip(*chosen, strict=True)]
        return torch.stack([torch.bincount(layer, minlength=dsts.num_neurons) for layer in layers])


def _criterion(
    logits: Tensor, *, labels: Tensor, weights: Tensor, normalizer: Tensor, label_smoothing: float
) -> Tensor:
    return joined_cross_entropy(
        logits, labels, weights, normalizer=normalizer, label_smoothing=label_smoothing
    )


def _detached(output: BackboneOutput) -> BackboneOutput:
    pooled = None if output.pooled is None else output.pooled.detach()
    return BackboneOutput(output.features.detach(), pooled)
