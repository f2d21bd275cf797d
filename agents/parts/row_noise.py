"""Numbers that look random and depend on nothing but a row of input: repeatable noise without a generator."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 2^64 over the golden ratio, as a signed number
FIRST, SECOND = -4658895280553007687, -7723592293110705685
BITS = 32


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift to the right, filling up with zeros."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Scramble 64-bit numbers one to one (Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators", splitmix64)."""
    z = (z ^ _shift(z, 30)) * FIRST
    z = (z ^ _shift(z, 27)) * SECOND
    return z ^ _shift(z, 31)


def row_uniforms(rows: Tensor, count: int) -> Tensor:
    """Return `count` numbers in (0, 1) for each row, float64 [B, count]; equal rows get equal ones.

    The least change of a row gives numbers that have nothing to do with the former ones.

    Args:
        rows: [B, O], read as float32.
        count: how many numbers a row gets.
    """
    bits = (
        (rows.float() + 0.0).contiguous().view(torch.int32).long()
    )  # adding zero makes one of the two zeros the other
    column, number = (torch.arange(1, size + 1, device=rows.device) * GOLDEN for size in (bits.shape[1], count))
    key = _mix(bits ^ _mix(column)).sum(1, keepdim=True)
    return (_shift(_mix(_mix(key) + number), 64 - BITS).double() + 0.5) * 2.0**-BITS
