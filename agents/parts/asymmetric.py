"""APO: right and wrong answers treated differently, by the length of wrong ones and the difficulty of the prompt."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from .advantages import group_advantage, group_stats
from .divergences import kl_token
from .option_types import Bounds
from .wiring import compares_groups

Base = Annotated[float, Bounds(1.0)]


def too_long_factor(length: Tensor, correct: Tensor, group: Tensor, base: float) -> Tensor:
    """STCR: 1 + (1 - b^-x) for wrong answers x > 0 tokens longer than the mean of their group's right ones, else 1; [N].

    Args:
        length: [N] tokens that the policy wrote.
        correct: [N] 1 where the answer is right.
        group: [N] int64.
        base: b, at least 1; 1 is the plain advantage.
    """
    right, size = (correct == 1).to(correct.dtype), length.to(correct.dtype)
    zeros = right.new_zeros(int(group.max()) + 1)
    count = zeros.index_add(0, group, right)[group]
    mean = zeros.index_add(0, group, right * size)[group] / count.clamp(min=1)
    excess = torch.where(count > 0, size - mean, torch.zeros_like(mean)).clamp(min=0) * (1 - right)
    return 1 + (1 - base**-excess)


@compares_groups
def stcr_advantage(
    reward: Tensor, length: Tensor, correct: Tensor, group: Tensor, *, base: Base = 1.00001, eps: float = 1e-9
) -> Tensor:
    """GRPO's advantage times `too_long_factor` (Hong et al. 2025, APO, arXiv 2506.21655, section 3.3).

    Args:
        reward: [N].
        length: [N] tokens that the policy wrote.
        correct: [N] 1 where the answer is right.
        group: [N] int64.
        base: of the factor; the authors' 1.00001 changes less than 4 % over 4,000 tokens, short texts want 1.05.
        eps: added to the deviation.

    Returns:
        [N].
    """
    advantage = group_advantage(reward, group, center="group", scale="group", eps=eps)
    return advantage * too_long_factor(length, correct, group, base)


def difficulty_weight(difficulty: Tensor) -> Tensor:
    """DADS: f(0) = f(1) = 1, else 1 - exp(-e (1 - d)), d the share of wrong answers: hard prompts are held less; [N]."""
    inside = (difficulty > 0) & (difficulty < 1)
    return torch.where(inside, 1 - torch.exp(-math.e * (1 - difficulty)), torch.ones_like(difficulty))


def dads_kl(logp: Tensor, ref_logp: Tensor, mask: Tensor, adv: Tensor, correct: Tensor, group: Tensor) -> Tensor:
    """Mean over answers of w_i mean_t k3, w_i = f(difficulty of the prompt) where the advantage is positive, else 1.

    Args:
        logp: [N, T] under the current parameters.
        ref_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        adv: [N].
        correct: [N] 1 where the answer is right.
        group: [N] int64.

    Returns:
        A scalar (Hong et al. 2025, APO, arXiv 2506.21655, section 3.2).
    """
    difficulty = 1 - group_stats((correct == 1).to(logp.dtype), group)[0]
    weight = torch.where(adv > 0, difficulty_weight(difficulty), torch.ones_like(difficulty))
    each = (kl_token(logp, ref_logp, kind="k3") * mask).sum(1) / mask.sum(1).clamp(min=1)
    return (weight * each).mean()
