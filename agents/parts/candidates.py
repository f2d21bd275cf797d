"""The on-the-fly policy: sample candidate actions, edit some of them, take the one that the critics value most.

Dong et al. 2025, "EXPO: Stable Reinforcement Learning with Expressive Policies", section 4.
"""

from __future__ import annotations

import torch
from torch import Tensor


def with_edits(base: Tensor, edits: Tensor) -> Tensor:
    """Return the candidates [B, N + n, A]: the base samples, then the first n of them with their edits added.

    The sums are clipped to [-1, 1], so that what is scored is what the environment would be given.

    Args:
        base: [B, N, A] samples of the base policy in [-1, 1].
        edits: [B, n, A] with n <= N.
    """
    number = edits.shape[-2]
    return torch.cat([base, (base[..., :number, :] + edits).clamp_(-1, 1)], -2)


def best_candidate(candidates: Tensor, q: Tensor) -> Tensor:
    """Return the candidate [B, A] whose smallest value among M critics is largest; the first one where several are.

    Args:
        candidates: [B, N, A].
        q: [M, B, N] values of the candidates.
    """
    index = q.amin(0).argmax(-1)
    return candidates[torch.arange(candidates.shape[0], device=candidates.device), index]
