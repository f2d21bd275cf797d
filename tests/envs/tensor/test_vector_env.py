"""Vector environments of tensor tasks: whole answers of small games, in numpy and as tensors (polyathlon.envs.tensor.vector_env)."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.combinatorial.tsp import TSP
from polyathlon.envs.control.classic import CartPole, Pendulum
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.probes import Tradeoff
from polyathlon.envs.tensor import make_vector
from polyathlon.envs.tensor.engine import Engine
from polyathlon.envs.tensor.vector_env import current_mask, pays_objectives, player_space

WON = ([0, 0], [3, 3], [1, 1], [4, 4], [2, 8])  # row 0 wins by its first row, row 1 goes on
LAST_BOARD = [
    [[0, 1, 0], [0, 1, 0], [0, 1, 0]],
    [[1, 0, 0], [1, 0, 0], [0, 0, 1]],
    [[0, 0, 1], [0, 0, 1], [0, 0, 1]],
]


def played(output="numpy", mode=AutoresetMode.SAME_STEP, **options):
    env = make_vector(TicTacToe, 2, output=output, autoreset_mode=mode, **options)
    first = env.reset(seed=0)
    for moves in WON:
        step = env.step(np.array(moves) if output == "numpy" else torch.tensor(moves))
    return env, first, step


def test_a_game_that_ends_tells_everything_in_gymnasiums_form():
    _, (obs, info), (after, reward, terminated, truncated, told) = played()
    assert obs.shape == (2, 3, 3, 3) and obs.dtype == np.int8
    assert set(info) == {f"{mark}{name}" for mark in ("", "_") for name in ("acting", "action_mask", "player")}
    assert reward.tolist() == [1, 0] and reward.dtype == np.float32
    assert terminated.tolist() == [True, False] and truncated.tolist() == [False, False]
    assert np.array_equal(after[0], obs[0]) and not np.array_equal(after[1], obs[1])
    plain = {name: told[name].tolist() for name in told if not name.startswith("_") and not name.startswith("final")}
    assert plain == {
        "action_mask": [[True] * 9, [False, False, True, False, False, True, True, True, False]],
        "illegal_action": [False, False],
        "player": [0, 1],
        "rewards": [[1, -1], [0, 0]],
        "acting": [[True, False], [False, True]],
    }
    assert all(told[f"_{name}"].tolist() == [True, True] for name in plain)
    assert told["_final_obs"].tolist() == told["_final_info"].tolist() == [True, False]
    assert told["final_obs"][1] is None and told["final_obs"][0].tolist() == LAST_BOARD
    final = told["final_info"]
    assert set(final) == {f"{m}{n}" for m in ("", "_") for n in ("acting", "action_mask", "illegal_action", "player")}
    assert all(final[name].tolist() == [True, False] for name in final if name.startswith("_"))
    assert final["player"][0] == 1 and final["acting"][0].tolist() == [False, True] and final["action_mask"].all()
    told["_final_obs"][:] = False  # each mark is an array of its own
    assert told["_final_info"].tolist() == [True, False] and final["_player"].tolist() == [True, False]


def test_tensors_of_a_game_that_ends_are_full_and_say_which_rows_count():
    env, (obs, info), (after, reward, terminated, truncated, told) = played("torch")
    assert set(info) == {"acting", "action_mask", "player"}
    assert all(isinstance(x, torch.Tensor) for x in (obs, after, reward, terminated, truncated))
    assert reward.tolist() == [1, 0] and told["rewards"].tolist() == [[1, -1], [0, 0]]
    assert told["_final_obs"].tolist() == [True, False] and "_final_info" not in told
    assert told["final_obs"].shape == (2, 3, 3, 3) and told["final_obs"][0].tolist() == LAST_BOARD
    assert set(told["final_info"]) == {"acting", "action_mask", "illegal_action", "player"}
    assert torch.equal(env.action_masks(), told["action_mask"]) and env.action_masks() is not env.action_masks()


def test_without_same_step_nothing_is_final():
    *_, told = played(mode=AutoresetMode.NEXT_STEP)[2]
    assert not any("final" in name for name in told)


def test_all_who_move_at_once_are_seen_and_paid():
    env = make_vector(RockPaperScissors, 2, view="all")
    obs, info = env.reset(seed=0)
    assert obs.shape == (2, 2, 2, 4) and info["acting"].tolist() == [[True, True], [True, True]]
    assert env.single_observation_space.shape == (2, 2, 4) and env.single_action_space == gym.spaces.MultiDiscrete(
        [3, 3]
    )
    _, reward, _, _, told = env.step(np.array([[0, 1], [2, 2]]))  # paper beats rock
    assert reward.tolist() == told["rewards"].tolist() == [[-1, 1], [0, 0]]
    first = make_vector(RockPaperScissors, 2)
    assert first.reset(seed=0)[0].shape == (2, 2, 4) and first.view == "mover"
    assert first.step(np.array([[0, 1], [2, 2]]))[1].tolist() == [-1, 0]


def test_one_player_has_no_rewards_of_all_and_no_view_of_all():
    env = make_vector(CartPole, 2, view="all")
    assert env.view == "mover" and env.single_observation_space.shape == (4,)
    env.reset(seed=0)
    *_, told = env.step(np.zeros(2, int))
    assert not {"rewards", "player", "acting"} & set(told)


@pytest.mark.parametrize(("mode", "drawn"), [("ansi", ["...\n...\n...", "XX.\nOO.\n..X"]), (None, None)])
def test_every_row_is_drawn_in_the_mode_that_was_asked_for(mode, drawn):
    env = make_vector(TicTacToe, 2, render_mode=mode)
    assert env.render() is None  # before the first reset
    env, *_ = played(render_mode=mode)
    assert (env.render() if drawn is None else list(env.render())) == drawn
    assert (
        env.metadata["render_modes"] == ["ansi", "rgb_array"]
        and env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    )


def test_pictures_are_drawn_of_every_row():
    env, *_ = played(render_mode="rgb_array")
    pictures = env.render()
    assert len(pictures) == 2 and all(p.dtype == np.uint8 and p.shape[-1] == 3 for p in pictures)
    assert not np.array_equal(*pictures)


def test_the_masks_of_a_task():
    env, *_ = played()
    assert env.action_masks().tolist()[1] == [False, False, True, False, False, True, True, True, False]
    cart = make_vector(CartPole, 3)
    cart.reset(seed=0)
    assert cart.action_masks().dtype == bool and cart.action_masks().tolist() == [[True, True]] * 3
    both = make_vector(RockPaperScissors, 2)
    both.reset(seed=0)
    assert both.action_masks().shape == (2, 2, 3) and both.action_masks().all()
    with pytest.raises(UsageError, match="^Pendulum has no action masks: its actions are the numbers of Box"):
        make_vector(Pendulum, 1).action_masks()
    engine = Engine(CartPole(), 2, 500, AutoresetMode.NEXT_STEP, False, False)
    assert current_mask(CartPole(), engine).shape == (2, 2)


def test_the_spaces_of_players_and_objectives():
    assert player_space(TicTacToe()) == gym.spaces.Discrete(9)
    assert player_space(RockPaperScissors()) == gym.spaces.MultiDiscrete([3, 3])
    assert pays_objectives(Tradeoff()) and not pays_objectives(TicTacToe()) and not pays_objectives(CartPole())
    assert make_vector(Tradeoff, 2).single_reward_space.shape == (2,)
    assert not hasattr(make_vector(CartPole, 2), "single_reward_space")
    env = make_vector(CartPole, 3)
    assert env.observation_space.shape == (3, 4) and env.action_space == gym.spaces.MultiDiscrete([2, 2, 2])


def test_rows_that_are_reset_alone():
    env = make_vector(CartPole, 3)
    assert env.state is None
    obs, _ = env.reset(seed=[5, 6, 7])
    moved = env.step(np.zeros(3, int))[0]
    again, _ = env.reset(seed=[5, 6, 7], options={"reset_mask": np.array([True, False, False])})
    assert np.array_equal(again[0], obs[0]) and np.array_equal(again[1:], moved[1:])
    for wrong in (np.array([False, False, False]), np.array([True, False]), np.array([1, 0, 0])):
        with pytest.raises(
            UsageError, match=r"^'reset_mask' is a bool array of shape \(3,\) with at least one True, got torch"
        ):
            env.reset(options={"reset_mask": wrong})


def test_an_episode_is_cut_at_its_own_length_or_at_the_one_given():
    assert make_vector(CartPole, 1).max_episode_steps == 500
    env = make_vector(CartPole, 2, max_episode_steps=1)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(np.zeros(2, int))
    assert truncated.tolist() == [True, True] and not terminated.any() and env.max_episode_steps == 1
    with pytest.raises(UsageError, match="max_episode_steps"):
        make_vector(CartPole, 1, max_episode_steps=0)
    with pytest.raises(UsageError, match="num_envs"):
        make_vector(CartPole, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"output": "jax"}, "unknown output 'jax'"),
        ({"view": "both"}, "unknown view 'both'"),
        ({"render_mode": "human"}, "unknown render mode of TicTacToe 'human'"),
    ],
)
def test_unknown_words_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        make_vector(TicTacToe, 2, **words)


def test_goals_pay_only_where_a_task_has_them():
    with pytest.raises((UsageError, AttributeError)):
        _ = make_vector(CartPole, 1).compute_reward


def test_what_a_task_tells_is_there_at_the_first_step_and_later():
    env = make_vector(TSP, 2, num_nodes=5)
    env.reset(seed=0)
    told = [env.step(np.array([k, k]))[4] for k in (1, 2)]
    assert set(told[0]) == set(told[1])
    for name in told[0]:
        assert np.asarray(told[1][name]).shape == np.asarray(told[0][name]).shape
