"""Advantages of games: each player of each game has a line of time of its own, from one of its moves to the next."""

from __future__ import annotations

import torch
from torch import Tensor


def gae_seats(
    reward: Tensor, value: Tensor, player: Tensor, cut: Tensor, last: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over T ticks of N games with P players, of whom some move in each tick.

    For a player that moves at tick t and next at t', with R the sum of its rewards from t to t' - 1 (those of the others' moves
    included): delta_t = R + gamma V_{t'} - V_t and A_t = delta_t + gamma lam A_{t'}. Discounts count the player's own moves.
    Where the game ends before t', V_{t'} and A_{t'} are 0; after the last tick V is `last` and A is 0. With P = 1 it is
    `gae_time` (Schulman et al. 2016, equation 16) on rewards that hold the value of truncated ends already.

    Args:
        reward: [T, N, P] what each player was paid in each tick.
        value: [T, N] value of what the mover saw; [T, N, P] where several move.
        player: [T, N] int64, who moved; or [T, N, P] bool, who did.
        cut: [T, N] bool, the game ended with this tick.
        last: [N, P] value, in each player's eyes, of the state after the last tick.
        gamma: discount factor.
        lam: 0 gives one-step errors, 1 Monte Carlo returns.

    Returns:
        Advantages and returns (advantage + value), shaped like `value`; 0 and the value where nobody moved.
    """
    is_one = player.dtype != torch.bool
    seats = torch.arange(reward.shape[2], device=reward.device)
    advantage = torch.zeros_like(value)
    following, later, since = last.clone(), torch.zeros_like(last), torch.zeros_like(last)
    going_on = (~cut).to(reward.dtype)[:, :, None]
    for t in range(reward.shape[0] - 1, -1, -1):
        following, later = following * going_on[t], later * going_on[t]
        since = since * going_on[t] + reward[t]
        moved = player[t, :, None] == seats if is_one else player[t]
        now = value[t, :, None] if is_one else value[t]
        found = since + gamma * following - now + gamma * lam * later
        if is_one:
            advantage[t] = found.gather(1, player[t, :, None])[:, 0]
        else:
            advantage[t] = found * moved
        following, later = torch.where(moved, now, following), torch.where(moved, found, later)
        since = since.masked_fill(moved, 0.0)
    return advantage, advantage + value
