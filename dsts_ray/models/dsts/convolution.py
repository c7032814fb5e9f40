"""Grouped convolution that keeps the size, in the form whose derivatives cost least."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def convolve_same(
    features: Float[Tensor, "batch inputs time height width"],
    kernels: Float[Tensor, "outputs per_group kt kh kw"],
    groups: int,
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "batch outputs time height width"]:
    """Convolve with zeros around; kernel sizes are odd.

    A temporal kernel (k x 1 x 1) reads positions as one dimension: on a CPU, torch's convolution of
    two dimensions takes a third to a quarter of the time of that of three.
    """
    padding = [size // 2 for size in kernels.shape[2:]]
    if kernels.shape[3:] != (1, 1):
        return F.conv3d(features, kernels, bias, padding=padding, groups=groups)
    rows = F.conv2d(
        features.flatten(3), kernels.flatten(3), bias, padding=padding[:2], groups=groups
    )
    return rows.unflatten(3, features.shape[3:])
