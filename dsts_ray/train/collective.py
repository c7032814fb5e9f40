"""Plain collectives over the training workers; each is the identity on one worker."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dsts_ray.models.synchronize import num_workers

Item = TypeVar("Item")


def sum_over_workers(values: Tensor) -> Tensor:
    """Return the sum of every worker's tensor of the same shape."""
    if num_workers() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def largest_over_workers(value: int, device: torch.device) -> int:
    """Return the largest of every worker's number."""
    if num_workers() == 1:
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def mean_over_workers(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Average a list of tensors, which may be empty, over workers in one call."""
    if num_workers() == 1 or not tensors:
        return [tensor.detach() for tensor in tensors]
    flat = (
        sum_over_workers(torch.cat([tensor.detach().flatten() for tensor in tensors]))
        / num_workers()
    )
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Average running statistics, which differ between workers unless they are synchronized."""
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    for buffer, mean in zip(buffers, mean_over_workers(buffers), strict=True):
        buffer.copy_(mean)


def gather_objects(own: Item) -> list[Item]:
    """Collect every worker's object in the order of ranks, pickled on the way."""
    if num_workers() == 1:
        return [own]
    items: list[Any] = [None] * num_workers()
    dist.all_gather_object(items, own)
    return items


def gather_rows(rows: Tensor) -> Tensor:
    """Join the rows of all workers, which may differ in number, in the order of ranks."""
    if num_workers() == 1:
        return rows
    counts = torch.zeros(num_workers(), dtype=torch.int64, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    sizes = sum_over_workers(counts).tolist()
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
