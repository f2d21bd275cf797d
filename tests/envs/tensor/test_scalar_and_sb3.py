"""One row of a tensor task, and rows as SB3 takes them: whole answers of small tasks.

Of polyathlon.envs.tensor.gym_env, polyathlon.envs.tensor.sb3, polyathlon.envs.tensor.trees, polyathlon.envs.tensor.goals and
polyathlon.envs.tensor.players.
"""

from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor

from polyathlon.envs.control.classic import CartPole, Pendulum
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.probes import Tradeoff
from polyathlon.envs.tensor import make_scalar, make_vector, trees
from polyathlon.envs.tensor.gym_env import TensorGymEnv
from polyathlon.envs.tensor.players import num_players
from polyathlon.envs.tensor.sb3 import SB3VecEnv, row_of, to_numpy

# ------------------------------------------------------------------------------------------------------------ one row


def test_a_game_of_one_row_tells_who_moved_and_who_is_to_move():
    env = make_scalar(TicTacToe)
    assert env.state is None
    obs, info = env.reset(seed=3)
    assert obs.shape == (3, 3, 3) and set(info) == {"acting", "action_mask", "player"} and info["player"] == 0
    assert info["acting"].tolist() == [True, False] and info["action_mask"].tolist() == [True] * 9
    for move, mover in ((0, 0), (3, 1), (1, 0), (4, 1)):
        assert env.action_masks()[move] and info["player"] == mover
        _, reward, terminated, truncated, info = env.step(move)
        assert (reward, terminated, truncated) == (0.0, False, False) and type(reward) is float
    _, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated) == (1.0, True, False) and type(terminated) is type(truncated) is bool
    assert info["rewards"].tolist() == [1, -1] and info["illegal_action"] is False
    assert set(info) == {"acting", "action_mask", "player", "illegal_action", "rewards"}


def test_the_second_player_is_paid_for_its_own_move():
    env = make_scalar(TicTacToe)
    env.reset(seed=0)
    for move in (0, 3, 1, 4, 8):
        env.step(move)
    assert env.step(5)[1] == 1.0  # the second player has 3, 4, 5


def test_the_first_player_is_paid_where_all_move_at_once():
    env = make_scalar(RockPaperScissors)
    env.reset(seed=0)
    assert env.action_space == gym.spaces.MultiDiscrete([3, 3])
    _, reward, _, _, info = env.step([0, 1])
    assert reward == -1.0 and info["rewards"].tolist() == [-1, 1] and "player" not in info


def test_a_reward_of_objectives_is_a_vector():
    env = make_scalar(Tradeoff)
    env.reset(seed=0)
    assert env.reward_space.shape == (2,) and env.step(env.action_space.sample())[1].shape == (2,)
    assert not hasattr(make_scalar(CartPole), "reward_space")


def test_a_forbidden_move_ends_the_game_or_is_an_error():
    env = make_scalar(TicTacToe)
    env.reset(seed=0)
    env.step(4)
    _, reward, terminated, _, info = env.step(4)
    assert terminated and reward == -1.0 and info["illegal_action"] is True
    env = TensorGymEnv(TicTacToe(), on_illegal="raise")
    env.reset(seed=0)
    env.step(4)
    with pytest.raises(UsageError, match=r"^action 4 is not allowed now; allowed: \[0, 1, 2, 3, 5, 6, 7, 8\]$"):
        env.step(4)
    assert env.step(0)[1] == 0.0  # and the game goes on
    with pytest.raises(UsageError, match="unknown value of on_illegal 'ignore'"):
        TensorGymEnv(TicTacToe(), on_illegal="ignore")
    assert TensorGymEnv(TicTacToe()).on_illegal == "terminate"
    both = TensorGymEnv(RockPaperScissors(), on_illegal="raise")
    both.reset(seed=0)
    both.step([2, 0])


def test_a_row_is_drawn_cut_and_asked_for_masks():
    env = make_scalar(TicTacToe, render_mode="ansi", max_episode_steps=2)
    with pytest.raises(UsageError, match=r"^render\(\) was called before reset\(\); call reset\(\) first$"):
        env.render()
    env.reset(seed=0)
    assert env.step(0)[3] is False and env.step(4)[3] is True and env.max_episode_steps == 2
    assert env.render() == "X..\n.O.\n..." and env.metadata["render_modes"] == ["ansi", "rgb_array"]
    assert make_scalar(TicTacToe).render() is None and make_scalar(CartPole).max_episode_steps == 500
    with pytest.raises(UsageError, match="max_episode_steps"):
        make_scalar(TicTacToe, max_episode_steps=0)
    with pytest.raises(UsageError, match="has no action masks"):
        make_scalar(Pendulum).action_masks()
    with pytest.raises(AttributeError):
        _ = make_scalar(CartPole).compute_reward


def test_a_row_goes_on_from_its_state():
    env, other = make_scalar(CartPole), make_scalar(CartPole)
    env.reset(seed=0)
    other.reset(seed=9)
    other.set_state(env.get_state())
    assert np.array_equal(env.step(1)[0], other.step(1)[0])
    assert np.array_equal(env.reset()[0], other.reset()[0])


# --------------------------------------------------------------------------------------------------------------- SB3


def rows(output="numpy", task=TicTacToe, n=2, **options):
    return make_vector(task, n, output=output, autoreset_mode=AutoresetMode.SAME_STEP, **options)


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_sb3_is_told_returns_lengths_and_last_observations(output):
    env = SB3VecEnv(rows(output, CartPole, max_episode_steps=3))
    assert env.seed(4) == [4, 5] and env.seed() == [None, None] and env.seed(4) == [4, 5]
    first = env.reset()
    assert np.array_equal(first, make_vector(CartPole, 2).reset(seed=4)[0]) and env.last_observation is first
    assert env.speaks_torch == (output == "torch")
    for _ in range(2):
        obs, reward, done, infos = env.step(np.array([0, 1]))
        assert infos == [{}, {}] and not done.any() and reward.dtype == np.float32 and reward.tolist() == [1, 1]
    last, reward, done, infos = env.step(np.array([0, 1]))
    assert done.tolist() == [True, True] and env.last_observation is last
    assert [set(info) for info in infos] == [{"terminal_observation", "TimeLimit.truncated", "episode"}] * 2
    assert infos[0]["episode"] == {"r": 3.0, "l": 3, "t": 0.0} and infos[0]["TimeLimit.truncated"] is True
    assert infos[1]["terminal_observation"].shape == (4,)
    assert not np.array_equal(infos[1]["terminal_observation"], last[1])
    for _ in range(3):
        infos = env.step(np.array([0, 1]))[3]
    assert infos[0]["episode"] == {"r": 3.0, "l": 3, "t": 0.0}  # counted from zero again
    env.step(np.array([0, 1]))
    env.reset()
    for _ in range(3):
        infos = env.step(np.array([0, 1]))[3]
    assert infos[0]["episode"]["l"] == 3


def test_an_episode_that_ends_by_itself_is_not_truncated():
    env = SB3VecEnv(rows())
    env.reset()
    for moves in ([0, 0], [3, 3], [1, 1], [4, 4], [2, 8]):
        _, reward, done, infos = env.step(np.array(moves))
    assert reward.tolist() == [1, 0] and done.tolist() == [True, False] and infos[1] == {}
    assert infos[0]["TimeLimit.truncated"] is False and infos[0]["episode"] == {"r": 1.0, "l": 5, "t": 0.0}
    assert env.action_masks()[1].tolist() == [False, False, True, False, False, True, True, True, False]


def test_vector_rewards_are_refused_or_summed():
    with pytest.raises(
        UsageError, match="^Stable-Baselines3 takes one number as a reward, this environment pays for 2"
    ):
        SB3VecEnv(rows(task=Tradeoff))
    env = SB3VecEnv(rows(task=Tradeoff, max_episode_steps=1), takes_objectives=True)
    env.reset()
    _, reward, done, infos = env.step(np.array([env.action_space.sample()] * 2))
    assert reward.shape == (2, 2) and done.all()
    assert infos[0]["episode"]["r"] == pytest.approx(float(reward[0].sum()))
    with pytest.raises(
        UsageError, match="^agents need a vector environment in autoreset mode SAME_STEP, got AutoresetMode.NEXT"
    ):
        SB3VecEnv(make_vector(CartPole, 2))


def sync():
    made = [lambda: gym.make("CartPole-v1") for _ in range(2)]
    return SyncVectorEnv(made, autoreset_mode=AutoresetMode.SAME_STEP)


def test_attributes_and_methods_of_rows():
    env = SB3VecEnv(sync())
    env.reset()
    assert env.has_attr("gravity") and env.has_attr("num_envs") and not env.has_attr("weather")
    env.set_attr("gravity", 1.5, [1])
    assert [row.unwrapped.gravity for row in env.vector_env.envs] == [9.8, 1.5]
    with pytest.raises(
        UsageError, match="^the rows have no attribute 'weather', so that setting it would change nothing$"
    ):
        env.set_attr("weather", 1)
    assert env.get_attr("num_envs") == [2, 2] and env.get_attr("num_envs", [0]) == [2]
    found = env.env_method("get_wrapper_attr", "gravity", indices=[1])
    assert found == [1.5] and env.env_method("get_wrapper_attr", "gravity") == [9.8, 1.5]
    with pytest.raises(
        UsageError, match='tells no action masks: its infos hold no "action_mask" after a reset or step$'
    ):
        env.action_masks()
    one = SB3VecEnv(rows())
    one.reset()
    with pytest.raises(
        UsageError, match="^'gravity' cannot be set on the rows of TensorVectorEnv, which are one batch"
    ):
        one.set_attr("gravity", 1.0)
    assert not one.has_attr("gravity")
    assert [mask.tolist() for mask in one.env_method("action_masks", indices=[1])] == [[True] * 9]
    assert one.env_method("get_state", indices=[0])[0].keys() == one.vector_env.get_state().keys()
    assert one.env_is_wrapped(Monitor, [0]) == [True]
    assert one.env_is_wrapped(gym.wrappers.TimeLimit) == [False, False]
    assert one.get_images() == []
    assert len(SB3VecEnv(rows(render_mode="ansi")).get_images()) == 0


def test_all_rows_start_with_the_same_options():
    env = SB3VecEnv(sync())
    wide = {"low": -0.01, "high": np.array(0.01)}
    env.set_options([wide, {"low": -0.01, "high": np.array(0.01)}])
    assert np.abs(env.reset()).max() <= 0.01
    assert np.abs(env.reset()).max() > 0.01  # options are of one reset
    for other in ({"low": -0.01}, {"low": -0.01, "high": 0.02}, {"low": -0.01, "high": "0.01"}):
        env.set_options([wide, other])
        with pytest.raises(UsageError, match="^the rows of a vector environment start with the same options"):
            env.reset()


def test_rows_of_arrays_and_dicts():
    tree = {"a": torch.arange(4).reshape(2, 2), "b": np.array([5, 6])}
    found = row_of(to_numpy(tree), 1)
    assert found["a"].tolist() == [2, 3] and found["b"] == 6 and to_numpy("text") == "text"
    assert row_of(np.array([[1], [2]]), 1).tolist() == [2]


# -------------------------------------------------------------------------------------------------------------- trees


class Inner(NamedTuple):
    x: torch.Tensor


class Outer(NamedTuple):
    inner: Inner
    y: torch.Tensor


def outer(start):
    return Outer(Inner(torch.arange(3) + start), torch.arange(6).reshape(3, 2) + start)


def test_rows_of_trees_are_chosen_taken_and_put():
    one, other = outer(0), outer(10)
    picked = trees.where(torch.tensor([True, False, True]), one, other)
    assert isinstance(picked, Outer) and isinstance(picked.inner, Inner)
    assert picked.inner.x.tolist() == [0, 11, 2] and picked.y.tolist() == [[0, 1], [12, 13], [4, 5]]
    assert trees.where(torch.tensor([True, False, True]), one, one).y is one.y
    rows = torch.tensor([2, 0])
    assert trees.take(one, rows).inner.x.tolist() == [2, 0] and trees.take({"a": one.y}, rows)["a"].tolist() == [
        [4, 5],
        [0, 1],
    ]
    new = trees.put(one, rows, trees.take(other, rows))
    assert new.inner.x.tolist() == [10, 1, 12] and one.inner.x.tolist() == [0, 1, 2]
    trees.put(one, rows, trees.take(other, rows), in_place=True)
    assert one.inner.x.tolist() == [10, 1, 12] and one.y.tolist() == [[10, 11], [2, 3], [14, 15]]
    with pytest.raises(TypeError, match="a state is a NamedTuple, an observation a tensor or a dict; found list"):
        trees.clone([1])


def test_trees_as_plain_dicts_and_copies():
    one = outer(0)
    plain = trees.to_plain(one)
    assert plain.keys() == {"inner", "y"} and plain["inner"].keys() == {"x"}
    again = trees.from_plain(one, plain, torch.device("cpu"))
    assert isinstance(again.inner, Inner) and torch.equal(again.y, one.y)
    plain["y"].zero_()
    assert torch.equal(again.y, one.y) and one.y.any() and trees.clone(one).y is not one.y
    seen = trees.unaliased({"view": one.y[:, 0], "own": torch.ones(3)}, one)
    seen["view"].zero_()
    assert one.y[:, 0].tolist() == [0, 2, 4] and [leaf.shape for leaf in trees.leaves({"a": one})] == [(3,), (3, 2)]


# ------------------------------------------------------------------------------------------------------------- players


def test_how_many_players_an_environment_has():
    assert num_players(make_scalar(TicTacToe)) == num_players(rows()) == num_players(SB3VecEnv(rows())) == 2
    assert num_players(make_scalar(CartPole)) == num_players(gym.make("CartPole-v1")) == num_players(sync()) == 1
    assert num_players(gym.wrappers.TimeLimit(make_scalar(TicTacToe), 5)) == 2

    class Against(gym.Wrapper):
        num_players = 1

    assert num_players(Against(make_scalar(TicTacToe))) == 1
    assert num_players(SyncVectorEnv([lambda: make_scalar(TicTacToe)])) == 2
