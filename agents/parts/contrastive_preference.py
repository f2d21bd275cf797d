"""Contrastive preference learning: which of two segments is preferred, from log-probabilities alone."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import softplus

from polyathlon.envs.errors import UsageError

from .option_types import Bounds, NonNegative
from .sequences import pairs

Bias = Annotated[float, Bounds(1e-9, 1.0)]


def biased_pair_loss(adv_preferred: Tensor, adv_other: Tensor, bias: float | Tensor = 1.0) -> Tensor:
    """Return -log(e^a / (e^a + e^(bias b))) of each pair = softplus(bias b - a) (Hejna et al. 2024, CPL, equation 6).

    Args:
        adv_preferred: [P] a, alpha times the summed log-probabilities of the preferred segment.
        adv_other: [P] b, of the other.
        bias: lambda in (0, 1]; below 1 the loss favours preferred segments that are likely.
    """
    return softplus(bias * adv_other - adv_preferred)


def labelled_pair_loss(adv_first: Tensor, adv_second: Tensor, label: Tensor, bias: float | Tensor = 1.0) -> Tensor:
    """Return y l(first over second) + (1 - y) l(second over first) of each pair, l the loss above (CPL, equation 5).

    Args:
        adv_first: [P].
        adv_second: [P].
        label: [P] y in [0, 1], how likely the first segment is the better one; .5 where both are as good.
        bias: lambda.
    """
    first = biased_pair_loss(adv_first, adv_second, bias)
    return label * first + (1 - label) * biased_pair_loss(adv_second, adv_first, bias)


def pair_accuracy(first: Tensor, second: Tensor, label: Tensor) -> Tensor:
    """Return the share of pairs that are ordered as their labels say, of those whose label says an order; 0 where none does.

    Args:
        first: [P] values of the first segments.
        second: [P] of the second.
        label: [P] as above; pairs with .5 are as good, so that no order of them is right or wrong.
    """
    has_order = label != 0.5
    right = (first - second).sign() == (2 * label - 1).sign()
    return (right & has_order).sum() / has_order.sum().clamp(min=1)


def score_loss(adv: Tensor, score: Tensor, bias: float | Tensor = 1.0) -> Tensor:
    """Return the mean of l(j over i) over all two segments i, j of which j has the higher score; 0 where all scores are equal.

    Segments of equal scores make no pair: the order in which sorting would leave them says nothing.

    Args:
        adv: [S].
        score: [S].
        bias: lambda.
    """
    is_better = (score[:, None] > score[None, :]).to(adv.dtype)  # [j, i]
    loss = biased_pair_loss(adv[:, None], adv[None, :], bias)
    return (is_better * loss).sum() / is_better.sum().clamp(min=1)


def segment_advantage(logp: Tensor, alpha: float | Tensor, gamma: float | Tensor = 1.0) -> Tensor:
    """Return sum_t gamma^t alpha logp_t of segments [..., T], shape [...]."""
    powers = gamma ** torch.arange(logp.shape[-1], dtype=logp.dtype, device=logp.device)
    return alpha * (powers * logp).sum(-1)


def cpl_pairs(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    side: Tensor,
    group: Tensor,
    label: Tensor | None = None,
    *,
    alpha: NonNegative = 0.1,
    bias: Bias = 0.5,
    gamma: Annotated[float, Bounds(0, 1)] = 1.0,
    reference_free: bool = False,
) -> Tensor:
    """Contrastive preference learning (Hejna et al. 2024, arXiv 2310.13639) on pairs of answers, or of segments of any task.

    With A = alpha sum_t gamma^t (log p_t - log p_reference,t) it is softplus(lambda A_rejected - A_chosen): CPL-KL, and CPL itself without the
    reference. At lambda = 1 and gamma = 1 it is DPO with beta = alpha.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens; t counts them.
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64, the pair that a row belongs to.
        label: [N] on the rows of a pair, how likely the chosen answer is the better one; None and NaN are 1.
        alpha: temperature of the regret that preferences are said to follow.
        bias: lambda in (0, 1]; below 1 the loss favours preferred answers that are likely.
        gamma: discount factor of later tokens.
        reference_free: leave the reference out.

    Returns:
        A scalar, the mean over pairs.
    """
    step = logp if reference_free else logp - reference_logp.detach()
    own = torch.where(mask > 0, step, torch.zeros_like(step))
    if gamma != 1:
        own = own * gamma ** ((mask > 0).to(own.dtype).cumsum(1) - 1)
    adv, (won, lost) = segment_advantage(own, alpha), pairs(side, group)
    share = adv.new_ones(len(won)) if label is None else torch.nan_to_num(label[won], nan=1.0).to(adv.dtype)
    return labelled_pair_loss(adv[won], adv[lost], share, bias).mean()


def regret_score(reward: Tensor, start_value: Tensor, end_value: Tensor, gamma: float) -> Tensor:
    """Return minus the discounted regret of segments: sum_t gamma^t r_t + gamma^K V(s_K) - V(s_0), [S].

    It is sum_t gamma^t A(s_t, a_t) with A = r + gamma V(s') - V(s) (Knox et al. 2022, arXiv 2206.02231, equation 4), on average over what
    the task draws, and in every case where it draws nothing.

    Args:
        reward: [S, K].
        start_value: [S] of the first observation, under the policy that is held for best.
        end_value: [S] of the observation after the last step, 0 where the segment ended by terminating.
        gamma: discount factor.
    """
    return segment_advantage(reward, 1.0, gamma) + gamma ** reward.shape[-1] * end_value - start_value


def drawn_preference(score_first: Tensor, score_second: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Return for each pair 1 where the first segment is preferred, 0 where the second is, [P].

    Args:
        score_first: [P].
        score_second: [P].
        temperature: the first is preferred with probability sigmoid((score_first - score_second) / temperature); at 0 where its score is
            higher, and equal scores give .5.
        uniform: [P] in [0, 1), where the temperature is above 0.
    """
    gap = score_first - score_second
    if temperature:
        return (uniform < torch.sigmoid(gap / temperature)).to(gap.dtype)
    return 0.5 * (1 + gap.sign())


def refuse_no_preference(preferred: Tensor) -> None:
    """Refuse labels that are no shares.

    Raises:
        UsageError: one lies outside [0, 1].
    """
    if not bool(((preferred >= 0) & (preferred <= 1)).all()):
        raise UsageError(
            "preferred= says how likely the first segment of each pair is the better one, a number in [0, 1] (.5 for a tie), got "
            f"{preferred[~((preferred >= 0) & (preferred <= 1))][0].item()!r}"
        )
