"""What interfaces hand out of tensors: arrays, rows, facts and rewards; and first states that are drawn ahead."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor.goals import goal_reward
from polyathlon.envs.tensor.output import actor_reward, collect_info, row_of, to_numpy
from polyathlon.envs.tensor.pool import Pool, depth_for, gather
from polyathlon.envs.tensor.trees import leaves


def keys(number, episode=0):
    return make_keys(torch.arange(number), torch.full((number,), episode))


def test_arrays_of_tensors_and_rows_of_arrays_are_copies():
    tensor = torch.arange(6.0, requires_grad=True).reshape(3, 2)
    tree = to_numpy({"a": tensor, "b": {"c": torch.tensor([True, False, True])}})
    assert isinstance(tree["a"], np.ndarray) and tree["b"]["c"].tolist() == [True, False, True]
    row = row_of(tree, 1)
    assert row["a"].tolist() == [2.0, 3.0] and not row["b"]["c"]
    row["a"][:] = 9
    assert tree["a"][1].tolist() == [2.0, 3.0]


def test_facts_of_a_game_share_no_memory_with_it():
    game = TicTacToe()
    state = game.reset(keys(2))
    state, reward, _ = game.step(state, torch.tensor([4, 0]))
    mask, illegal = torch.ones(2, 9, dtype=torch.bool), torch.tensor([False, True])
    info = collect_info(game, state, mask, illegal, reward)
    assert {"acting", "player", "rewards", "action_mask", "illegal_action"} <= set(info)
    assert info["player"].tolist() == [1, 1] and info["acting"].tolist() == [[False, True]] * 2
    assert torch.equal(info["rewards"], reward) and info["illegal_action"] is illegal
    info["action_mask"][:] = False
    info["player"][:] = 7
    assert mask.all() and game.player(state).tolist() == [1, 1]
    bare = collect_info(game, state, None, None)
    assert not {"action_mask", "illegal_action", "rewards"} & set(bare) and "player" in bare


def test_facts_where_all_move_at_once_and_of_one_player():
    game = RockPaperScissors()
    assert "player" not in collect_info(game, game.reset(keys(2)), None, None, torch.zeros(2, 2))
    task = TSP(num_nodes=5)
    reward = torch.zeros(2)
    assert not {"acting", "player", "rewards"} & set(collect_info(task, task.reset(keys(2)), None, None, reward))


def test_the_reward_of_who_moved():
    reward = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    assert actor_reward(TicTacToe(), reward, torch.tensor([1, 0])).tolist() == [-1.0, 0.5]
    everybody = actor_reward(RockPaperScissors(), reward, None)
    assert everybody.tolist() == [1.0, 0.5]
    everybody[:] = 0
    assert reward[0, 0] == 1
    alone = torch.tensor([3.0, 4.0])
    assert actor_reward(TSP(num_nodes=5), alone, None) is alone


class Reach:
    """Pays how near a goal is."""

    device = torch.device("cpu")

    def compute_reward(self, achieved, desired, info):
        return -(achieved - desired).abs().sum(-1) + (0 if info is None else info)


def test_what_goals_pay_for_arrays_and_tensors():
    pay = goal_reward(Reach())
    found = pay(np.array([[0.0, 1.0], [2.0, 2.0]]), np.zeros((2, 2)), None)
    assert isinstance(found, np.ndarray) and found.tolist() == [-1.0, -4.0]
    found = pay(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), 5.0)
    assert isinstance(found, torch.Tensor) and found.tolist() == [4.0]
    assert pay(np.ones((1, 2)), np.zeros((1, 2))).tolist() == [-2.0]
    with pytest.raises(AttributeError):
        goal_reward(TSP(num_nodes=5))


def test_first_states_drawn_ahead_are_those_of_their_episodes():
    task, seeds, base = TSP(num_nodes=4), torch.tensor([3, 8]), torch.tensor([0, 5])
    pool = Pool(task, seeds, base, depth=3)
    for row, (seed, first) in enumerate([(3, 1), (8, 6)]):
        for ahead in range(3):
            own = task.reset(make_keys(torch.tensor([seed]), torch.tensor([first + ahead])))
            taken = gather(pool.states, torch.full((2,), ahead))
            assert torch.equal(taken.rows.nodes[row], own.rows.nodes[0])
    mixed = gather(pool.states, torch.tensor([2, 0]))
    nodes = pool.states.rows.nodes
    assert torch.equal(mixed.rows.nodes[0], nodes[4]) and torch.equal(mixed.rows.nodes[1], nodes[1])


def test_a_pool_lasts_until_a_row_could_have_taken_its_last_episode():
    pool = Pool(TSP(num_nodes=4), torch.tensor([0, 1]), torch.tensor([0, 0]), depth=2)
    assert pool.lasts() and pool.lasts()
    pool.cursor += torch.tensor([0, 1])  # of two steps one row has taken one episode: one more step is sure
    assert pool.lasts()
    pool.cursor += torch.tensor([0, 1])
    assert not pool.lasts()


def test_how_many_episodes_are_drawn_ahead():
    task = TSP(num_nodes=4)
    few, many = task.reset(keys(2)), task.reset(keys(8192))
    assert depth_for(few, 2) == 16 and depth_for(many, 8192) == 1 and depth_for(many, 4096) == 2
    large = TSP(num_nodes=2000).reset(keys(1))
    row = sum(leaf.element_size() * leaf.numel() for leaf in leaves(large))
    assert 2**20 // 50 < row < 2**20 // 10
    assert depth_for(large, 10) == 4 * 2**20 // (row * 10) and depth_for(large, 1000) == 1
