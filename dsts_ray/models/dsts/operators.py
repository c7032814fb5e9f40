"""Operators: the convolutions of the specialized neurons.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 4-7; one 3x3x3 convolution instead: Table 3,
"DSTS w/o STS".

Differences from the paper:
    - The gates mask the kernels instead of the feature map: S((1 - b) X) = (S (1 - b))(X), so that
      all neurons read one input without copies of it. Half of a batch uses b and half r, which
      gives each operator two sets of kernels.
    - ``groups`` splits the operators' channels, which brings the module to the size the paper
      states; ``groups=1`` is the letter.
    - With fixed halves, kernel entries of the channels an operator never sees stay without effect.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dsts_ray.models.dsts.gates import GateSample

Kernels = tuple[Tensor, ...]
"""One tensor per operator, (neurons, outputs, inputs per group, time, height, width)."""


class KernelSet(NamedTuple):
    """Kernels of all neurons, and who uses them.

    Attributes:
        kernels: Of all operators.
        gates: What each operator's input channels are scaled by, (neurons, channels), or None.
        takes: Which samples use these kernels; None for all.
    """

    kernels: Kernels
    gates: tuple[Tensor, ...] | None
    takes: Bool[Tensor, " batch"] | None

    def whole(self) -> Kernels:
        """Masked kernels of all neurons."""
        return _masked(self.kernels, self.gates)

    def each(self) -> list["KernelSet"]:
        """The same apart for every neuron; only what is asked of these is masked."""
        kernels = zip(*(own.split(1) for own in self.kernels), strict=True)
        if self.gates is None:
            return [KernelSet(own, None, self.takes) for own in kernels]
        gates = zip(*(own.split(1) for own in self.gates), strict=True)
        return [KernelSet(*own, self.takes) for own in zip(kernels, gates, strict=True)]


class FactorizedOperators(nn.Module):
    """Spatial operator S (1x3x3) and temporal operator T (3x1x1) behind channel gates."""

    def __init__(self, *, channels: int, width: int, num_neurons: int, groups: int) -> None:
        """Create the kernels, Kaiming-uniform as torch's convolutions.

        Args:
            channels: N_in.
            width: Outputs of either operator.
            num_neurons: N.
            groups: Divides ``channels`` and ``width``.
        """
        super().__init__()
        self.groups = groups
        self.spatial = _kernels(num_neurons, width, channels // groups, (1, 3, 3))
        self.temporal = _kernels(num_neurons, width, channels // groups, (3, 1, 1))

    def forward(self, gates: GateSample | None) -> tuple[KernelSet, ...]:
        """One set of kernels for the samples of b, another for those of r (Eq. 4-5)."""
        assert gates is not None
        kernels = (self.spatial, self.temporal)
        binary = KernelSet(kernels, (1.0 - gates.binary, gates.binary), gates.takes_binary)
        if gates.real is None or gates.takes_binary is None:
            return (binary,)
        return (binary, KernelSet(kernels, (1.0 - gates.real, gates.real), ~gates.takes_binary))


class VolumeOperator(nn.Module):
    """One 3x3x3 operator, without gates."""

    def __init__(self, *, channels: int, width: int, num_neurons: int, groups: int) -> None:
        """Create the kernels; arguments as in :class:`FactorizedOperators`."""
        super().__init__()
        self.groups = groups
        self.volume = _kernels(num_neurons, width, channels // groups, (3, 3, 3))

    def forward(self, gates: GateSample | None) -> tuple[KernelSet, ...]:
        """Return the one set for all samples."""
        del gates
        return (KernelSet((self.volume,), None, None),)


def masked(
    kernels: Float[Tensor, "neurons outputs per_group time height width"],
    gates: Float[Tensor, "neurons channels"],
) -> Float[Tensor, "neurons outputs per_group time height width"]:
    """Scale every kernel's input channels by its neuron's gates."""
    per_group = kernels.shape[2]
    by_group = rearrange(gates, "n (g i) -> n g 1 i 1 1 1", i=per_group)
    grouped = rearrange(kernels, "n (g o) i t h w -> n g o i t h w", g=by_group.shape[1])
    return (grouped * by_group).flatten(1, 2)


def _masked(kernels: Kernels, gates: tuple[Tensor, ...] | None) -> Kernels:
    if gates is None:
        return kernels
    return tuple(masked(*pair) for pair in zip(kernels, gates, strict=True))


def _kernels(num_neurons: int, outputs: int, inputs: int, size: tuple[int, ...]) -> nn.Parameter:
    kernels = nn.Parameter(torch.empty(num_neurons, outputs, inputs, *size))
    bound = kernels[0, 0].numel() ** -0.5
    nn.init.uniform_(kernels, -bound, bound)
    return kernels
