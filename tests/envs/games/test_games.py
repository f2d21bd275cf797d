"""Games on tensors and their PettingZoo interfaces."""

from __future__ import annotations

import random as python_random
import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from polyathlon.envs.control.classic import CartPole
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import LINES, TicTacToe
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import make_aec, make_parallel, make_scalar, make_vector
from polyathlon.envs.tensor.rules import advance

GAMES = [TicTacToe, RockPaperScissors]
# PettingZoo says these of every observation that carries a mask, its own games' among them
EXPECTED = ("Observation space for each agent probably", "Observation is not a NumPy array")


@pytest.mark.parametrize("game", GAMES)
def test_pettingzoos_own_tests_pass(game):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in EXPECTED if game is TicTacToe else ():
            warnings.filterwarnings("ignore", message=text)
        api_test(make_aec(game), num_cycles=100)
        parallel_api_test(make_parallel(game), num_cycles=100)
        seed_test(lambda: make_aec(game), num_cycles=30)
        parallel_seed_test(lambda: make_parallel(game))
        check_env(make_scalar(game), skip_render_check=True)


def judge(board):
    """Return the mark of the winner of a board of nine cells, 0 for none."""
    for line in LINES:
        if board[line[0]] and board[line[0]] == board[line[1]] == board[line[2]]:
            return board[line[0]]
    return 0


def test_tic_tac_toe_equals_a_plain_referee():
    rng, task = python_random.Random(0), TicTacToe()
    zero = torch.zeros(1, dtype=torch.int64)
    results = set()
    for _ in range(200):
        state, board, mark = task.reset(make_keys(zero, zero)), [0] * 9, 1
        while True:
            open_cells = [cell for cell in range(9) if not board[cell]]
            assert task.mask(state)[0].nonzero()[:, 0].tolist() == open_cells
            assert int(task.player(state)[0]) == mark - 1
            cell = rng.choice(open_cells)
            state, reward, terminated = task.step(state, torch.tensor([cell]))
            board[cell] = mark
            assert state.board[0].tolist() == board
            winner = judge(board)
            assert bool(terminated) == bool(winner or 0 not in board)
            assert reward[0].tolist() == {0: [0, 0], 1: [1, -1], 2: [-1, 1]}[winner]
            mark = 3 - mark
            if terminated:
                results.add(winner)
                break
    assert results == {0, 1, 2}


def test_players_see_the_board_from_their_side():
    env = make_aec(TicTacToe, render_mode="ansi")
    env.reset(seed=0)
    for cell in (0, 4):
        env.step(cell)
    first, second = (env.observe(name)["observation"] for name in env.agents)
    assert first[0, 0].tolist() == [1, 0, 0] and first[1, 1].tolist() == [0, 1, 0] and first[2, 2].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(first[..., 0], second[..., 1])
    assert env.render() == "X..\n.O.\n..."
    assert env.observe("player_0")["action_mask"].tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 1]
    assert not env.observe("player_1")["action_mask"].any()


def test_a_taken_cell_loses():
    env = make_aec(TicTacToe)
    env.reset(seed=0)
    env.step(4)
    env.step(4)
    assert env.terminations == {"player_0": True, "player_1": True}
    assert env.rewards == {"player_0": 0.0, "player_1": -1.0}
    assert env.infos["player_1"]["illegal_action"]


def test_rewards_accumulate_until_a_player_moves():
    env = make_aec(TicTacToe)
    env.reset(seed=0)
    for cell in (0, 3, 1, 4, 2):
        env.step(cell)
    totals = {}
    for name in env.agent_iter():
        totals[name] = env.last()[1]
        env.step(None)
    assert totals == {"player_0": 1.0, "player_1": -1.0} and not env.agents


@pytest.mark.parametrize(("first", "second", "reward"), [(0, 1, -1), (1, 0, 1), (2, 1, 1), (0, 2, 1), (2, 2, 0)])
def test_rock_paper_scissors_pays_the_winner(first, second, reward):
    env = make_parallel(RockPaperScissors, num_rounds=2)
    env.reset(seed=0)
    observations, rewards, terminations, _, _ = env.step({"player_0": first, "player_1": second})
    assert rewards == {"player_0": reward, "player_1": -reward} and not any(terminations.values())
    assert observations["player_1"].argmax(1).tolist() == [second, first]
    aec = make_aec(RockPaperScissors, num_rounds=2)
    aec.reset(seed=0)
    aec.step(first)
    assert aec.observe("player_1").argmax(1).tolist() == [3, 3]  # what the other just chose is not seen
    aec.step(second)
    assert aec.rewards == rewards
    assert all(env.step({"player_0": 0, "player_1": 0})[2].values()) and not env.agents


def test_one_agent_interfaces_pay_who_moved():
    env = make_scalar(TicTacToe)
    _, info = env.reset(seed=0)
    assert info["player"] == 0
    rewards = [env.step(cell)[1] for cell in (0, 3, 1, 4)]
    _, reward, terminated, _, info = env.step(2)
    assert rewards == [0, 0, 0, 0] and reward == 1.0 and terminated
    np.testing.assert_array_equal(info["rewards"], [1, -1])
    vector = make_vector(TicTacToe, 3, autoreset_mode=AutoresetMode.SAME_STEP)
    vector.reset(seed=0)
    for cell in (0, 3, 1, 4, 8):
        vector.step(np.full(3, cell))
    _, reward, terminated, _, info = vector.step(np.full(3, 5))
    assert reward.tolist() == [1, 1, 1] and terminated.all() and info["rewards"].tolist() == [[-1, 1]] * 3
    assert info["player"].tolist() == [0, 0, 0]
    both = make_vector(RockPaperScissors, 2)
    both.reset(seed=0)
    assert both.step(np.array([[1, 0], [0, 1]]))[1].tolist() == [1, -1]


@pytest.mark.parametrize("game", GAMES)
def test_steps_compile_as_one_graph(game):
    task, rows = game(), torch.arange(4)
    state = task.reset(make_keys(rows, torch.zeros_like(rows)))
    action = torch.tensor([[0, 1], [1, 2], [2, 2], [2, 0]]) if task.simultaneous else torch.arange(4)
    expected, compiled = task.step(state, action), torch.compile(task.step, fullgraph=True)(state, action)
    for one, two in zip((*expected[0], *expected[1:]), (*compiled[0], *compiled[1:])):
        assert torch.equal(one, two)


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match=r"CartPole has one player: use make_scalar"):
        make_aec(CartPole)
    with pytest.raises(UsageError, match=r"num_rounds must be a positive integer, got 0"):
        make_parallel(RockPaperScissors, num_rounds=0)
    env = make_parallel(RockPaperScissors)
    env.reset(seed=0)
    with pytest.raises(UsageError, match=r"an action is missing for \['player_1'\]"):
        env.step({"player_0": 0})
    with pytest.raises(UsageError, match=r"TicTacToe has no reset options, got \['size'\]"):
        make_scalar(TicTacToe).reset(options={"size": 4})
    aec = make_aec(TicTacToe)
    with pytest.raises(UsageError, match=r"finished game; call reset\(\) first"):
        aec.step(0)
    aec.reset(seed=0)
    with pytest.raises(UsageError, match=r"integer from 0 to 8; row 0 got 9"):
        aec.step(9)


def test_in_a_simultaneous_game_only_who_broke_the_rules_is_punished():
    game = RockPaperScissors(num_rounds=3)
    state = game.reset(make_keys(torch.arange(4), torch.zeros(4, dtype=torch.int64)))
    mask = torch.ones(4, 2, 3, dtype=torch.bool)
    mask[:, :, 0] = False  # no rock
    action = torch.tensor([[1, 2], [0, 1], [1, 0], [0, 0]])
    for is_branching in (True, False):
        turn = advance(game, 10, state, action, mask, is_branching)
        assert turn.reward.tolist() == [[-1, 1], [-1, 0], [0, -1], [-1, -1]]
        assert turn.illegal.tolist() == [[False, False], [True, False], [False, True], [True, True]]
        assert turn.terminated.tolist() == [False, True, True, True]
        assert turn.state.t.tolist() == [1] * 4 and turn.state.last[1].tolist() == [3, 3]
