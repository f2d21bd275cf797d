"""The cells of preference tuning that have no method of their own: pairs of a group by rewards, a best answer against the rest, weights of rewards."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from .answer_selection import PairMode, select_best, select_pair
from .option_types import Bounds, NonNegative
from .preferences import pair_loss
from .sequences import log_ratio, refuse_single, seq_logps
from .wiring import compares_groups

Positive = Annotated[float, Bounds(1e-9)]


@compares_groups
def ranked_pairs(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    kind: Literal["sigmoid", "ipo"] = "sigmoid",
    beta: Positive = 0.1,
    pairs: PairMode = "all",
    min_gap: NonNegative = 0.0,
) -> Tensor:
    """DPO or IPO on the pairs of each group that differ in reward, a scalar: the mean over pairs (Tajwar et al. 2024, arXiv 2404.14367).

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N].
        group: [N] int64.
        kind: "sigmoid", -log sigmoid(beta (rho_w - rho_l)), or "ipo", (rho_w - rho_l - beta)^2, where beta is the margin that is aimed at.
        beta: see `kind`.
        pairs: see `polyathlon.agents.parts.answer_selection.select_pair`.
        min_gap: pairs whose rewards differ by less are left out; equal ones always are.

    Returns:
        A scalar; 0 where all rewards are equal.

    Raises:
        UsageError: a group has one answer.
    """
    refuse_single(group, "a pair")
    rho = log_ratio(logp, reference_logp, mask)
    won, lost = select_pair(reward, group, mode=pairs, min_gap=min_gap)
    margin = rho[won] - rho[lost]
    loss = pair_loss(margin, beta=beta) if kind == "sigmoid" else pair_loss(margin, kind="ipo", tau=1 / (2 * beta))
    return loss.sum() / max(len(loss), 1)


@compares_groups
def best_against(
    logp: Tensor,
    mask: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    beta: NonNegative = 0.5,
    against: Literal["rest", "worst"] = "rest",
) -> Tensor:
    """Imitation of the best answer of each group, and beta times the log-probability of the others pushed down; a scalar, the mean over groups.

    -log p_best + beta mean_rest log p, or with the worst answer alone in the place of the rest (Tajwar et al. 2024, arXiv 2404.14367). The second
    term has no bound below: take few updates or a small beta.

    Args:
        logp: [N, T] under the current parameters.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N].
        group: [N] int64.
        beta: weight of what is pushed down; 0 is imitation alone.
        against: "rest", or the "worst" answer.

    Raises:
        UsageError: a group has one answer.
    """
    refuse_single(group, "the best answer")
    whole, index = seq_logps(logp, mask), group.unique(return_inverse=True)[1]
    best = select_best(reward, index)
    if against == "worst":
        return (beta * whole[_last_worst(reward, index)] - whole[best]).mean()
    total = whole.new_zeros(len(best)).index_add(0, index, whole)
    count = torch.bincount(index, minlength=len(best)) - 1
    return (beta * (total - whole[best]) / count - whole[best]).mean()


def _last_worst(reward: Tensor, index: Tensor) -> Tensor:
    """Return the row of the worst answer of each group, the last of equals, so that it is never the first best one."""
    return len(reward) - 1 - select_best(-reward.flip(0), index.flip(0))


@compares_groups
def reward_weights(reward: Tensor, group: Tensor, *, beta: Positive = 0.1) -> Tensor:
    """Weigh answers by exp(reward / beta), normalised over each group, [N] (reward-weighted regression, Peters and Schaal 2007).

    Args:
        reward: [N].
        group: [N] int64.
        beta: temperature; small takes the best answer alone, large all alike.
    """
    index = group.unique(return_inverse=True)[1]
    size = int(index.max()) + 1
    scaled = reward / beta
    largest = scaled.new_full((size,), -torch.inf).scatter_reduce(0, index, scaled, "amax")
    weight = (scaled - largest[index]).exp()
    return weight / weight.new_zeros(size).index_add(0, index, weight)[index]


def positive_advantage(reward: Tensor) -> Tensor:
    """Reward above the batch's mean, 0 below it, [N]: a policy gradient that pushes nothing down.

    Args:
        reward: [N].
    """
    return (reward - reward.mean()).clamp(min=0)
