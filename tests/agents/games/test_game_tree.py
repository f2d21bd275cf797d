"""Exploitability: OpenSpiel's numbers, known equilibria, mixtures."""

from __future__ import annotations

import pytest
import torch

from polyathlon.agents.games.game_tree import GameTree, exploitability
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.poker import KuhnPoker, LeducPoker
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors


@pytest.mark.parametrize(("game", "expected"), [(KuhnPoker, 0.458333), (LeducPoker, 2.373611)])
def test_uniform_play_is_as_exploitable_as_openspiel_says(game, expected):
    tree = GameTree(game())
    assert tree.exploitability(tree.uniform()) == pytest.approx(expected, abs=1e-6)


def kuhn(alpha):
    """Return Kuhn's equilibrium with the parameter alpha in [0, 1/3]: (obs, mask) -> probabilities."""

    def act(obs, mask):
        seat, card = obs[:, :2].argmax(1), obs[:, 2:5].argmax(1)
        moves = obs[:, 5:].view(-1, 3, 2)
        first_bet = moves[:, 0, 1] > 0
        second_bet = moves[:, 1, 1] > 0
        bet = torch.zeros(len(obs), dtype=torch.float64)
        opening = [alpha, 0.0, 3 * alpha]
        answering = [0.0, alpha + 1 / 3, 1.0]  # of the first player, to a bet after its pass
        facing = [0.0, 1 / 3, 1.0]  # of the second player, to a bet
        after_pass = [1 / 3, 0.0, 1.0]
        for c in range(3):
            own = card == c
            bet[own & (seat == 0) & ~second_bet] = opening[c]
            bet[own & (seat == 0) & second_bet] = answering[c]
            bet[own & (seat == 1) & first_bet] = facing[c]
            bet[own & (seat == 1) & ~first_bet] = after_pass[c]
        return torch.stack((1 - bet, bet), 1)

    return act


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1 / 3])
def test_kuhns_equilibria_cannot_be_exploited(alpha):
    tree = GameTree(KuhnPoker())
    profile = tree.profile(kuhn(alpha))
    assert tree.exploitability(profile) == pytest.approx(0, abs=1e-12)
    assert tree.value(profile).tolist() == pytest.approx([-1 / 18, 1 / 18])
    assert exploitability(KuhnPoker(), kuhn(alpha)) == pytest.approx(0, abs=1e-12)


def test_beyond_the_equilibria_it_can():
    assert exploitability(KuhnPoker(), lambda obs, mask: kuhn(0.0)(obs, mask).flip(1)) > 0.5


def test_a_mixture_plays_like_who_draws_a_policy_before_the_game():
    tree = GameTree(KuhnPoker())
    passive = tree.profile(lambda obs, mask: torch.tensor([1.0, 0.0]).expand(len(obs), 2))
    bold = tree.profile(lambda obs, mask: torch.tensor([0.0, 1.0]).expand(len(obs), 2))
    mixed = tree.mixture([passive, bold], [0.25, 0.75])
    # both draw on their own: 1/16 pass-pass, 9/16 bet-bet, 3/16 pass-bet-(pass), 3/16 bet-pass; values by symmetry of cards
    cross = [
        tree.value([a if level % 2 == 0 else b for level, (a, b) in enumerate(zip(x, y))])
        for x, y in [(passive, passive), (passive, bold), (bold, passive), (bold, bold)]
    ]
    expected = cross[0] / 16 + 3 * cross[1] / 16 + 3 * cross[2] / 16 + 9 * cross[3] / 16
    assert tree.value(mixed).tolist() == pytest.approx(expected.tolist())
    # who has passed once never bets later: the first player's last move is that of the passive one alone
    assert mixed[2][:, 1].abs().max() == 0
    assert tree.mixture([bold])[0].tolist() == bold[0].tolist()


def test_games_of_simultaneous_moves_have_no_tree():
    with pytest.raises(UsageError, match="move in turn"):
        GameTree(RockPaperScissors())
