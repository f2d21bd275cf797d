"""Contrastive policy gradient: answers of any source, compared by their rewards, each with the others as its baseline."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .option_types import Bounds
from .sequences import log_ratio, refuse_single
from .wiring import compares_groups


def reg_reward(reward: Tensor, logp: Tensor, reference_logp: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """Reward less the price of leaving the reference: R - beta sum_t (log p - log p_reference), [N], with gradient.

    Args:
        reward: [N].
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        beta: the price.
    """
    return reward.to(logp.dtype) - beta * log_ratio(logp, reference_logp, mask)


def pairwise_sq(regularised: Tensor, group: Tensor, *, beta: float) -> Tensor:
    """Sum over the pairs i < j of a group of k answers of (R_i - R_j)^2 / (2 beta (k - 1)), averaged over groups; a scalar.

    The sum over pairs is k times the sum of squared deviations from the mean, so that the cost is linear in k.

    Args:
        regularised: [N] R, see `reg_reward`.
        group: [N] int64, at least two rows of each.
        beta: that of R.

    Raises:
        UsageError: a group has one answer.
    """
    refuse_single(group, "copg")
    index = group.unique(return_inverse=True)[1]
    zeros = regularised.new_zeros(int(index.max()) + 1)
    k = zeros.index_add(0, index, torch.ones_like(regularised))
    mean = zeros.index_add(0, index, regularised) / k
    spread = zeros.index_add(0, index, (regularised - mean[index]).square())
    return (k * spread / (2 * beta * (k - 1))).mean()


@compares_groups
def copg(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    beta: Annotated[float, Bounds(1e-9)] = 0.1,
) -> Tensor:
    """Contrastive Policy Gradient (Flet-Berliac et al. 2024, arXiv 2406.19185): (R_b(y) - R_b(y'))^2 / (2 beta) of answers y, y' of any source.

    R_b = R - beta (log p - log p_reference). The gradient is (R_b(y) - R_b(y')) (grad log p(y') - grad log p(y)): REINFORCE with the other
    answer's regularised reward as baseline, which needs no importance weights. The optimum is reference exp(R / beta) / Z whatever wrote the
    answers. With k answers each has the mean of the others as its baseline.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N], as it is: neither centred nor scaled.
        group: [N] int64, the prompt of each row.
        beta: in the unit of the reward; small is far from the reference.

    Returns:
        A scalar.

    Raises:
        UsageError: an answer has no reward, or a prompt has one answer.
    """
    if not bool(reward.isfinite().all()):
        raise UsageError(
            f"copg learns from a number for each answer, but {int((~reward.isfinite()).sum())} of {len(reward)} have none: give scores "
            "(prompt, completions, scores; or score_chosen and score_rejected), or take dpo, which needs pairs alone"
        )
    return pairwise_sq(reg_reward(reward, logp, reference_logp, mask, beta=beta), group, beta=beta)
