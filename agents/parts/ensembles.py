"""Values of an ensemble of critics, taken low by a few of its members drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor


def random_subset(size: int, number: int, generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    """Draw `number` different members of `size` evenly, [number] int64 (Chen et al. 2021, REDQ, algorithm 1, line 9)."""
    return torch.randperm(size, generator=generator, device=device)[:number]


def subset_min(q: Tensor, members: Tensor) -> Tensor:
    """Return the smallest value [...] among the chosen members.

    Args:
        q: [E, ...] values of all members.
        members: [M] int64 their indices.
    """
    return q.index_select(0, members).amin(0)
