"""Fuse convolution: mixes spatial and temporal features into the layer's output.

Reference: Li et al., ECCV 2022, section 3.2 and Fig. 3; other shapes in supplement section 7.

Differences from the paper: Fig. 3 draws the convolution inside the neuron (``per_neuron``); the
default shares it between the neurons of a layer, and it is grouped after a channel shuffle, so that
the module has the size the paper states. ``groups=1`` makes it dense.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.dsts.convolution import convolve_same

FuseKernel = Literal["1x1x1", "1x3x3", "3x1x1"]
_SIZES = {"1x1x1": (1, 1, 1), "1x3x3": (1, 3, 3), "3x1x1": (3, 1, 1)}


class Fuse(nn.Module):
    """One convolution for all neurons, or one per neuron.

    Either is linear, so fusing the neurons' outputs and weighting them equals fusing their weighted
    outputs: the shared convolution runs once, those of the neurons run as one.
    """

    def __init__(
        self,
        *,
        width: int,
        channels: int,
        num_kernels: int,
        groups: int,
        kernel: FuseKernel,
        shuffle_groups: int,
    ) -> None:
        """Create the kernels, Kaiming-uniform as torch's convolutions.

        Args:
            width: Channels of Z.
            channels: Channels of Z'.
            num_kernels: 1 to share the convolution, else N.
            groups: Divides ``width`` and ``channels``.
            kernel: Its shape.
            shuffle_groups: Deal the channels of so many groups in turn; 1 leaves their order.
        """
        super().__init__()
        self.groups = groups
        self.shuffle_groups = shuffle_groups
        self.weight = nn.Parameter(
            torch.empty(num_kernels, channels, width // groups, *_SIZES[kernel])
        )
        bound = self.weight[0, 0].numel() ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    @property
    def is_shared(self) -> bool:
        """One convolution for all neurons."""
        return len(self.weight) == 1

    def forward(
        self,
        features: Float[Tensor, "batch neurons width time height width_px"],
        kernels: Float[Tensor, "neurons channels per_group kt kh kw"],
    ) -> Float[Tensor, "batch channels time height width_px"]:
        """Fuse weighted outputs Z and add them up over neurons.

        Args:
            features: One in dimension 1 where the convolution is shared.
            kernels: Of the neurons in dimension 1.
        """
        shuffled = rearrange(features, "b n (g o) t h w -> b n (o g) t h w", g=self.shuffle_groups)
        packed = rearrange(shuffled, "b n (f i) t h w -> b (f n i) t h w", f=self.groups)
        packed_kernels = rearrange(kernels, "n o i t h w -> o (n i) t h w")
        if kernels[0, 0, 0].numel() == 1:
            return _mix(packed, packed_kernels.flatten(1), self.groups)
        return convolve_same(packed, packed_kernels, self.groups)


def _mix(features: Tensor, matrix: Tensor, groups: int) -> Tensor:
    """A grouped 1x1x1 convolution as matrix products, whose derivatives take half the time."""
    by_group = rearrange(features, "b (f i) t h w -> b f i (t h w)", f=groups)
    mixed = rearrange(matrix, "(f o) i -> f o i", f=groups) @ by_group
    return mixed.flatten(1, 2).unflatten(2, features.shape[2:])
