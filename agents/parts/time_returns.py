"""Returns and advantages over time-major rollouts, in which episodes end anywhere."""

from __future__ import annotations

import torch
from torch import Tensor


def gae_time(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16) on a rollout of T steps in N rows.

    A_t = delta_t + gamma lam (1 - cut_t) A_{t+1} with delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t). An
    episode that a time limit cut keeps the value of its last observation; only the recursion stops there.

    Args:
        reward: [T, N] (or [T, N, k] for k objectives).
        value: like `reward`, V(s_t).
        next_value: like `reward`, V of the true next observation: the final one of an episode, not the one after it.
        terminated: [T, N] bool, the task ended the episode.
        done: [T, N] bool, the episode ended there for whatever reason (terminated or truncated).
        gamma: discount factor.
        lam: 0 gives one-step errors, 1 Monte Carlo returns.

    Returns:
        Advantages and returns (advantage + value), shaped like `reward`.
    """
    extra = (1,) * (reward.dim() - terminated.dim())
    alive = (~terminated).to(reward.dtype).reshape(*terminated.shape, *extra)
    carry = (~done).to(reward.dtype).reshape(*done.shape, *extra).mul_(gamma * lam)
    advantage = torch.addcmul(reward - value, alive, next_value, value=gamma)
    rows, weights = advantage.unbind(), carry.unbind()
    for t in range(len(rows) - 2, -1, -1):
        rows[t].addcmul_(weights[t], rows[t + 1])
    return advantage, advantage + value


def discounted_sums(reward: Tensor, done: Tensor, start: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Discounted sums of the rewards so far, G_t = gamma G_{t-1} + r_t, starting from zero in every episode.

    Args:
        reward: [T, N] (or [T, N, k] for k objectives).
        done: [T, N] bool, the episode ended with this step.
        start: [N] (or [N, k]) what the first step carries over, already discounted (zeros at first).
        gamma: discount factor.

    Returns:
        The sums, shaped like `reward`, and what the next rollout carries over, shaped like `start`.
    """
    sums = reward.clone()
    going_on = (~done).to(reward.dtype).mul_(gamma).reshape(*done.shape, *(1,) * (reward.dim() - done.dim()))
    carried = start
    for t in range(reward.shape[0]):
        sums[t].add_(carried)
        carried = sums[t] * going_on[t]
    return sums, carried
