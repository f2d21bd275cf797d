"""Which tokens of an update count, and how much: by covariance, by entropy, by how far a group's distributions differ."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .option_types import Fraction, NonNegative
from .wiring import compares_groups


def covariance(adv: Tensor, logp: Tensor, mask: Tensor) -> Tensor:
    """(A_t - mean A) (log p_t - mean log p) of each token, means over the marked ones (Cui et al. 2025, arXiv 2505.22617, eq. 10).

    Args:
        adv: [N, T], or [N] for one advantage a row.
        logp: [N, T] under the current parameters; constant here.
        mask: [N, T] 1 on the policy's tokens.

    Returns:
        [N, T], 0 where not marked.
    """
    adv = _by_token(adv, mask)
    logp = logp.detach()
    count = mask.sum().clamp(min=1)
    return (adv - (adv * mask).sum() / count) * (logp - (logp * mask).sum() / count) * mask


def clip_cov_mask(
    adv: Tensor,
    logp: Tensor,
    old_logp: Tensor,
    mask: Tensor,
    choice: Tensor,
    *,
    ratio: Fraction = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
    clip_low: NonNegative = 1.0,
    clip_high: NonNegative = 1.0,
) -> Tensor:
    """Clip-Cov: take a few tokens of large covariance out of the update (Cui et al. 2025, arXiv 2505.22617, section 4.2).

    Candidates are marked tokens with low < cov < high that the clip of PPO does not cut already, -A clip(rho) <= -A rho; of them
    max(1, int(ratio * n)) are chosen, n the number of marked tokens.

    Args:
        adv: [N, T] or [N].
        logp: [N, T] under the current parameters.
        old_logp: [N, T] of the behaviour.
        mask: [N, T] 1 on the policy's tokens.
        choice: [N, T] uniform noise: the candidates with the smallest are chosen.
        ratio: share of the tokens that is taken out; 0 takes none.
        low: smallest covariance of a candidate.
        high: largest covariance of a candidate.
        clip_low: as in the surrogate.
        clip_high: as in the surrogate.

    Returns:
        [N, T] 0 on the chosen tokens, 1 elsewhere.
    """
    cov, each = covariance(adv, logp, mask), _by_token(adv, mask)
    rho = (logp.detach() - old_logp).exp()
    is_free = -each * rho.clamp(1 - clip_low, 1 + clip_high) <= -each * rho
    is_candidate = (mask > 0) & (cov > low) & (cov < high) & is_free
    number = _share(ratio, mask)
    return 1 - _largest(-choice, is_candidate, number)


def kl_cov_mask(adv: Tensor, logp: Tensor, mask: Tensor, *, k_percent: NonNegative) -> Tensor:
    """Mark the max(1, int(n k / 100)) tokens of the largest covariance, [N, T] (Cui et al. 2025, arXiv 2505.22617, section 4.3).

    Args:
        adv: [N, T] or [N].
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        k_percent: percentage of the marked tokens; 0 marks none.
    """
    number = _share(k_percent / 100, mask)
    return _largest(covariance(adv, logp, mask), mask > 0, number)


def kl_cov_surrogate(
    logp: Tensor,
    old_logp: Tensor,
    adv: Tensor,
    mask: Tensor,
    *,
    k_percent: NonNegative = 0.2,
    kl_cov_coef: NonNegative = 1.0,
) -> Tensor:
    """KL-Cov: -A rho of each token, and c |log p - log p_old| besides on those of the largest covariance; nothing is clipped.

    Read `old_logp` again before the first step (old_logp="read"): where it is the sampler's, the difference is rounding noise there, and
    its sign a gradient of size c.

    Args:
        logp: [N, T] under the current parameters.
        old_logp: [N, T] of the behaviour.
        adv: [N, T] or [N].
        mask: [N, T] 1 on the policy's tokens.
        k_percent: percentage of tokens that are held back (.2 for 7B, .02 for 32B).
        kl_cov_coef: c.

    Returns:
        [N, T] (Cui et al. 2025, arXiv 2505.22617, section 4.3).
    """
    gap = logp - old_logp
    chosen = kl_cov_mask(adv, logp, mask, k_percent=k_percent)
    return -_by_token(adv, mask) * gap.exp() + kl_cov_coef * chosen * gap.abs()


def entropy_top_mask(entropy: Tensor, mask: Tensor, *, rho: Fraction = 0.2) -> Tensor:
    """Mark the max(1, ceil(rho n)) tokens of the highest entropy among the n of the minibatch (Wang et al. 2025, arXiv 2506.01939, eq. 7).

    Args:
        entropy: [N, T] of the current policy, at the sampling temperature.
        mask: [N, T] 1 on the policy's tokens.
        rho: share of the tokens that learn; 1 takes all.

    Returns:
        [N, T] in {0, 1}.
    """
    count = _count(mask)
    if isinstance(count, Tensor):
        return _largest(entropy, mask > 0, (rho * count).round(decimals=9).ceil().clamp(min=1))
    return _largest(entropy, mask > 0, max(1, math.ceil(round(rho * count, 9))))


def ratio_guard(logp: Tensor, old_logp: Tensor, mask: Tensor, *, largest_mean_ratio: NonNegative = 10.0) -> Tensor:
    """Weigh all tokens of a minibatch by 0 where the policy has moved too far for them, else by 1 (TRL's PPOTrainer before 0.12, Text2Grad).

    Too far is a mean of p / p_old over the tokens above `largest_mean_ratio`.

    Args:
        logp: [N, T] under the current parameters; constant here.
        old_logp: [N, T] of the behaviour.
        mask: [N, T] 1 on the policy's tokens.
        largest_mean_ratio: mean ratio from which on a minibatch is skipped.

    Returns:
        [N, T] in {0, 1}.
    """
    ratio = torch.where(mask > 0, (logp.detach() - old_logp).exp(), torch.zeros_like(logp))
    mean = ratio.sum() / mask.sum().clamp(min=1)
    return (mean <= largest_mean_ratio).to(mask.dtype).expand_as(mask)


@compares_groups
def divergence_weights(full_logp: Tensor, mask: Tensor, group: Tensor, *, alpha: NonNegative = 1.4) -> Tensor:
    """TW-GRPO: weigh token positions by the divergence between the distributions of a group's answers (Dang et al. 2025, arXiv 2505.24718).

    With lp_i the log-probabilities of answer i at its k-th written token (uniform behind its end), mu their mean over the group and
    d = clip(mu - lp_i, -11, 11): KL_k = mean over i of sum over v of (exp(d) - d - 1), w_k = 1 + (alpha - 1) (KL_k - min) / (max - min),
    min and max over the places of the group. No gradient flows through the weights.

    Args:
        full_logp: [N, T, V].
        mask: [N, T] 1 on the policy's tokens.
        group: [N] int64.
        alpha: weight of the place where answers differ most; 1 weighs all alike.

    Returns:
        [N, T], 1 where not marked.
    """
    weight = torch.ones_like(mask)
    rank = (mask.cumsum(1) - 1).long().clamp(min=0)  # k of each written token
    for rows in ((group == q).nonzero()[:, 0] for q in group.unique()):
        own, ranks = mask[rows] > 0, rank[rows]
        longest = int(own.sum(1).max())
        vocabulary = full_logp.shape[2]
        lp = full_logp.new_full((len(rows), longest, vocabulary), -math.log(vocabulary))
        i, t = own.nonzero(as_tuple=True)
        lp[i, ranks[i, t]] = full_logp.detach()[rows[i], t]
        d = (lp.mean(0) - lp).clamp(-11, 11)
        kl = (d.exp() - d - 1).sum(-1).mean(0)
        spread = kl.max() - kl.min() if longest else kl.sum()
        norm = (kl - kl.min()) / spread if longest and spread > 0 else torch.zeros_like(kl)
        weight[rows[i], t] = (1 + (alpha - 1) * norm)[ranks[i, t]].to(weight.dtype)
    return weight


def _by_token(adv: Tensor, mask: Tensor) -> Tensor:
    return adv if adv.dim() == mask.dim() else adv[:, None].expand_as(mask)


def _count(mask: Tensor) -> int | Tensor:
    """Count the marks; on an accelerator the number stays there."""
    return int(mask.sum()) if mask.device.type == "cpu" else mask.sum(dtype=torch.float64)


def _share(share: float, mask: Tensor) -> int | Tensor:
    """Return the share of the marks, rounded down, but at least one of them."""
    count = _count(mask)
    if isinstance(count, Tensor):
        return (share * count).floor().clamp(min=1) * (count > 0) if share > 0 else 0
    return max(1, int(share * count)) if share > 0 and count else 0


def _largest(score: Tensor, allowed: Tensor, number: int | Tensor) -> Tensor:
    """Mark the `number` largest scores among the allowed places, as numbers."""
    found = torch.zeros_like(score.detach())
    if isinstance(number, Tensor):
        order = score.detach().masked_fill(~allowed, -math.inf).flatten().argsort(descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return ((rank.view_as(score) < number) & allowed).to(found)
    number = min(number, int(allowed.sum()))
    if number:
        places = score.detach().masked_fill(~allowed, -math.inf).flatten().topk(number).indices
        found.view(-1)[places] = 1
    return found
