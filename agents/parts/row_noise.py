"""Numbers that look random and depend on nothing but a row of input: repeatable noise without a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.envs.random import GOLDEN, mix, shift

BITS = 32


def row_uniforms(rows: Tensor, count: int) -> Tensor:
    """Return `count` numbers in (0, 1) for each row, float64 [B, count]; equal rows get equal ones.

    The least change of a row gives numbers that have nothing to do with the former ones.

    Args:
        rows: [B, O], read as float32.
        count: how many numbers a row gets.
    """
    # adding zero makes one of the two zeros the other
    bits = (rows.float() + 0.0).contiguous().view(torch.int32).long()
    column, number = (torch.arange(1, size + 1, device=rows.device) * GOLDEN for size in (bits.shape[1], count))
    key = mix(bits ^ mix(column)).sum(1, keepdim=True)
    return (shift(mix(mix(key) + number), 64 - BITS).double() + 0.5) * 2.0**-BITS
