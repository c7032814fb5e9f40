"""Statistics over all workers, differentiable twice.

The sum over workers is its own adjoint: where every worker holds a summand of one scalar, the
gradient of the sum of those scalars flows back through another sum. ``torch.nn.SyncBatchNorm``
refuses the CPU and has no double backward, hence our own.
"""

import torch
from torch import Tensor
from torch import distributed as dist


def num_workers() -> int:
    """Return the number of processes of the default process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def stack_over_workers(local: Tensor) -> Tensor:
    """Stack every worker's tensor along a new first dimension, differentiable any number of times.

    Args:
        local: Any shape, the same on all workers.

    Returns:
        Shape ``(workers, *local.shape)``, equal on all workers.
    """
    if num_workers() == 1:
        return local.unsqueeze(0)
    rows = [torch.zeros_like(local) for _ in range(num_workers())]
    rows[dist.get_rank()] = local
    return _AllReduceSum.apply(torch.stack(rows))


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, local: Tensor) -> Tensor:
        total = local.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return _AllReduceSum.apply(*gradients)
