"""Training on several processes: every one takes its share of a batch, and gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process and how many there are; 0 and 1 without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by the sum over all processes, in one message."""
    if rank_and_size()[1] == 1 or not parameters:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))
