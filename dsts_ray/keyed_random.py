"""Random draws that depend on a key alone, not on a generator's state.

A draw is named by integers such as (seed, step, role, layer, sample id), so it is the same for any
number of workers, any micro-batch, and after any restart. The generator is SplitMix64 (Steele, Lea
and Flood, OOPSLA 2014) used as a counter-based hash.
"""

import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def key_of(*parts: int | str) -> int:
    """Hash a name made of integers and words into a signed 64-bit key."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniform(key: int, ids: Tensor, num: int) -> Tensor:
    """Draw ``num`` numbers in (0, 1) for every id.

    Args:
        key: Result of :func:`key_of`.
        ids: int64, any shape.
        num: Draws per id, at least 1.

    Returns:
        float64 of shape ``ids.shape + (num,)``.
    """
    counters = torch.arange(num, device=ids.device, dtype=torch.int64)
    rows = _mix(ids * _signed(_GOLDEN) + key)
    bits = _mix(rows.unsqueeze(-1) + (counters + 1) * _signed(_GOLDEN))
    return (_shift_right(bits, 12).double() + 0.5) * 2.0**-52  # exact, so never 0 nor 1


def normal(key: int, ids: Tensor, num: int) -> Tensor:
    """Draw ``num`` standard normal numbers for every id (Box-Muller).

    Float64, ``ids.shape + (num,)``.
    """
    radius, angle = uniform(key, ids, 2 * num).split(num, dim=-1)
    return (-2.0 * radius.log()).sqrt() * (2.0 * math.pi * angle).cos()


def gumbel(key: int, ids: Tensor, num: int) -> Tensor:
    """Draw ``num`` standard Gumbel numbers for every id; float64, ``ids.shape + (num,)``."""
    return -(-uniform(key, ids, num).log()).log()


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (_MASK + 1) if value > _MASK >> 1 else value
