"""Temporal Pyramid Network on a ResNet.

Reference: Yang et al., Temporal Pyramid Network for Action Recognition, CVPR 2020, with the
released code's cascade: the bottom-up path starts from the features the top-down path has already
changed.

Differences from the paper: none in the ``stock`` geometry, whose output has T = 1. The ``stride1``
geometry keeps stride 1 in space and time (res5, spatial and temporal modulation) and ends in
``neck_channels`` channels, so that its output is the DSTS module's input of the supplement's
section 10 (1024x8x16x16 from 8 frames of 256 pixels); at T = 1 gates mean nothing.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from dsts_ray.models.backbones.base import Backbone
from dsts_ray.models.backbones.output import BackboneOutput, Criterion
from dsts_ray.models.backbones.resnet_slowonly import ResNetSlowOnly
from dsts_ray.models.backbones.resnet_tsm import ResNetTSM
from dsts_ray.models.batch_norm import BatchNorm
from dsts_ray.models.draws import Draws

Geometry = Literal["stride1", "stock"]


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel: tuple[int, int, int],
    *,
    spatial_stride: int = 1,
    groups: int = 1,
    synchronize: bool,
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, batch normalization, ReLU."""
    conv = nn.Conv3d(
        in_channels,
        out_channels,
        kernel,
        (1, spatial_stride, spatial_stride),
        padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2),
        groups=groups,
        bias=False,
    )
    return nn.Sequential(conv, BatchNorm(out_channels, synchronize=synchronize), nn.ReLU())


class LevelFusion(nn.Module):
    """Transform each level and fuse all of them."""

    def __init__(
        self, channels: int, out_channels: int, num_levels: int, *, groups: int, synchronize: bool
    ) -> None:
        """Create the fusion of ``num_levels`` levels of ``channels`` channels."""
        super().__init__()
        self.levels = nn.ModuleList(
            conv_norm_relu(channels, channels, (1, 1, 1), groups=groups, synchronize=synchronize)
            for _ in range(num_levels)
        )
        self.fusion = conv_norm_relu(
            num_levels * channels, out_channels, (1, 1, 1), synchronize=synchronize
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Fuse levels of equal size into (batch, out_channels, time, height, width)."""
        transformed = [
            transform(level) for transform, level in zip(self.levels, levels, strict=True)
        ]
        return self.fusion(torch.cat(transformed, dim=1))


class TPN(nn.Module):
    """The pyramid neck: res4 and res5 to one feature map.

    Attributes:
        out_channels: Of that map.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        *,
        geometry: Geometry,
        groups: int,
        synchronize: bool,
    ) -> None:
        """Create the neck.

        Args:
            in_channels: Channels of res4 and res5.
            channels: Of a level.
            geometry: ``stock``: two levels' channels, T = 1, stride 32; ``stride1``: one level's
                channels, all frames, stride 16.
            groups: Of temporal modulation and level fusion.
            synchronize: Batch statistics over all workers.
        """
        super().__init__()
        wide = in_channels[1]
        self.pools_time = geometry == "stock"
        self.out_channels = 2 * channels if geometry == "stock" else channels
        self.spatial_modulation = conv_norm_relu(
            in_channels[0],
            wide,
            (1, 3, 3),
            spatial_stride=2 if geometry == "stock" else 1,
            synchronize=synchronize,
        )
        self.temporal_modulation = nn.ModuleList(
            nn.Conv3d(wide, channels, (3, 1, 1), padding=(1, 0, 0), groups=groups, bias=False)
            for _ in range(2)
        )
        self.down = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), bias=False)
        self.top_down_fusion = LevelFusion(
            channels, self.out_channels, 2, groups=groups, synchronize=synchronize
        )
        self.bottom_up_fusion = LevelFusion(
            channels, self.out_channels, 2, groups=groups, synchronize=synchronize
        )
        self.pyramid_fusion = conv_norm_relu(
            2 * self.out_channels, self.out_channels, (1, 1, 1), synchronize=synchronize
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, res4: Tensor, res5: Tensor) -> Tensor:
        """Return (batch, channels, time, height, width)."""
        low = self.temporal_modulation[0](self.spatial_modulation(res4))
        high = self.temporal_modulation[1](res5)
        if self.pools_time:
            low, high = low.amax(2, keepdim=True), high.amax(2, keepdim=True)
        low = low + high  # top-down
        top_down = self.top_down_fusion([low, high])
        high = high + self.down(low)  # bottom-up, cascade
        bottom_up = self.bottom_up_fusion([low, high])
        return self.pyramid_fusion(torch.cat([top_down, bottom_up], dim=1))


class AuxiliaryHead(nn.Module):
    """Classifier on res4, used in training alone."""

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, *, synchronize: bool
    ) -> None:
        """Create the head with a hidden layer of ``channels`` channels."""
        super().__init__()
        self.conv = nn.Conv3d(in_channels, channels, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.norm = BatchNorm(channels, synchronize=synchronize)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, res4: Tensor) -> Tensor:
        """Return pooled features (batch, channels)."""
        return self.norm(self.conv(res4)).relu().mean((2, 3, 4))

    def loss(self, pooled: Tensor, criterion: Criterion, draws: Draws) -> Tensor:
        """Classify pooled features under dropout of one half."""
        mask = draws.dropout("auxiliary head", 0.5, pooled.shape[1]).to(pooled)
        return criterion(self.fc(pooled * mask))


class TPNBackbone(Backbone):
    """ResNet with the pyramid neck and, in training, the auxiliary head."""

    def __init__(
        self,
        *,
        num_classes: int,
        trunk: Literal["tsm", "slowonly"],
        depths: tuple[int, ...],
        width: int,
        shift_div: int,
        shift_downsample: bool = False,
        geometry: Geometry,
        side_branch: bool,
        neck_channels: int,
        neck_groups: int,
        auxiliary_loss_weight: float,
        synchronize: bool = True,
    ) -> None:
        """Create the backbone; see ``TPNConfig`` for most arguments' meaning.

        With ``side_branch``, ``features`` are res4 and ``pooled`` is the neck's output, averaged;
        otherwise ``features`` are the neck's output.
        """
        super().__init__()
        last_stride = 1 if geometry == "stride1" else 2
        if trunk == "tsm":
            self.trunk = ResNetTSM(
                depths=depths,
                width=width,
                shift_div=shift_div,
                shift_downsample=shift_downsample,
                last_stride=last_stride,
                synchronize=synchronize,
            )
        else:
            self.trunk = ResNetSlowOnly(
                depths=depths, width=width, last_stride=last_stride, synchronize=synchronize
            )
        in_channels = self.trunk.out_channels
        self.neck = TPN(
            in_channels,
            neck_channels,
            geometry=geometry,
            groups=neck_groups,
            synchronize=synchronize,
        )
        self.auxiliary_loss_weight = auxiliary_loss_weight
        self.auxiliary_head = None
        if auxiliary_loss_weight > 0:
            self.auxiliary_head = AuxiliaryHead(
                in_channels[0], in_channels[1], num_classes, synchronize=synchronize
            )
        self.side_branch = side_branch
        self.feature_channels, self.pooled_channels = self.neck.out_channels, 0
        if side_branch:
            self.feature_channels, self.pooled_channels = in_channels[0], self.neck.out_channels

    def stages(self) -> list[list[nn.Module]]:
        """See :class:`Backbone`; the neck is no stage."""
        return self.trunk.stages()

    def forward(self, clips: Tensor, draws: Draws | None = None) -> BackboneOutput:
        """Map (batch, 3, time, height, width); the geometry and ``side_branch`` say to what."""
        del draws  # the auxiliary loss is given its own
        res4, res5 = self.trunk(clips)
        auxiliary = ()
        if self.training and self.auxiliary_head is not None:
            auxiliary = (partial(self._auxiliary_loss, self.auxiliary_head(res4)),)
        fused = self.neck(res4, res5)
        if self.side_branch:
            return BackboneOutput(res4, fused.mean((2, 3, 4)), auxiliary)
        return BackboneOutput(fused, None, auxiliary)

    def _auxiliary_loss(self, pooled: Tensor, criterion: Criterion, draws: Draws) -> Tensor:
        assert self.auxiliary_head is not None
        return self.auxiliary_loss_weight * self.auxiliary_head.loss(pooled, criterion, draws)
