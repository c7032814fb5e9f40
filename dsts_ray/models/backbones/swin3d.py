"""Video Swin Transformer.

Reference: Liu et al., Video Swin Transformer, CVPR 2022, through torchvision's
``SwinTransformer3d``; stochastic depth: Huang et al., ECCV 2016.

Differences from torchvision:
    - The mask of stochastic depth is named by step and sample, as all random draws here.
    - A window that a small clip cuts in height or width reads the relative positions it has;
      torchvision (and the released code) index the first rows of the whole window's table, which is
      right only for a cut in time.
    - The index of relative positions is no part of the state.

Parameter names are torchvision's.
"""

from collections.abc import Callable
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d, SwinTransformer3d

from dsts_ray.models.backbones.base import Backbone
from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.draws import Draws

PATCH = (2, 4, 4)
"""Frames and pixels of a patch."""


class WindowAttention(ShiftedWindowAttention3d):
    """Attention within windows, with the relative positions of the window at hand."""

    relative_position_bias_table: Tensor

    def define_relative_position_index(self) -> None:
        """Compute the index without making it a part of the state."""
        super().define_relative_position_index()
        index = self.get_buffer("relative_position_index")
        self.register_buffer("relative_position_index", index, persistent=False)

    def get_relative_position_bias(self, window_size: list[int]) -> Tensor:
        """Return (1, heads, tokens, tokens) for a window that may be cut in any direction."""
        time, height, width = window_size
        index = self.get_buffer("relative_position_index").view(*self.window_size * 2)
        index = index[:time, :height, :width, :time, :height, :width]
        bias = self.relative_position_bias_table[index.flatten()]
        return rearrange(bias, "(i j) h -> 1 h i j", i=time * height * width)


class Block(SwinTransformerBlock):
    """Attention and multilayer perceptron, each with a residual connection that may be dropped.

    Attributes:
        name: Names the block's random draws.
        drop_probability: Of each of the two branches, per sample.
    """

    name: str = ""
    drop_probability: float = 0.0

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window_size: list[int],
        shift_size: list[int],
        norm_layer: Callable[..., nn.Module],
        **unused: object,
    ) -> None:
        """Create torchvision's block around :class:`WindowAttention`; it drops nothing itself."""
        del unused
        super().__init__(
            dim,
            num_heads,
            window_size,
            shift_size,
            norm_layer=norm_layer,
            attn_layer=WindowAttention,
        )

    def forward(self, x: Tensor, draws: Draws | None = None) -> Tensor:
        """Map tokens (batch, time, height, width, channels)."""
        kept = x.new_ones(len(x), 2)
        if draws is not None and self.training and self.drop_probability > 0:
            kept = draws.dropout(self.name, self.drop_probability, 2).to(x)
        for_attention, for_hidden = kept.view(-1, 2, 1, 1, 1, 1).unbind(1)
        x = x + for_attention * self.attn(self.norm1(x))
        return x + for_hidden * self.mlp(self.norm2(x))


class VideoSwin(Backbone):
    """Video Swin Transformer up to its last normalization."""

    def __init__(
        self,
        *,
        channels: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: tuple[int, int, int],
        stochastic_depth: float,
        activation_checkpointing: bool,
    ) -> None:
        """Create the backbone; see ``Swin3DConfig`` for the arguments' meaning."""
        super().__init__()
        network = SwinTransformer3d(
            patch_size=list(PATCH),
            embed_dim=channels,
            depths=list(depths),
            num_heads=list(heads),
            window_size=list(window),
            stochastic_depth_prob=0.0,
            num_classes=1,
            block=Block,
        )
        self.patch_embed, self.features, self.norm = (
            network.patch_embed,
            network.features,
            network.norm,
        )
        blocks = [module for module in self.features.modules() if isinstance(module, Block)]
        probabilities = torch.linspace(0.0, stochastic_depth, len(blocks), device="cpu").tolist()
        for index, (block, probability) in enumerate(zip(blocks, probabilities, strict=True)):
            block.name, block.drop_probability = f"block {index}", probability
        self.activation_checkpointing = activation_checkpointing
        self.feature_channels, self.pooled_channels = network.num_features, 0

    def stages(self) -> list[list[nn.Module]]:
        """See :class:`Backbone`; patch merging belongs to the stage before it."""
        parts = list(self.features)
        return [[self.patch_embed], *(parts[i : i + 2] for i in range(0, len(parts), 2))]

    def forward(self, clips: Tensor, draws: Draws | None = None) -> BackboneOutput:
        """Map (batch, 3, time, height, width) to features at stride 2 in time and 32 in space."""
        x = self.patch_embed(clips)
        for part in self.features:
            if isinstance(part, PatchMerging):
                x = part(x)
                continue
            for block in cast(nn.Sequential, part):
                x = self._run(block, x, draws)
        return BackboneOutput(rearrange(self.norm(x), "b t h w c -> b c t h w"))

    def _run(self, block: nn.Module, x: Tensor, draws: Draws | None) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, draws, use_reentrant=False, preserve_rng_state=False)
        return block(x, draws)
