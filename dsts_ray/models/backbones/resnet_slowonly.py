"""SlowOnly: a 3D ResNet without temporal stride, temporal kernels in its last two stages.

Reference: Feichtenhofer et al., SlowFast Networks for Video Recognition, ICCV 2019 (the slow
pathway alone); He et al., CVPR 2016.

Differences from the papers: none at ``depths=(3, 4, 6, 3), width=64``. Parameter names are
torchvision's, with a temporal dimension in every kernel.
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.backbones.resnet_tsm import EXPANSION
from dsts_ray.models.batch_norm import BatchNorm

_TEMPORAL_KERNELS = (1, 1, 3, 3)


class Bottleneck3d(nn.Module):
    """Kernels t x 1 x 1, 1 x 3 x 3 and 1 x 1 x 1."""

    def __init__(
        self, in_channels: int, width: int, *, temporal: int, stride: int, synchronize: bool
    ) -> None:
        """Create a block from ``in_channels`` to ``4 * width`` channels; ``temporal`` is t."""
        super().__init__()
        out_channels, strides = EXPANSION * width, (1, stride, stride)
        kernel, padding = (temporal, 1, 1), (temporal // 2, 0, 0)
        self.conv1 = nn.Conv3d(in_channels, width, kernel, padding=padding, bias=False)
        self.bn1 = BatchNorm(width, synchronize=synchronize)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), strides, (0, 1, 1), bias=False)
        self.bn2 = BatchNorm(width, synchronize=synchronize)
        self.conv3 = nn.Conv3d(width, out_channels, 1, bias=False)
        self.bn3 = BatchNorm(out_channels, synchronize=synchronize)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, strides, bias=False),
                BatchNorm(out_channels, synchronize=synchronize),
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, channels, time, height, width)."""
        identity = features if self.downsample is None else self.downsample(features)
        hidden = self.bn1(self.conv1(features)).relu()
        hidden = self.bn2(self.conv2(hidden)).relu()
        return (self.bn3(self.conv3(hidden)) + identity).relu()


class ResNetSlowOnly(nn.Module):
    """3D ResNet that keeps every frame.

    Returns its third and fourth stage (res4, res5).
    """

    def __init__(
        self,
        *,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        last_stride: int = 2,
        synchronize: bool = True,
    ) -> None:
        """Create the network; arguments as in ``ResNetTSM``."""
        super().__init__()
        self.conv1 = nn.Conv3d(3, width, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
        self.bn1 = BatchNorm(width, synchronize=synchronize)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        widths = [width * 2**index for index in range(4)]
        channels = [width, *(EXPANSION * stage_width for stage_width in widths)]
        strides = (1, 2, 2, last_stride)
        for index, (in_channels, out_channels) in enumerate(pairwise(channels)):
            blocks = nn.Sequential(
                *(
                    Bottleneck3d(
                        in_channels if block == 0 else out_channels,
                        widths[index],
                        temporal=_TEMPORAL_KERNELS[index],
                        stride=strides[index] if block == 0 else 1,
                        synchronize=synchronize,
                    )
                    for block in range(depths[index])
                )
            )
            self.add_module(f"layer{index + 1}", blocks)
        self.out_channels = (channels[3], channels[4])
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules of the stem and of the four stages."""
        layers = [[self.get_submodule(f"layer{index}")] for index in range(1, 5)]
        return [[self.conv1, self.bn1], *layers]

    def forward(self, clips: Float[Tensor, "batch 3 time height width"]) -> tuple[Tensor, Tensor]:
        """Return res4 (stride 16) and res5, each (batch, channels, time, height, width)."""
        features = self.maxpool(self.bn1(self.conv1(clips)).relu())
        stages = []
        for index in range(4):
            features = self.get_submodule(f"layer{index + 1}")(features)
            stages.append(features)
        return stages[2], stages[3]
