"""ResNet with temporal shift modules.

Reference: Lin, Gan and Han, TSM: Temporal Shift Module for Efficient Video Understanding, ICCV
2019; He et al., Deep Residual Learning, CVPR 2016 (stride in the 3x3 convolution, as torchvision
does).

Differences from the papers: none at ``depths=(3, 4, 6, 3), width=64``. Parameter names are
torchvision's.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dsts_ray.models.batch_norm import BatchNorm

EXPANSION = 4


def shift_in_time(features: Tensor, *, num_frames: int, shift_div: int) -> Tensor:
    """Move a share of the channels by one frame, zero padded.

    Channels [0, C/shift_div) take the next frame's values, the following C/shift_div the previous
    frame's.

    Args:
        features: (batch * time, channels, height, width).
        num_frames: Time.
        shift_div: Divides the channels.
    """
    clips = rearrange(features, "(b t) c h w -> b t c h w", t=num_frames)
    share = clips.shape[2] // shift_div
    shifted = torch.zeros_like(clips)
    shifted[:, :-1, :share] = clips[:, 1:, :share]
    shifted[:, 1:, share : 2 * share] = clips[:, :-1, share : 2 * share]
    shifted[:, :, 2 * share :] = clips[:, :, 2 * share :]
    return rearrange(shifted, "b t c h w -> (b t) c h w")


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shift in time before the first ("blockres")."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        shift_div: int,
        shift_downsample: bool,
        synchronize: bool,
    ) -> None:
        """Create a block from ``in_channels`` to ``4 * width`` channels."""
        super().__init__()
        self.shift_downsample = shift_downsample
        out_channels = EXPANSION * width
        self.shift_div = shift_div
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = BatchNorm(width, synchronize=synchronize)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm(width, synchronize=synchronize)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = BatchNorm(out_channels, synchronize=synchronize)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                BatchNorm(out_channels, synchronize=synchronize),
            )

    def forward(self, features: Tensor, num_frames: int) -> Tensor:
        """Map (batch * time, channels, height, width)."""
        shifted = shift_in_time(features, num_frames=num_frames, shift_div=self.shift_div)
        identity = features
        if self.downsample is not None:
            identity = self.downsample(shifted if self.shift_downsample else features)
        hidden = self.bn1(self.conv1(shifted)).relu()
        hidden = self.bn2(self.conv2(hidden)).relu()
        return (self.bn3(self.conv3(hidden)) + identity).relu()


class ResNetTSM(nn.Module):
    """2D ResNet over frames with shifts in time.

    Returns its third and fourth stage (res4, res5).
    """

    def __init__(
        self,
        *,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        shift_div: int = 8,
        shift_downsample: bool = False,
        last_stride: int = 2,
        synchronize: bool = True,
    ) -> None:
        """Create the network.

        Args:
            depths: Blocks of the four stages.
            width: Channels of the stem.
            shift_div: See :func:`shift_in_time`.
            shift_downsample: Downsampling shortcuts read shifted features too, as in the released
                TPN; TSM shifts the residual branch alone.
            last_stride: Spatial stride of the fourth stage, 2 in the standard network.
            synchronize: Batch statistics over all workers.
        """
        super().__init__()
        self.shift_downsample = shift_downsample
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm(width, synchronize=synchronize)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for index, (depth, stride) in enumerate(zip(depths, (1, 2, 2, last_stride), strict=True)):
            blocks = []
            for block in range(depth):
                blocks.append(
                    Bottleneck(
                        channels,
                        width * 2**index,
                        stride=stride if block == 0 else 1,
                        shift_div=shift_div,
                        shift_downsample=shift_downsample,
                        synchronize=synchronize,
                    )
                )
                channels = EXPANSION * width * 2**index
            self.add_module(f"layer{index + 1}", nn.ModuleList(blocks))
        self.out_channels = (channels // 2, channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[list[nn.Module]]:
        """Return the modules of the stem and of the four stages."""
        layers = [[self.get_submodule(f"layer{index}")] for index in range(1, 5)]
        return [[self.conv1, self.bn1], *layers]

    def forward(self, clips: Float[Tensor, "batch 3 time height width"]) -> tuple[Tensor, Tensor]:
        """Return res4 (stride 16) and res5, each (batch, channels, time, height, width)."""
        num_frames = clips.shape[2]
        features = self.maxpool(
            self.bn1(self.conv1(rearrange(clips, "b c t h w -> (b t) c h w"))).relu()
        )
        stages = []
        for index in range(4):
            for block in self.get_submodule(f"layer{index + 1}").children():
                features = block(features, num_frames)
            stages.append(rearrange(features, "(b t) c h w -> b c t h w", t=num_frames))
        return stages[2], stages[3]
