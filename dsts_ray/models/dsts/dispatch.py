"""Which neurons process which samples of a batch, with which kernels."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dsts_ray.models.dsts.operators import KernelSet
from dsts_ray.models.dsts.synapse import Selection

Dispatch = Literal["dense", "sparse"]
TestDispatch = Literal["dense", "sparse", "gathered"]


class Part(NamedTuple):
    """Samples that some neurons process with the same kernels.

    Attributes:
        rows: Of the batch.
        neurons: Which process them.
        kernels: Of these neurons, masked, one tensor per operator.
    """

    rows: Tensor
    neurons: slice | Tensor
    kernels: tuple[Tensor, ...]

    @property
    def num_neurons(self) -> int:
        """Neurons that process each of the samples."""
        return len(self.kernels[0])


def parts_of(
    batch: Tensor,
    selection: Selection | None,
    kernel_sets: Sequence[KernelSet],
    dispatch: TestDispatch,
) -> Iterator[Part]:
    """Split a batch.

    Args:
        batch: Its length and device count.
        selection: None for all neurons, whatever the dispatch.
        kernel_sets: Of the operators.
        dispatch: ``dense`` for all neurons, ``sparse`` for the activated one, ``gathered`` for the
            activated one of a batch of one sample, its kernels taken by index.
    """
    everything = torch.arange(len(batch), device=batch.device)
    for kernels in kernel_sets:
        rows = everything if kernels.takes is None else everything[kernels.takes]
        if selection is None or dispatch == "dense":
            if len(rows):
                yield Part(rows, slice(None), kernels.whole())
        elif dispatch == "gathered":
            gathered = tuple(own[selection.chosen] for own in kernels.whole())
            yield Part(rows, selection.chosen, gathered)
        else:
            chosen, each = selection.chosen[rows], kernels.each()
            for neuron in chosen.unique().tolist():
                one = slice(neuron, neuron + 1)
                yield Part(rows[chosen == neuron], one, each[neuron].whole())


def deal(features: Tensor, parts: Sequence[Part]) -> list[Tensor]:
    """Every part's samples; taken by index, their derivative would take 13 times as long."""
    if len(parts) == 1:
        return [features]
    samples = features.split(1)
    return [torch.cat([samples[row] for row in part.rows.tolist()]) for part in parts]


def collect(dealt: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """Undo :func:`deal`."""
    if len(parts) == 1:
        return dealt[0]
    samples = [sample for own in dealt for sample in own.split(1)]
    order = torch.cat([part.rows for part in parts]).argsort()
    return torch.cat([samples[place] for place in order.tolist()])
