"""Specialized neurons: operators, normalization and fuse convolution behind one dispatch.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 6-8 and Fig. 3; all neurons averaged: Table 4,
"w/o Synapse Mechanism".

Differences from the paper: those of ``operators.py``, ``neuron_norm.py`` and ``fuse.py``. The
output for a sample is sum_n w_n Z'_n with the one-hot weights of its selection, so ``dense`` and
``sparse`` return the same; their gradients differ in the selection:

    - ``dense`` computes all neurons in training. The gradient with respect to w_n is <dL/dZ', Z'_n>
      for every n: the straight-through Gumbel-softmax of the paper.
    - ``sparse`` computes the activated neuron alone. The gradient with respect to the chosen w_n is
      the same, with respect to all others it is 0: the selection learns from the output it made.

In both, the operators' first-order gradient reaches the activated neuron alone. At test time only
chosen neurons are computed, unless ``test_dispatch`` says otherwise. ``gathered`` computes the
neuron of a batch of one sample and takes its kernels by index, so that which neuron that is stays a
value of the computation: what ``sparse`` decides in Python, a traced graph cannot.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dsts_ray.models.dsts.fuse import Fuse
from dsts_ray.models.dsts.gates import GateSample
from dsts_ray.models.dsts.neuron_norm import NeuronNorm, output_moments, routed_moments
from dsts_ray.models.dsts.operators import FactorizedOperators, KernelSet, VolumeOperator
from dsts_ray.models.dsts.synapse import Selection

Dispatch = Literal["dense", "sparse"]
TestDispatch = Literal["dense", "sparse", "gathered"]


class _Part(NamedTuple):
    """Samples that some neurons process with the same kernels."""

    rows: Tensor
    neurons: slice | Tensor
    kernels: tuple[Tensor, ...]


class SpecializedNeurons(nn.Module):
    """The N neurons of a layer.

    Attributes:
        dispatch: Neurons computed in training.
        test_dispatch: Neurons computed at test time; ``dense`` is for comparison, ``gathered`` for
            exported graphs of one sample.
    """

    def __init__(
        self, operators: FactorizedOperators | VolumeOperator, fuse: Fuse, *, dispatch: Dispatch
    ) -> None:
        """Join the parts."""
        super().__init__()
        self.operators = operators
        kernels = list(operators.parameters())
        self.num_neurons = len(kernels[0])
        self.operator_norm = NeuronNorm(
            num_neurons=self.num_neurons, channels=sum(kernel.shape[1] for kernel in kernels)
        )
        self.fuse = fuse
        self.groups = operators.groups
        self.dispatch: Dispatch = dispatch
        self.test_dispatch: TestDispatch = "sparse"

    def forward(
        self,
        features: Float[Tensor, "batch channels time height width"],
        selection: Selection | None,
        gates: GateSample | None,
    ) -> Float[Tensor, "batch channels time height width"]:
        """Return Z' of the neuron each sample activates.

        Args:
            features: X.
            selection: None to average all neurons.
            gates: None without gates.
        """
        parts = list(self._parts(features, selection, self.operators(gates)))
        inputs = _dealt(features, [part.rows for part in parts])
        activate = self._activate if self.training else self._activate_at_test_time
        combined = activate(inputs, parts, selection)
        fused = [
            self._weigh(own, part, selection) for own, part in zip(combined, parts, strict=True)
        ]
        if not self.fuse.is_shared:
            fused = [self.fuse(own, part.neurons) for own, part in zip(fused, parts, strict=True)]
        joined = _collected(fused, [part.rows for part in parts])
        return self.fuse(joined) if self.fuse.is_shared else joined

    def _parts(
        self, features: Tensor, selection: Selection | None, kernel_sets: Sequence[KernelSet]
    ) -> Iterator[_Part]:
        everything = torch.arange(len(features), device=features.device)
        for kernels in kernel_sets:
            rows = everything if kernels.takes is None else everything[kernels.takes]
            if (selection is None or self._computes_all) and len(rows):
                yield _Part(rows, slice(None), kernels.whole())
            elif selection is not None and self._gathers:
                gathered = tuple(own[selection.chosen] for own in kernels.whole())
                yield _Part(rows, selection.chosen, gathered)
            elif selection is not None and not self._computes_all:
                chosen, each = selection.chosen[rows], kernels.each()
                for neuron in chosen.unique().tolist():
                    one = slice(neuron, neuron + 1)
                    yield _Part(rows[chosen == neuron], one, each[neuron].whole())

    @property
    def _computes_all(self) -> bool:
        return (self.dispatch if self.training else self.test_dispatch) == "dense"

    @property
    def _gathers(self) -> bool:
        return not self.training and self.test_dispatch == "gathered"

    def _activate(
        self, inputs: Sequence[Tensor], parts: Sequence[_Part], selection: Selection | None
    ) -> list[Tensor]:
        """Operate, normalize by the batch at hand, rectify, and add the operators' outputs."""
        dtype = self.operator_norm.weight.dtype  # autocast must not round what follows
        outputs = [
            [convolve(own, kernels, self.groups).to(dtype) for kernels in part.kernels]
            for own, part in zip(inputs, parts, strict=True)
        ]  # Eq. 6-7
        scale, shift = self.operator_norm(self._moments(outputs, parts, selection))
        combined = []
        for own, part in zip(outputs, parts, strict=True):
            factors, summands = (
                rearrange(
                    values[part.neurons], "n (k g o) -> k 1 g n o 1 1 1", k=len(own), g=self.groups
                )
                for values in (scale, shift)
            )
            if _computes_one(part):  # ReLU(w z) = w ReLU(z), and w is 1 in value
                weights = self._weights(part, selection).view(1, -1, *[1] * 6)
                factors, summands = factors * weights, summands * weights
            activated = [
                (output * factor).add_(summand).relu_()  # addcmul's derivatives take a pass more
                for output, factor, summand in zip(own, factors, summands, strict=True)
            ]
            combined.append(_added(activated))  # Eq. 8
        return combined

    def _activate_at_test_time(
        self, inputs: Sequence[Tensor], parts: Sequence[_Part], selection: Selection | None
    ) -> list[Tensor]:
        """The same with running statistics, which fold into the kernels."""
        scale, shift = self.operator_norm(None)
        combined = []
        for own, part in zip(inputs, parts, strict=True):
            factors, summands = (
                rearrange(values[part.neurons], "n (k o) -> k n o", k=len(part.kernels))
                for values in (scale, shift)
            )
            activated = [
                convolve(
                    own, kernels * factor[..., None, None, None, None], self.groups, summand
                ).relu_()
                for kernels, factor, summand in zip(part.kernels, factors, summands, strict=True)
            ]
            combined.append(_added(activated))
        return combined

    def _moments(
        self,
        outputs: Sequence[Sequence[Tensor]],
        parts: Sequence[_Part],
        selection: Selection | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        means, variances = map(
            torch.cat, zip(*(output_moments(own) for own in outputs), strict=True)
        )
        routed = means.new_ones(len(means), self.num_neurons)
        if selection is not None:
            chosen = torch.cat([selection.chosen[part.rows] for part in parts])
            routed = F.one_hot(chosen, self.num_neurons).to(means)
        return routed_moments(means, variances, routed, outputs[0][0][0, 0, 0, 0].numel())

    def _weights(self, part: _Part, selection: Selection | None) -> Tensor:
        """Weights of the part's rows and neurons."""
        if selection is None:
            num_computed = len(part.kernels[0])
            return part.kernels[0].new_full((len(part.rows), num_computed), 1 / num_computed)
        return selection.weights[part.rows, part.neurons]

    def _weigh(self, combined: Tensor, part: _Part, selection: Selection | None) -> Tensor:
        """Weigh outputs (batch, groups, neurons, ...) by the selection, as Fuse reads them."""
        if not _computes_one(part):
            weights = self._weights(part, selection).to(combined)
            if self.fuse.is_shared:
                with torch.autocast(combined.device.type, enabled=False):
                    combined = (weights[:, None, None] @ combined.flatten(3)).unflatten(
                        3, combined.shape[3:]
                    )
            else:
                combined = combined * weights[:, None, :, None, None, None, None]
        return rearrange(combined, "b g n o t h w -> b n (g o) t h w")


def _computes_one(part: _Part) -> bool:
    return len(part.kernels[0]) == 1


def _dealt(features: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
    """The given rows of the features; by index, the derivative would take 13 times as long."""
    if len(rows) == 1:
        return [features]
    samples = features.split(1)
    return [torch.cat([samples[row] for row in own.tolist()]) for own in rows]


def _collected(parts: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """Undo ``_dealt``."""
    if len(parts) == 1:
        return parts[0]
    samples = [sample for part in parts for sample in part.split(1)]
    return torch.cat([samples[row] for row in torch.cat(list(rows)).argsort().tolist()])


def _added(activated: Sequence[Tensor]) -> Tensor:
    return activated[0] if len(activated) == 1 else activated[0] + activated[1]


def convolve(
    features: Float[Tensor, "batch channels time height width"],
    kernels: Float[Tensor, "neurons outputs per_group kt kh kw"],
    groups: int,
    bias: Float[Tensor, "neurons outputs"] | None = None,
) -> Float[Tensor, "batch groups neurons per_group_outputs time height width"]:
    """Apply the kernels of several neurons to one input as a single grouped convolution."""
    packed = rearrange(kernels, "n (g o) i t h w -> (g n o) i t h w", g=groups)
    summand = None if bias is None else rearrange(bias, "n (g o) -> (g n o)", g=groups)
    padding = [size // 2 for size in kernels.shape[-3:]]
    output = F.conv3d(features, packed, summand, padding=padding, groups=groups)
    return rearrange(output, "b (g n o) t h w -> b g n o t h w", g=groups, n=len(kernels))
