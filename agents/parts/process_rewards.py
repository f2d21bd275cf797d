"""PRIME: a language model trained on outcomes alone rewards single tokens (Cui et al. 2025, arXiv 2502.01456)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .advantages import group_advantage, group_stats, masked_whiten
from .option_types import Fraction, NonNegative
from .token_returns import gae
from .wiring import compares_groups


def implicit_bce(
    process_logp: Tensor, reference_logp: Tensor, mask: Tensor, correct: Tensor, *, beta: NonNegative = 0.05
) -> Tensor:
    """Cross-entropy of sigmoid(beta sum_t q_t) with the verdict, q = log p_process - log p_reference (equation 5).

    Args:
        process_logp: [N, T] under the process model, which it moves.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        correct: [N] 1 where the answer is right.
        beta: scale.

    Returns:
        A scalar, the mean over answers.
    """
    outcome = beta * ((process_logp - reference_logp) * mask).sum(1)
    return F.binary_cross_entropy_with_logits(outcome, (correct == 1).to(outcome.dtype))


def token_rewards(process_logp: Tensor, reference_logp: Tensor, mask: Tensor, normalize: bool = True) -> Tensor:
    """Return q of each token, [N, T], divided by the batch's largest |sum of what follows| where `normalize` (as in the authors' code)."""
    q = (process_logp - reference_logp) * mask
    if not normalize:
        return q
    following = q.flip(1).cumsum(1).flip(1)
    return q / (following.abs().max() + 1e-6)


def loo_token_rewards(rewards: Tensor, mask: Tensor, group: Tensor) -> Tensor:
    """K / (K - 1) r_t - (sum over the group of mean_t r) / (K - 1) at the marked tokens: leave-one-out of the means, [N, T]."""
    means = rewards.sum(1) / mask.sum(1).clamp(min=1)
    mean, _, count = group_stats(means, group)
    others = (count - 1).clamp(min=1)
    left_out = (count / others)[:, None] * rewards - (count * mean / others)[:, None]
    return torch.where((count > 1)[:, None], left_out, rewards) * mask


@compares_groups
def prime_advantage(
    process_logp: Tensor,
    reference_logp: Tensor,
    correct: Tensor,
    mask: Tensor,
    group: Tensor,
    *,
    normalize: bool = True,
    process_gamma: Fraction = 1.0,
    outcome_gamma: Fraction = 1.0,
    whiten: bool = True,
) -> Tensor:
    """Return of both streams of rewards, each against the others of its group, whitened over the tokens of the batch.

    return_t = sum_{s >= t} g_p^(s-t) process_s + sum_{s >= t} g_o^(s-t) outcome_s; process is `loo_token_rewards`, outcome the verdict less
    the mean of the others', at the last token (equations 6 and 7).

    Args:
        process_logp: [N, T] under the process model before its update.
        reference_logp: [N, T] under the reference.
        correct: [N] 1 where the answer is right.
        mask: [N, T] 1 on the policy's tokens.
        group: [N] int64.
        normalize: see `token_rewards`; False takes q as it is.
        process_gamma: g_p.
        outcome_gamma: g_o.
        whiten: False leaves the sum.

    Returns:
        [N, T].
    """
    process = loo_token_rewards(token_rewards(process_logp, reference_logp, mask, normalize), mask, group)
    accuracy = group_advantage((correct == 1).to(process.dtype), group, center="loo")
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    outcome = torch.zeros_like(process).scatter(1, last[:, None], accuracy[:, None]) * mask
    nothing = torch.zeros_like(process)
    total = gae(process, nothing, mask, process_gamma, 1.0)[0] + gae(outcome, nothing, mask, outcome_gamma, 1.0)[0]
    return masked_whiten(total, mask) if whiten else total
