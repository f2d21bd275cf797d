"""Pairwise proximal policy optimisation: a trust region for differences of rewards, which prompts' own levels do not move."""

from __future__ import annotations

import torch
from torch import Tensor

from .option_types import NonNegative
from .sequences import log_ratio, refuse_single, seq_logps
from .wiring import compares_groups

LARGEST_LOG_RATIO = 20.0


@compares_groups
def p3o(
    logp: Tensor,
    old_logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    beta: NonNegative = 0.1,
    clip: NonNegative = 0.2,
    joint: bool = False,
) -> Tensor:
    """Pairwise PPO (Wu et al. 2023, arXiv 2310.00212): the policy gradient of differences of rewards of two answers to a prompt.

    R = reward - beta (log p_old - log p_reference), constant; d = R_1 - R_2; u_i = p(y_i) / p_old(y_i), of the whole answer. The gradient is
    d u_1 u_2 (grad log p_1 - grad log p_2) / 2, that of

    - separate clipping: -1/2 (min(d u_2' u_1, d u_2' clip(u_1)) + min(-d u_1' u_2, -d u_1' clip(u_2))), ' without gradient;
    - joint clipping: -1/2 min(d s, d clip(s)) with s = u_1 / u_2, which agrees where the policy is the old one.

    What is added to all rewards of a prompt changes nothing, so no values are needed and rewards are not whitened. In a group of k answers every
    two of them make a pair. This is not the P3O of Fakoor et al. (2019), which combines on-policy and off-policy gradients.

    Args:
        logp: [N, T] under the current parameters.
        old_logp: [N, T] of the policy that wrote.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N].
        group: [N] int64, the prompt of each row; at least two rows of each.
        beta: price of leaving the reference.
        clip: clip ratio, of whole answers; their log-ratio is bounded by 20.
        joint: clip u_1 / u_2.

    Returns:
        A scalar, the mean over pairs.

    Raises:
        UsageError: a prompt has one answer.
    """
    refuse_single(group, "p3o")
    regularised = (reward.to(logp.dtype) - beta * log_ratio(old_logp, reference_logp, mask)).detach()
    log_u = seq_logps(logp - old_logp.detach(), mask).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    upper = torch.ones(len(group), len(group), dtype=torch.bool, device=group.device).triu(1)
    first, second = ((group[:, None] == group[None]) & upper).nonzero(as_tuple=True)
    d = regularised[first] - regularised[second]
    low, high = 1 - clip, 1 + clip
    if joint:
        s = (log_u[first] - log_u[second]).exp()
        return -0.5 * torch.minimum(d * s, d * s.clamp(low, high)).mean()
    u = log_u.exp()
    one, two = u[first], u[second]
    up = torch.minimum(d * two.detach() * one, d * two.detach() * one.clamp(low, high))
    down = torch.minimum(-d * one.detach() * two, -d * one.detach() * two.clamp(low, high))
    return -0.5 * (up + down).mean()
