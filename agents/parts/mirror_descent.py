"""Online mirror descent on the log-ratio of whole answers (Kimi k1.5)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from .advantages import group_advantage, group_stats, numbered
from .option_types import Bounds
from .wiring import compares_groups

Tau = Annotated[float, Bounds(0.0)]


@compares_groups
def mirror_loss(
    logp: Tensor,
    old_logp: Tensor,
    mask: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    tau: Tau = 0.2,
    center: Literal["mean", "logZ"] = "mean",
) -> Tensor:
    """-1/k sum_j [(r_j - c) u_j - tau/2 u_j^2], u_j = sum_t (log p_t - log p_old_t), averaged over prompts.

    But for constants it is (r_j - c - tau u_j)^2 / (2 tau) (Kimi Team 2025, section 2.3.2, equation 3, arXiv 2501.12599).

    Args:
        logp: [N, T] under the current parameters.
        old_logp: [N, T] under the policy from which it may go only so far.
        mask: [N, T] 1 on the policy's tokens.
        reward: [N].
        group: [N] int64.
        tau: how hard the pull back to that policy is; 0 is Dr. GRPO's gradient with a sum over tokens.
        center: c, the group's "mean" reward, or "logZ", tau log mean exp(r / tau), of which the mean is the limit of large tau.

    Returns:
        A scalar.
    """
    u = ((logp - old_logp) * mask).sum(1)
    group, number, prompts = numbered(group)
    count = group_stats(reward, group)[2]
    if center == "mean":
        centred = group_advantage(reward, group, center="group")
    else:
        # relative to the group's largest reward, so that no exponential overflows; it is c itself at tau = 0
        zeros = reward.new_zeros(number)
        top = zeros.scatter_reduce(0, group, reward, "amax", include_self=False)[group]
        mean = zeros.index_add(0, group, ((reward - top) / max(tau, 1e-9)).exp())[group] / count
        centred = reward - top - tau * mean.log()
    each = -(centred * u - tau / 2 * u.square())
    return (each / count).sum() / prompts


def average_weights(first: dict[str, Tensor], second: dict[str, Tensor], alpha: float = 0.5) -> dict[str, Tensor]:
    """Return alpha first + (1 - alpha) second by name: a long and a short model merged (Kimi k1.5, section 2.4).

    Raises:
        ValueError: they have other names or shapes.
    """
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise ValueError("two models are merged weight by weight: they must have the same names and shapes")
    return {name: torch.lerp(second[name], value, alpha) for name, value in first.items()}


def shortest_correct(length: Tensor, correct: Tensor, group: Tensor) -> Tensor:
    """Mark the shortest right answer of each group, [N]; the first of equals (shortest rejection sampling, Kimi k1.5, section 2.4).

    Args:
        length: [N] tokens that the policy wrote.
        correct: [N] 1 where the answer is right.
        group: [N] int64.
    """
    chosen = torch.zeros_like(correct)
    for q in group.unique():
        rows = ((group == q) & (correct == 1)).nonzero()[:, 0]
        if len(rows):
            chosen[rows[length[rows].argmin()]] = 1
    return chosen


def length_pairs(length: Tensor, correct: Tensor, group: Tensor, ratio: float = 1.5) -> Tensor:
    """Return pairs [P, 2] of rows: the shortest right answer, and each that is wrong and longer, or right and `ratio` times as long.

    Args:
        length: [N] tokens that the policy wrote.
        correct: [N] 1 where the answer is right.
        group: [N] int64.
        ratio: how much longer a right answer must be to be rejected (Kimi k1.5, section 2.4).
    """
    chosen = shortest_correct(length, correct, group).nonzero()[:, 0]
    pairs = []
    for row in chosen.tolist():
        wrong = (correct != 1) & (length > length[row])
        slow = (correct == 1) & (length >= ratio * length[row])
        others = ((group == group[row]) & (wrong | slow)).nonzero()[:, 0]
        pairs += [(row, other) for other in others.tolist() if other != row]
    return torch.tensor(pairs, dtype=torch.int64, device=length.device).reshape(-1, 2)


@compares_groups
def length_preference(
    logp: Tensor,
    reference_logp: Tensor,
    mask: Tensor,
    length: Tensor,
    correct: Tensor,
    group: Tensor,
    *,
    beta: Annotated[float, Bounds(0)] = 0.1,
    ratio: Annotated[float, Bounds(1)] = 1.5,
) -> Tensor:
    """DPO on `length_pairs`: mean of -log sigmoid(beta (u_chosen - u_rejected)), u = sum_t (log p - log p_reference).

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
        length: [N] tokens that the policy wrote.
        correct: [N] 1 where the answer is right.
        group: [N] int64.
        beta: DPO's (Rafailov et al. 2023).
        ratio: see `length_pairs`.

    Returns:
        A scalar; 0 where no group has a pair.
    """
    u = beta * ((logp - reference_logp) * mask).sum(1)
    pairs = length_pairs(length, correct, group, ratio)
    if not len(pairs):
        return 0 * u.sum()
    return torch.nn.functional.softplus(u[pairs[:, 1]] - u[pairs[:, 0]]).mean()
