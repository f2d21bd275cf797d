"""FunRL: advantages raised a little by the entropy of the reasoning before a call."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from .advantages import group_advantage
from .option_types import Bounds, NonNegative
from .wiring import compares_groups


def entropy_shaped(adv: Tensor, entropy: Tensor, *, lam: float, alpha: float) -> Tensor:
    """A + lam clip(H, -|A| / alpha, |A| / alpha), [N] (Hao et al. 2025, arXiv 2508.05118).

    Args:
        adv: [N].
        entropy: [N] H, mean entropy of the reasoning.
        lam: how much it counts; below alpha the sign of A stays.
        alpha: the bound is |A| / alpha.
    """
    bound = adv.abs() / alpha
    return adv + lam * torch.minimum(torch.maximum(entropy, -bound), bound)


@compares_groups
def thinking_entropy_advantage(
    reward: Tensor,
    group: Tensor,
    old_entropy: Tensor,
    mask: Tensor,
    thinking: Tensor,
    *,
    lam: NonNegative = 0.4,
    alpha: Annotated[float, Bounds(1e-6)] = 2.0,
    eps: NonNegative = 1e-6,
) -> Tensor:
    """GRPO's advantage, shaped by the mean entropy of the tokens within the think tags; without such tokens GRPO's own.

    Args:
        reward: [N].
        group: [N] int64.
        old_entropy: [N, T] of the policy that wrote, at the sampling temperature.
        mask: [N, T] 1 on the policy's tokens.
        thinking: [N, T] 1 on tokens within think tags.
        lam: see `entropy_shaped`.
        alpha: see `entropy_shaped`.
        eps: added to the deviation.

    Returns:
        [N].
    """
    adv = group_advantage(reward, group, center="group", scale="group", eps=eps)
    counted = mask * thinking
    entropy = (old_entropy * counted).sum(1) / counted.sum(1).clamp(min=1)
    return entropy_shaped(adv, entropy.to(adv.dtype), lam=lam, alpha=alpha)
