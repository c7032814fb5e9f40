"""Scoring kernels: how relevant each neuron is to a feature map.

Reference: Li et al., ECCV 2022, section 3.2, Eq. 1-2; kernel shapes in supplement section 6.

Differences from the paper: the scoring convolution is never run. Eq. 2 sums its output over
channels and positions, so v_i = sum_cyx (sum_o m_i[o, c, y, x]) P[c, y, x] exactly, where
P[c, y, x] sums X[c] over the positions that kernel entry (y, x) meets: all of them for 1x1x1, and
all but a border row or column, which zero padding replaces, off the centre of 1x3x3. ``collapsed``
also stores the kernel summed over its N_out rows; ``literal`` stores every row. They are the same
function with other parameters:

    - The collapsed kernel starts with the standard deviation that the sum of N_out Kaiming-uniform
      rows has, sqrt(N_out / (3 fan_in)): 1/sqrt(3) for 1x1x1.
    - Every row receives the gradient of the collapsed kernel, so plain SGD on the rows moves their
      sum N_out times as fast, and Adam, which moves each row by about its learning rate, too.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

ScoringKernel = Literal["1x1x1", "1x3x3", "double"]
ScoringRows = Literal["collapsed", "literal"]


class ScoringKernels(nn.Module):
    """Scoring kernels m of all neurons of a layer."""

    def __init__(
        self, *, channels: int, num_neurons: int, kernel: ScoringKernel, rows: ScoringRows
    ) -> None:
        """Create the kernels.

        Args:
            channels: N_in = N_out.
            num_neurons: N.
            kernel: ``1x1x1``, ``1x3x3``, or ``double`` for 2 N_out outputs of 1x1x1.
            rows: Store the kernel summed over its outputs (``collapsed``) or all of it.
        """
        super().__init__()
        size = 3 if kernel == "1x3x3" else 1
        num_rows = 2 * channels if kernel == "double" else channels
        fan_in = channels * size**2
        if rows == "collapsed":
            initial = torch.randn(num_neurons, channels, size, size)
            initial *= math.sqrt(num_rows / (3 * fan_in))
        else:
            bound = fan_in**-0.5
            initial = torch.empty(num_neurons, num_rows, channels, size, size)
            nn.init.uniform_(initial, -bound, bound)
        self.kernels = nn.Parameter(initial)

    def forward(
        self, features: Float[Tensor, "batch channels time height width"]
    ) -> Float[Tensor, "batch neurons"]:
        """Return the impulses v of Eq. 2 in the kernels' precision."""
        kernels = self.kernels.sum(1) if self.kernels.ndim == 5 else self.kernels
        sums = _position_sums(features.to(kernels.dtype), kernels.shape[-1])
        return (sums.unsqueeze(1) * kernels).sum((2, 3, 4))  # autocast would round a matrix product


def _position_sums(
    features: Float[Tensor, "batch channels time height width"], size: int
) -> Float[Tensor, "batch channels size size"]:
    """Sums of each channel over the positions that every entry of a spatial kernel meets."""
    if size == 1:
        return features.sum((2, 3, 4))[..., None, None]
    frame = features.sum(2)
    columns = torch.stack([rows.sum(-2) for rows in _met(frame, -2)], dim=-2)
    return torch.stack([columns_met.sum(-1) for columns_met in _met(columns, -1)], dim=-1)


def _met(values: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the first, middle and last entry of a zero-padded kernel of 3 meet along ``dim``."""
    length = values.shape[dim]
    return values.narrow(dim, 0, length - 1), values, values.narrow(dim, 1, length - 1)
