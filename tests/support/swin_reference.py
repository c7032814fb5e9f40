"""Video Swin with explicit loops over windows, for comparison; shares no code with the package.

Reference: Liu et al., Video Swin Transformer, CVPR 2022. Parameter names are torchvision's. Every
pair of tokens of a window looks its bias up by its offset; after a cyclic shift two tokens see each
other if they were neighbours in the clip.
"""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Values = Mapping[str, Tensor]
Size = tuple[int, int, int]


def video_swin_features(
    values: Values,
    clips: Tensor,
    *,
    depths: tuple[int, ...],
    heads: tuple[int, ...],
    window: Size,
) -> Tensor:
    """Features (batch, channels, time, height, width) after the last normalization."""
    weight, bias = values["patch_embed.proj.weight"], values["patch_embed.proj.bias"]
    x = F.conv3d(clips, weight, bias, stride=weight.shape[2:]).permute(0, 2, 3, 4, 1)
    x = normalized(values, "patch_embed.norm", x)
    for stage, depth in enumerate(depths):
        for number in range(depth):
            name = f"features.{2 * stage}.{number}"
            attended = normalized(values, f"{name}.norm1", x)
            x = x + attention(
                values, f"{name}.attn", attended, heads[stage], window, shifted=number % 2 == 1
            )
            hidden = linear(values, f"{name}.mlp.0", normalized(values, f"{name}.norm2", x))
            x = x + linear(values, f"{name}.mlp.3", F.gelu(hidden))
        if stage + 1 < len(depths):
            x = merged(values, f"features.{2 * stage + 1}", x)
    return normalized(values, "norm", x).permute(0, 4, 1, 2, 3)


def normalized(values: Values, name: str, x: Tensor) -> Tensor:
    """Layer normalization."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * values[f"{name}.weight"] + values[f"{name}.bias"]


def linear(values: Values, name: str, x: Tensor) -> Tensor:
    """Linear layer, with a bias if there is one."""
    y = x @ values[f"{name}.weight"].T
    return y + values[f"{name}.bias"] if f"{name}.bias" in values else y


def merged(values: Values, name: str, x: Tensor) -> Tensor:
    """Concatenate 2x2 neighbours: (0,0), (1,0), (0,1), (1,1) in (row, column)."""
    x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
    parts = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return linear(
        values, f"{name}.reduction", normalized(values, f"{name}.norm", torch.cat(parts, -1))
    )


def attention(
    values: Values, name: str, x: Tensor, num_heads: int, window: Size, *, shifted: bool
) -> Tensor:
    """Attention within windows of one block."""
    size = tuple(x.shape[1:4])
    actual = tuple(min(w, s) for w, s in zip(window, size, strict=True))
    shift = tuple(w // 2 if shifted and s > w else 0 for w, s in zip(window, size, strict=True))
    padded = tuple(-(-s // w) * w for s, w in zip(size, actual, strict=True))
    grid = F.pad(x, (0, 0, 0, padded[2] - size[2], 0, padded[1] - size[1], 0, padded[0] - size[0]))
    output = torch.zeros_like(grid)
    starts = itertools.product(*(range(0, p, w) for p, w in zip(padded, actual, strict=True)))
    for start in starts:
        positions = list(itertools.product(*(range(w) for w in actual)))
        places = [
            tuple(
                (s + p + h) % n for s, p, h, n in zip(start, position, shift, padded, strict=True)
            )
            for position in positions
        ]
        wrapped = [
            tuple(s + p + h >= n for s, p, h, n in zip(start, position, shift, padded, strict=True))
            for position in positions
        ]
        rows = tuple(torch.tensor(axis) for axis in zip(*places, strict=True))
        tokens = grid[:, rows[0], rows[1], rows[2]]
        output[:, rows[0], rows[1], rows[2]] = one_window(
            values, name, tokens, positions, wrapped, num_heads, window
        )
    return output[:, : size[0], : size[1], : size[2]]


def one_window(
    values: Values,
    name: str,
    tokens: Tensor,
    positions: Sequence[tuple[int, ...]],
    wrapped: Sequence[tuple[bool, ...]],
    num_heads: int,
    window: Size,
) -> Tensor:
    """Attention of (batch, tokens, channels) that may see each other if equally wrapped."""
    table = values[f"{name}.relative_position_bias_table"]
    where = torch.tensor(positions)
    offsets = where[:, None] - where[None, :] + torch.tensor(window) - 1
    rows = (offsets[..., 0] * (2 * window[1] - 1) + offsets[..., 1]) * (2 * window[2] - 1)
    bias = table[rows + offsets[..., 2]]
    sides = torch.tensor(wrapped)
    apart = (sides[:, None] != sides[None, :]).any(-1)
    query, key, value = linear(values, f"{name}.qkv", tokens).chunk(3, -1)
    width = tokens.shape[-1] // num_heads
    outputs = []
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / width**0.5 + bias[..., head]
        outputs.append((scores - 100.0 * apart).softmax(-1) @ value[..., part])
    return linear(values, f"{name}.proj", torch.cat(outputs, -1))
