"""Gates: which channels of a neuron go to the spatial and which to the temporal operator.

Reference: Li et al., ECCV 2022, section 3.2, and Improved SemHash, supplement section 1, Eq. 1-4;
fixed halves: Table 3, "DSTS w/o Gates".

Differences from the paper: none. The initial value of the gates is ours (the paper names none):
standard normal, like the noise, so that neurons start with different shares of channels. Of the
fixed halves, the even channels are spatial and the odd ones temporal, so that every group of a
grouped operator has both.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dsts_ray.models.draws import Draws


class GateSample(NamedTuple):
    """Gate values of one pass; 1 sends a channel to the temporal operator, 0 to the spatial one.

    Attributes:
        binary: b, exactly 0 or 1; its gradient is that of ``real`` in training.
        real: r in [0, 1]; None where all samples use b.
        takes_binary: Which samples use b; the others use r. None where all use b.
    """

    binary: Float[Tensor, "neurons channels"]
    real: Float[Tensor, "neurons channels"] | None
    takes_binary: Bool[Tensor, " batch"] | None


class Gates(nn.Module):
    """Gate parameters g of all neurons of a layer, sampled by Improved SemHash.

    In training, half of the samples use b and the rest r, with one draw of noise per neuron and
    step; r's gradient serves both. At test time there is no noise, and all samples use b.
    """

    def __init__(self, *, channels: int, num_neurons: int) -> None:
        """Create gates for N = ``num_neurons`` neurons of N_in = ``channels`` channels."""
        super().__init__()
        self.gates = nn.Parameter(torch.randn(num_neurons, channels))

    def forward(self, draws: Draws | None, layer: int) -> GateSample:
        """Sample binary and real gates; ``draws`` is None at test time."""
        if draws is None:
            return GateSample((self.gates > 0).to(self.gates), None, None)
        noise = draws.gate_noise(layer, *self.gates.shape).to(self.gates)
        noisy = self.gates + noise  # supplement Eq. 1
        real = (1.2 * noisy.sigmoid() - 0.1).clamp(0.0, 1.0)  # supplement Eq. 2, 4
        hard = (noisy > 0).to(real)  # supplement Eq. 3
        binary = hard + (real - real.detach())
        return GateSample(binary, real, draws.takes_binary_gates(layer))


class FixedGates(nn.Module):
    """The same two halves of the channels for every neuron; nothing to learn."""

    def __init__(self, *, channels: int, num_neurons: int) -> None:
        """Fix the halves."""
        super().__init__()
        halves = (torch.arange(channels) % 2).float().repeat(num_neurons, 1)
        self.register_buffer("halves", halves, persistent=False)

    def forward(self, draws: Draws | None, layer: int) -> GateSample:
        """Return the halves, in training and at test time; arguments as in :class:`Gates`."""
        del draws, layer
        return GateSample(self.get_buffer("halves"), None, None)
