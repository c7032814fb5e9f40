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
chosen neurons are computed, unless ``test_dispatch`` says otherwise.
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


class _Part(NamedTuple):
    """Samples that some neurons process with the same kernels."""

    rows: Tensor
    neurons: slice
    kernels: tuple[Tensor, ...]


class SpecializedNeurons(nn.Module):
    """The N neurons of a layer.

    Attributes:
        dispatch: Neurons computed in training.
        test_dispatch: Neurons computed at test time; ``dense`` is for comparison and for formats
            that cannot route.
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
        self.test_dispatch: Dispatch = "sparse"

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
        order = torch.cat([part.rows for part in parts])
        outputs = [self._convolve(features, part) for part in parts]  # Eq. 6-7
        moments = self._moments(outputs, order, selection) if self.training else None
        scale, shift = self.operator_norm(moments)
        fused = []
        for part, own in zip(parts, outputs, strict=True):
            combined = self._activate(own, scale[part.neurons], shift[part.neurons])
            weighted = self._weigh(combined, part, selection)
            fused.append(weighted if self.fuse.is_shared else self.fuse(weighted, part.neurons))
        joined = torch.cat(fused)[order.argsort()]
        return self.fuse(joined) if self.fuse.is_shared else joined

    def _parts(
        self, features: Tensor, selection: Selection | None, kernel_sets: Sequence[KernelSet]
    ) -> Iterator[_Part]:
        everything = torch.arange(len(features), device=features.device)
        dense = selection is None or self._computes_all
        for kernels, takes in kernel_sets:
            rows = everything if takes is None else everything[takes]
            if dense and len(rows):
                yield _Part(rows, slice(None), kernels)
            elif selection is not None and not dense:
                chosen = selection.chosen[rows]
                for neuron in chosen.unique().tolist():
                    one = slice(neuron, neuron + 1)
                    yield _Part(rows[chosen == neuron], one, tuple(k[one] for k in kernels))

    @property
    def _computes_all(self) -> bool:
        return (self.dispatch if self.training else self.test_dispatch) == "dense"

    def _convolve(self, features: Tensor, part: _Part) -> list[Tensor]:
        own = features if len(part.rows) == len(features) else features[part.rows]
        dtype = self.operator_norm.weight.dtype  # autocast must not round what follows
        return [convolve(own, kernels, self.groups).to(dtype) for kernels in part.kernels]

    def _moments(
        self, outputs: Sequence[Sequence[Tensor]], order: Tensor, selection: Selection | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        means, variances = zip(*map(output_moments, outputs), strict=True)
        routed = torch.ones(len(order), self.num_neurons, device=order.device)
        if selection is not None:
            routed = F.one_hot(selection.chosen[order], self.num_neurons)
        size = outputs[0][0][0, 0, 0, 0].numel()
        return routed_moments(
            torch.cat(means), torch.cat(variances), routed.to(means[0].dtype), size
        )

    def _activate(self, outputs: Sequence[Tensor], scale: Tensor, shift: Tensor) -> Tensor:
        """Normalize, rectify and add the operators' outputs: Eq. 8."""
        factors, summands = (
            rearrange(values, "n (k g o) -> k g n o 1 1 1", k=len(outputs), g=self.groups)
            for values in (scale, shift)
        )
        activated = [
            torch.addcmul(summand, output, factor).relu()
            for output, factor, summand in zip(outputs, factors, summands, strict=True)
        ]
        return activated[0] if len(activated) == 1 else activated[0] + activated[1]

    def _weigh(self, combined: Tensor, part: _Part, selection: Selection | None) -> Tensor:
        """Weigh outputs (batch, groups, neurons, ...) by the selection, as Fuse reads them."""
        by_neuron = rearrange(combined, "b g n o t h w -> b n g o t h w")
        if selection is None:
            weighted = by_neuron / self.num_neurons
        elif self.training or self._computes_all:
            weights = selection.weights[part.rows, part.neurons]
            weighted = by_neuron * weights[..., None, None, None, None, None]
        else:
            weighted = by_neuron
        if self.fuse.is_shared:
            weighted = weighted.sum(1, keepdim=True)
        return weighted.flatten(2, 3)


def convolve(
    features: Float[Tensor, "batch channels time height width"],
    kernels: Float[Tensor, "neurons outputs per_group kt kh kw"],
    groups: int,
) -> Float[Tensor, "batch groups neurons per_group_outputs time height width"]:
    """Apply the kernels of several neurons to one input as a single grouped convolution."""
    packed = rearrange(kernels, "n (g o) i t h w -> (g n o) i t h w", g=groups)
    padding = [size // 2 for size in kernels.shape[-3:]]
    output = F.conv3d(features, packed, padding=padding, groups=groups)
    return rearrange(output, "b (g n o) t h w -> b g n o t h w", g=groups, n=len(kernels))
