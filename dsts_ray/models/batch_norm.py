"""Batch normalization whose statistics cover all workers and that differentiates twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from dsts_ray.models.synchronize import num_workers, stack_over_workers


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over (batch, *) of tensors with any number of trailing dimensions.

    On one worker this is ``torch.nn.functional.batch_norm``; on several, training statistics are
    those of the joined batch when ``synchronize`` is true. Names of parameters and buffers are
    torch's.
    """

    def __init__(self, num_features: int, *, synchronize: bool = True) -> None:
        """Create the layer.

        Args:
            num_features: Channels, dimension 1 of the input.
            synchronize: Take training statistics over all workers.
        """
        super().__init__(num_features)
        self.synchronize = synchronize

    def _check_input_dim(self, input: Tensor) -> None:
        del input

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (batch, channels, ...)."""
        if not self.training or not self.synchronize or num_workers() == 1:
            return super().forward(input)
        rows = rearrange(input, "b c ... -> c (b ...)")
        count = rows.new_full((1,), rows.shape[1])
        mean, variance, total = joined_moments(count, rows.mean(1)[None], _squares(rows)[None])
        if self.track_running_stats:
            self.num_batches_tracked += 1
            update_running(self, mean, variance, total)
        shape = (1, -1) + (1,) * (input.ndim - 2)
        scale = self.weight * (variance[0] + self.eps).rsqrt()
        return input * scale.view(shape) + (self.bias - mean[0] * scale).view(shape)


def joined_moments(count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Join every worker's moments of the same groups into those of all samples together.

    Args:
        count: Values per group on this worker, shape (groups,).
        mean: Mean per group and channel, shape (groups, channels); any finite value where ``count``
            is 0.
        squares: Sum of squared deviations from that mean, shape (groups, channels).

    Returns:
        Mean and biased variance, shape (groups, channels), and the joined count, shape (groups,).
        Where the joined count is 0, mean and variance are 0.
    """
    counts, means, all_squares = _unpack(
        stack_over_workers(torch.cat([count.unsqueeze(1), mean, squares], dim=1)), mean.shape[1]
    )
    total = counts.sum(0)
    share = counts / total.clamp(min=1)
    joined_mean = (share * means).sum(0)
    between = (share * (means - joined_mean) ** 2).sum(0)
    return joined_mean, all_squares.sum(0) / total.clamp(min=1) + between, total.squeeze(1)


@torch.no_grad()
def update_running(norm: nn.Module, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move a layer's running statistics towards a batch's, as torch does (unbiased variance).

    Args:
        norm: Layer with ``running_mean``, ``running_var`` and ``momentum``.
        mean: Shape (groups, channels).
        variance: Biased variance, shape (groups, channels).
        count: Values per group, shape (groups,); groups without any keep their statistics.
    """
    rate = torch.where(count > 0, norm.momentum, 0.0).unsqueeze(1)
    unbiased = variance * (count / (count - 1).clamp(min=1)).unsqueeze(1)
    for running, batch in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.view_as(batch).add_(rate * (batch - running.view_as(batch)))


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let passes in training mode leave all running statistics bit-exactly as they are."""
    layers = [layer for layer in module.modules() if getattr(layer, "track_running_stats", False)]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _squares(rows: Tensor) -> Tensor:
    return ((rows - rows.mean(1, keepdim=True)) ** 2).sum(1)


def _unpack(packed: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    count, mean, squares = packed.split([1, channels, channels], dim=-1)
    return count, mean, squares
