"""Batch normalization whose statistics cover all workers and that differentiates twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from dsts_ray.models.synchronize import num_workers, stack_over_workers

_MOMENTUM = 0.1


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over (batch, *) of tensors with any number of trailing dimensions.

    On one worker this is ``torch.nn.functional.batch_norm``; on several, training statistics are
    those of the joined batch when ``synchronize`` is true. Either computes in float32 at least and
    returns the input's type. Names of parameters and buffers are torch's.
    """

    def __init__(self, num_features: int, *, synchronize: bool = True) -> None:
        """Create the layer.

        Args:
            num_features: Channels, dimension 1 of the input.
            synchronize: Take training statistics over all workers.
        """
        super().__init__(num_features, momentum=_MOMENTUM)
        self.synchronize = synchronize

    def _check_input_dim(self, input: Tensor) -> None:
        del input

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (batch, channels, ...)."""
        if not self.training or not self.synchronize or num_workers() == 1:
            return super().forward(input)
        exact = input.to(torch.promote_types(input.dtype, torch.float32))
        rows = rearrange(exact, "b c ... -> c (b ...)")
        count = rows.new_full((1,), rows.shape[1])
        mean, variance, total = joined_moments(count, rows.mean(1)[None], _squares(rows)[None])
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            update_running(
                self.running_mean[None], self.running_var[None], mean, variance, total, _MOMENTUM
            )
        shape = (1, -1) + (1,) * (input.ndim - 2)
        scale = self.weight * (variance[0] + self.eps).rsqrt()
        output = exact * scale.view(shape) + (self.bias - mean[0] * scale).view(shape)
        return output.to(input.dtype)


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


class RunningStatistics(nn.Module):
    """Mean and variance of groups of values, of the joined batch and running."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, groups: int, channels: int, *, momentum: float = _MOMENTUM) -> None:
        """Create running statistics (groups, channels); ``momentum`` is torch's."""
        super().__init__()
        self.momentum = momentum
        self.track_running_stats = True
        self.register_buffer("running_mean", torch.zeros(groups, channels))
        self.register_buffer("running_var", torch.ones(groups, channels))

    def forward(self, count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Join the workers' moments and move the running statistics towards them.

        Arguments as in :func:`joined_moments`; groups without values have their running statistics.

        Returns:
            Mean and biased variance, shape (groups, channels).
        """
        joined_mean, variance, total = joined_moments(count, mean, squares)
        if self.track_running_stats:
            update_running(
                self.running_mean, self.running_var, joined_mean, variance, total, self.momentum
            )
        known = (total > 0).unsqueeze(1)
        return (
            torch.where(known, joined_mean, self.running_mean),
            torch.where(known, variance, self.running_var),
        )


class RunningStandardization(RunningStatistics):
    """Running statistics that serve in training too, with the batch at hand moved in.

    The first batch counts whole and the second by half, down to a share of ``momentum``, so that
    the initial values never count. Gradients flow through the batch's share.
    """

    num_batches: Tensor

    def __init__(self, groups: int, channels: int, *, momentum: float = _MOMENTUM) -> None:
        """Create running statistics; arguments as in :class:`RunningStatistics`."""
        super().__init__(groups, channels, momentum=momentum)
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, count: Tensor, mean: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moved mean and unbiased variance, and keep them.

        Arguments as in :func:`joined_moments`; every group has values.
        """
        joined_mean, variance, total = joined_moments(count, mean, squares)
        rate = (1.0 / (self.num_batches + 1).to(mean)).clamp(min=self.momentum)
        unbiased = variance * (total / (total - 1).clamp(min=1)).unsqueeze(1)
        moved_mean = self.running_mean + rate * (joined_mean - self.running_mean)
        moved_var = self.running_var + rate * (unbiased - self.running_var)
        if self.track_running_stats:
            self.running_mean.copy_(moved_mean.detach())
            self.running_var.copy_(moved_var.detach())
            self.num_batches += 1
        return moved_mean, moved_var


@torch.no_grad()
def update_running(
    running_mean: Tensor,
    running_var: Tensor,
    mean: Tensor,
    variance: Tensor,
    count: Tensor,
    momentum: float,
) -> None:
    """Move running statistics towards a batch's, as torch does (unbiased variance), in place.

    Args:
        running_mean: Shape (groups, channels), as all but ``count``.
        running_var: Running variance.
        mean: Mean of the batch.
        variance: Biased variance of the batch.
        count: Values per group, shape (groups,); groups without any keep their statistics.
        momentum: Share of the way, in [0, 1].
    """
    rate = momentum * (count > 0).to(mean).unsqueeze(1)
    unbiased = variance * (count / (count - 1).clamp(min=1)).unsqueeze(1)
    running_mean.add_(rate * (mean - running_mean))
    running_var.add_(rate * (unbiased - running_var))


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let passes in training mode leave all running statistics bit-exactly as they are."""
    layers = [
        layer for layer in module.modules() if isinstance(layer, BatchNorm | RunningStatistics)
    ]
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
