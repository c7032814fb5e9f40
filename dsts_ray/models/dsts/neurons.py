"""Specialized neurons: operators, normalization and fuse convolution behind one dispatch.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 6-8 and Fig. 3; all neurons averaged: Table 4,
"w/o Synapse Mechanism".

Differences from the paper: those of ``operators.py``, ``neuron_norm.py`` and ``fuse.py``. The
output for a sample is sum_n w_n Z'_n with the one-hot weights of its selection, so ``dense`` and
``sparse`` return the same; their gradients differ in the selection:

    - ``dense`` uses all neurons in training. The gradient with respect to w_n is <dL/dZ', Z'_n>
      for every n: the straight-through Gumbel-softmax of the paper.
    - ``sparse`` computes the activated neuron alone. The gradient with respect to the chosen w_n is
      the same, with respect to all others it is 0: the selection learns from the output it made.

In both, the operators' first-order gradient reaches the activated neuron alone, so the others of
``dense`` are computed where their weights' gradient is, see ``straight_through.py``. At test time
only chosen neurons are computed, unless ``test_dispatch`` says otherwise. ``gathered`` computes the
neuron of a batch of one sample and takes its kernels by index, so that which neuron that is stays a
value of the computation: what ``sparse`` decides in Python, a traced graph cannot.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dsts_ray.models.dsts.convolution import convolve_same
from dsts_ray.models.dsts.dispatch import Dispatch, Part, TestDispatch, collect, deal, parts_of
from dsts_ray.models.dsts.fuse import Fuse
from dsts_ray.models.dsts.gates import GateSample
from dsts_ray.models.dsts.neuron_norm import NeuronNorm, output_moments, routed_moments
from dsts_ray.models.dsts.operators import FactorizedOperators, Kernels, KernelSet, VolumeOperator
from dsts_ray.models.dsts.straight_through import straight_through
from dsts_ray.models.dsts.synapse import Selection

Norm = tuple[Tensor, Tensor]
"""Factor and summand of every neuron and channel."""


class SpecializedNeurons(nn.Module):
    """The N neurons of a layer.

    Attributes:
        dispatch: Neurons computed in training.
        test_dispatch: Neurons computed at test time; ``dense`` is for comparison, ``gathered`` for
            exported graphs of one sample.
    """

    def __init__(
        self,
        operators: FactorizedOperators | VolumeOperator,
        fuse: Fuse,
        *,
        dispatch: Dispatch,
    ) -> None:
        """Join the parts."""
        super().__init__()
        self.operators = operators
        kernels = list(operators.parameters())
        self.num_operators, self.num_neurons = len(kernels), len(kernels[0])
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
        kernel_sets = self.operators(gates)
        if self.training and self.dispatch == "dense" and selection is not None:
            return self._through(features, selection, kernel_sets)
        dispatch = self.dispatch if self.training else self.test_dispatch
        norm = None if self.training else self.operator_norm(None)
        parts = list(parts_of(features, selection, kernel_sets, dispatch))
        combined, _ = self._combine(features, parts, selection, norm)
        return self._merge(combined, parts, selection)

    def _through(
        self, features: Tensor, selection: Selection, kernel_sets: Sequence[KernelSet]
    ) -> Tensor:
        """Z' of the activated neurons, with the gradient of the weights of the others."""
        parts = list(parts_of(features, selection, kernel_sets, "sparse"))
        combined, norm = self._combine(features, parts, selection, None)
        merged = self._merge(combined, parts, selection)
        for own in kernel_sets:
            inputs = (*norm, self.fuse.weight, *own.kernels, *(own.gates or ()))
            merged = straight_through(
                merged, features, inputs, self._output, selection=selection, takes=own.takes
            )
        return merged

    def _output(
        self, features: Tensor, factors: Tensor, summands: Tensor, fuse: Tensor, *rest: Tensor
    ) -> Tensor:
        """Z'_n of one neuron; ``rest`` are its kernels and, where it has any, their gates."""
        kernels, gates = rest[: self.num_operators], rest[self.num_operators :]
        whole = KernelSet(kernels, gates or None, None).whole()
        return self.fuse(_joined(self._fold(features, whole, (factors, summands))), fuse)

    def _combine(
        self,
        features: Tensor,
        parts: Sequence[Part],
        selection: Selection | None,
        norm: Norm | None,
    ) -> tuple[list[Tensor], Norm]:
        """Z of every part by a given normalization or by that of the batch at hand."""
        inputs = deal(features, parts)
        if norm is not None:
            return [
                self._fold(own, part.kernels, (norm[0][part.neurons], norm[1][part.neurons]))
                for own, part in zip(inputs, parts, strict=True)
            ], norm
        dtype = self.operator_norm.weight.dtype  # autocast must not round what follows
        outputs = [
            [convolve(own, kernels, self.groups).to(dtype) for kernels in part.kernels]
            for own, part in zip(inputs, parts, strict=True)
        ]  # Eq. 6-7
        of_batch = self.operator_norm(self._moments(outputs, parts, selection))
        return [
            self._activate(*own, selection, of_batch) for own in zip(outputs, parts, strict=True)
        ], of_batch

    def _activate(
        self, outputs: Sequence[Tensor], part: Part, selection: Selection | None, norm: Norm
    ) -> Tensor:
        """Normalize, rectify, and add the operators' outputs; a single neuron's are weighed."""
        factors, summands = (
            rearrange(
                values[part.neurons], "n (k g o) -> k 1 g n o 1 1 1", k=len(outputs), g=self.groups
            )
            for values in norm
        )
        if part.num_neurons == 1:  # ReLU(w z) = w ReLU(z), and w is 1 in value
            weights = self._weights(part, selection).view(1, -1, *[1] * 6)
            factors, summands = factors * weights, summands * weights
        activated = [
            (output * factor).add_(summand).relu_()  # addcmul's derivatives take a pass more
            for output, factor, summand in zip(outputs, factors, summands, strict=True)
        ]
        return _added(activated)  # Eq. 8

    def _fold(self, inputs: Tensor, kernel_sets: Kernels, norm: Norm) -> Tensor:
        """Operate with kernels that normalize, rectify, and add the operators' outputs."""
        factors, summands = (
            rearrange(values, "n (k o) -> k n o", k=len(kernel_sets)) for values in norm
        )
        activated = [
            convolve(
                inputs, kernels * factor[..., None, None, None, None], self.groups, summand
            ).relu_()
            for kernels, factor, summand in zip(kernel_sets, factors, summands, strict=True)
        ]
        return _added(activated)

    def _moments(
        self,
        outputs: Sequence[Sequence[Tensor]],
        parts: Sequence[Part],
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

    def _merge(
        self, combined: Sequence[Tensor], parts: Sequence[Part], selection: Selection | None
    ) -> Tensor:
        """Z' of the batch."""
        fused = [
            self._weigh(own, part, selection) for own, part in zip(combined, parts, strict=True)
        ]
        if not self.fuse.is_shared:
            fused = [
                self.fuse(own, self.fuse.weight[part.neurons])
                for own, part in zip(fused, parts, strict=True)
            ]
        joined = collect(fused, parts)
        return self.fuse(joined, self.fuse.weight) if self.fuse.is_shared else joined

    def _weights(self, part: Part, selection: Selection | None) -> Tensor:
        """Weights of the part's rows and neurons."""
        if selection is None:
            size = (len(part.rows), part.num_neurons)
            return part.kernels[0].new_full(size, 1 / part.num_neurons)
        return selection.weights[part.rows, part.neurons]

    def _weigh(self, combined: Tensor, part: Part, selection: Selection | None) -> Tensor:
        """Weigh outputs (batch, groups, neurons, ...) by the selection, as Fuse reads them."""
        if part.num_neurons > 1:
            weights = self._weights(part, selection).to(combined)
            if self.fuse.is_shared:
                with torch.autocast(combined.device.type, enabled=False):
                    combined = (weights[:, None, None] @ combined.flatten(3)).unflatten(
                        3, combined.shape[3:]
                    )
            else:
                combined = combined * weights[:, None, :, None, None, None, None]
        return _joined(combined)


def _joined(combined: Tensor) -> Tensor:
    """Z as Fuse reads it, its groups together."""
    return rearrange(combined, "b g n o t h w -> b n (g o) t h w")


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
    output = convolve_same(features, packed, groups, summand)
    return rearrange(output, "b (g n o) t h w -> b g n o t h w", g=groups, n=len(kernels))
