"""Kuhn and Leduc poker by OpenSpiel's rules, connect four, and perfect play of tic-tac-toe."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.connect_four import ConnectFour
from polyathlon.envs.games.perfect import PerfectPlayer, value
from polyathlon.envs.games.poker import KuhnPoker, LeducPoker
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.random import make_keys

ZERO = torch.zeros(1, dtype=torch.int64)
KEY = make_keys(ZERO, ZERO)


def finish(task, state, actions):
    """Play actions of one game; return the rewards of the last step and whether it ended."""
    total, ended = torch.zeros(task.num_players), False
    for action in actions:
        assert not ended
        mask = task.mask(state)
        assert mask is None or bool(mask[0, action]), f"{action} is not allowed"
        state, reward, over = task.step(state, torch.tensor([action]))
        total, ended = total + reward[0], bool(over)
    return total.tolist(), ended, state


@pytest.mark.parametrize(
    ("moves", "higher_first", "gain"),
    [
        ("pp", True, 1),
        ("pp", False, -1),
        ("pbp", True, -1),
        ("pbb", True, 2),
        ("pbb", False, -2),
        ("bp", False, 1),
        ("bb", True, 2),
    ],
)
def test_every_end_of_kuhn_poker(moves, higher_first, gain):
    task = KuhnPoker()
    state = task.reset(KEY, {"cards": [2, 0] if higher_first else [0, 2]})
    assert finish(task, state, ["pb".index(m) for m in moves])[:2] == ([gain, -gain], True)


def test_kuhn_poker_shows_ones_own_card_alone():
    task = KuhnPoker()
    state = task.reset(KEY, {"cards": [2, 0]})
    state, _, _ = task.step(state, torch.tensor([1]))
    for player, card in ((0, 2), (1, 0)):
        seen = task.observe(state, torch.tensor([player]))[0].tolist()
        assert seen[:2].index(1) == player and seen[2:5].index(1) == card
        assert seen[5:] == [0, 1, 0, 0, 0, 0]  # a bet was made first
    assert task.render_text(state, 0) == "K J b"


F, C, R = 0, 1, 2


@pytest.mark.parametrize(
    ("cards", "actions", "gain"),
    [
        ([0, 2, 4], [R, F], 1),  # the second folds its ante
        ([0, 2, 4], [C, R, F], -1),
        ([0, 2, 4], [R, R, F], -3),  # 3 chips were paid, 1 + 2
        ([0, 2, 4], [C, C, C, C], -1),  # the queen beats the jack
        ([4, 2, 0], [C, C, C, C], 1),
        ([0, 2, 1], [C, C, C, C], 1),  # a pair of jacks beats the queen
        ([0, 1, 4], [C, C, C, C], 0),  # equal ranks share
        ([4, 2, 0], [R, C, R, C], 7),  # 1 + 2 + 4
        ([4, 2, 0], [R, R, C, R, R, C], 13),  # 1 + 4 + 8, the most there is
        ([4, 2, 0], [R, R, C, R, R, F], -9),  # the first folds after 1 + 4 + 4
        ([4, 2, 0], [C, C, R, F], 1),
    ],
)
def test_ends_of_leduc_poker(cards, actions, gain):
    task = LeducPoker()
    assert finish(task, task.reset(KEY, {"cards": cards}), actions)[:2] == ([gain, -gain], True)


def test_what_leduc_poker_allows_and_shows():
    task = LeducPoker()
    state = task.reset(KEY, {"cards": [0, 2, 4]})
    assert task.mask(state)[0].tolist() == [False, True, True]  # nothing to fold to
    _, _, state = finish(task, state, [R])
    assert task.mask(state)[0].tolist() == [True, True, True]
    _, _, state = finish(task, state, [R])
    assert task.mask(state)[0].tolist() == [True, True, False]  # two raises a round
    seen = task.observe(state, torch.tensor([1]))[0]
    assert seen[2:8].tolist().index(1) == 2 and not seen[8:14].any(), "the public card is hidden"
    _, _, state = finish(task, state, [C])
    assert task.player(state).tolist() == [0], "the first player begins the second round"
    assert task.observe(state, torch.tensor([1]))[0, 8:14].tolist().index(1) == 4
    assert task.mask(state)[0].tolist() == [False, True, True]


def test_cards_are_dealt_evenly_and_from_the_key():
    task = LeducPoker()
    keys = make_keys(torch.arange(6000), torch.zeros(6000, dtype=torch.int64))
    cards = task.reset(keys).cards
    assert all(len(set(row)) == 3 for row in cards[:50].tolist())
    for place in range(3):
        assert torch.bincount(cards[:, place], minlength=6).min() > 850
    assert torch.equal(task.reset(keys[17:18]).cards[0], cards[17])
    assert len(task.deals()) == 120 and len({tuple(row) for row in task.deals().tolist()}) == 120
    for wrong in ([0, 0, 1], [0, 1], [0, 1, 6]):
        with pytest.raises(UsageError, match="3 different numbers from 0 to 5"):
            task.reset(KEY, {"cards": wrong})
    with pytest.raises(UsageError, match="has no reset options"):
        task.reset(KEY, {"card": [0, 1, 2]})


def test_connect_four_equals_a_plain_referee():
    rng, task = np.random.default_rng(0), ConnectFour()
    ends = set()
    for _ in range(60):
        state, board, heights = task.reset(KEY), np.zeros((6, 7), int), [0] * 7
        for t in itertools.count():
            assert task.mask(state)[0].tolist() == [h < 6 for h in heights] or t == 42
            column = int(rng.choice([c for c in range(7) if heights[c] < 6]))
            state, reward, over = task.step(state, torch.tensor([column]))
            board[5 - heights[column], column] = 1 + t % 2
            heights[column] += 1
            np.testing.assert_array_equal(task.board(state, 0), board)
            won = has_four(board, 1 + t % 2)
            assert reward[0].tolist() == ([0, 0] if not won else [1, -1] if t % 2 == 0 else [-1, 1])
            assert bool(over) == (won or t == 41)
            if over:
                ends.add((won, t % 2))
                break
    assert {(True, 0), (True, 1)} <= ends
    own, other = (task.observe(state, torch.tensor([p]))[0] for p in range(2))
    assert torch.equal(own[..., 0], other[..., 1]) and int(own.sum()) == t + 1
    assert task.render_text(state, 0).count("\n") == 5


FREE, FIRST, SECOND = (241, 243, 244), (26, 115, 232), (217, 48, 37)


@pytest.mark.parametrize(
    ("task", "moves", "cells", "shape"),
    [
        (TicTacToe(), [4, 0, 8], {(0, 0): SECOND, (0, 1): FREE, (1, 1): FIRST, (2, 2): FIRST, (2, 0): FREE}, (3, 3)),
        (ConnectFour(), [3, 3, 0], {(5, 3): FIRST, (4, 3): SECOND, (5, 0): FIRST, (3, 3): FREE, (0, 6): FREE}, (6, 7)),
        (RockPaperScissors(), [[0, 2]], {(0, 0): (95, 99, 104), (0, 1): SECOND}, (1, 2)),
    ],
)
def test_boards_are_drawn_as_they_stand(task, moves, cells, shape):
    state = task.reset(KEY)
    for move in moves:
        state, _, _ = task.step(state, torch.tensor([move]))
    picture = task.render(state, 0)
    height, width = picture.shape[0] / shape[0], picture.shape[1] / shape[1]
    found = {(r, c): tuple(picture[int((r + 0.5) * height), int((c + 0.5) * width)]) for r, c in cells}
    assert found == cells and picture.dtype == np.uint8
    assert "rgb_array" in task.metadata["render_modes"]


def has_four(board, mark):
    for row, column in np.ndindex(6, 7):
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            cells = [(row + k * down, column + k * right) for k in range(4)]
            if all(0 <= r < 6 and 0 <= c < 7 and board[r, c] == mark for r, c in cells):
                return True
    return False


def test_a_full_column_of_connect_four():
    task = ConnectFour()
    state = task.reset(KEY)
    for _ in range(6):
        state, _, over = task.step(state, torch.tensor([3]))
    assert not over and task.mask(state)[0].tolist() == [True, True, True, False, True, True, True]


def test_perfect_play_never_loses_and_takes_a_win():
    assert value((0,) * 9) == 0
    task = TicTacToe()
    player = PerfectPlayer(task)
    state = task.reset(KEY)
    for cell in (0, 3, 1, 4):
        state, _, _ = task.step(state, torch.tensor([cell]))
    call = (task.mask(state), ZERO, ZERO, KEY)
    assert player(task.observe(state), *call).tolist() == [2]
    from polyathlon.agents.games.matches import play_games
    from polyathlon.envs.tensor.opponents import RandomPlayer

    seats = torch.tensor([[0, 1], [1, 0]]).repeat(150, 1)
    totals, _ = play_games(task, [player, RandomPlayer(task)], seats)
    assert totals.gather(1, seats.argsort(1))[:, 0].min() >= 0
    both, _ = play_games(task, [player, player], seats[:50])
    assert not both.any()
