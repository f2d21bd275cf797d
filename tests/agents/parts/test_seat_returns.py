"""Advantages of games, against values worked out by hand and a plain recursion over each player's moves."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.parts.seat_returns import gae_seats
from polyathlon.agents.parts.time_returns import gae_time


def test_two_players_alternate_and_the_game_ends_after_four_ticks():
    reward = torch.zeros(5, 1, 2)
    reward[3, 0] = torch.tensor([-1.0, 1.0])
    cut = torch.zeros(5, 1, dtype=torch.bool)
    cut[3] = True
    player = torch.tensor([0, 1, 0, 1, 0])[:, None]
    last = torch.tensor([[0.7, -0.3]])
    value = torch.tensor([0.1, -0.2, 0.3, 0.4, 0.5])[:, None]
    _, returns = gae_seats(reward, value, player, cut, last, 1.0, 1.0)
    torch.testing.assert_close(returns[:, 0], torch.tensor([-1.0, 1.0, -1.0, 1.0, 0.7]))


def test_one_player_is_plain_gae():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(7, 3, generator=generator), torch.randn(7, 3, generator=generator)
    cut = torch.rand(7, 3, generator=generator) < 0.3
    last = torch.randn(3, generator=generator)
    expected = gae_time(reward, value, torch.cat([value[1:], last[None]]), cut, cut, 0.9, 0.8)
    zero = torch.zeros(7, 3, dtype=torch.int64)
    found = gae_seats(reward[..., None], value, zero, cut, last[:, None], 0.9, 0.8)
    for one, two in zip(expected, found):
        torch.testing.assert_close(one, two)


def by_hand(reward, value, moved, cut, last, gamma, lam):
    """Follow each player of each game from move to move."""
    ticks, games, players = reward.shape
    advantage = torch.zeros(ticks, games, players)
    for n in range(games):
        for p in range(players):
            for t in reversed(range(ticks)):
                if not moved[t, n, p]:
                    continue
                paid, s = 0.0, t
                while True:
                    paid += float(reward[s, n, p])
                    if cut[s, n]:
                        following, later = 0.0, 0.0
                        break
                    s += 1
                    if s == ticks:
                        following, later = float(last[n, p]), 0.0
                        break
                    if moved[s, n, p]:
                        following, later = float(value[s, n, p]), float(advantage[s, n, p])
                        break
                advantage[t, n, p] = paid + gamma * following - float(value[t, n, p]) + gamma * lam * later
    return advantage


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.7), (0.5, 0.0)])
def test_several_movers_a_tick_and_one(gamma, lam):
    generator = torch.Generator().manual_seed(1)
    shape = (9, 4, 3)
    reward, value = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    moved, cut = torch.rand(shape, generator=generator) < 0.6, torch.rand(shape[:2], generator=generator) < 0.3
    last = torch.randn(shape[1:], generator=generator)
    found, returns = gae_seats(reward, value, moved, cut, last, gamma, lam)
    torch.testing.assert_close(found, by_hand(reward, value, moved, cut, last, gamma, lam))
    torch.testing.assert_close(returns, found + value)
    player = torch.randint(3, shape[:2], generator=generator)
    single = torch.nn.functional.one_hot(player, 3).bool()
    one = gae_seats(reward, value.gather(2, player[..., None])[..., 0], player, cut, last, gamma, lam)[0]
    expected = by_hand(reward, value, single, cut, last, gamma, lam).gather(2, player[..., None])[..., 0]
    torch.testing.assert_close(one, expected)
