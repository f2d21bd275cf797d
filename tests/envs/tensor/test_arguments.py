"""What environments of every family are given, and refuse: options, modes, huge actions; and copies in mid-episode."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import polyathlon  # noqa: F401 (registers the ids)
from polyathlon.envs.errors import UsageError
from polyathlon.envs.games.rock_paper_scissors import RockPaperScissors
from polyathlon.envs.games.tic_tac_toe import TicTacToe
from polyathlon.envs.tensor import make_aec, make_parallel
from polyathlon.envs.tensor.arguments import LARGEST_ACTION, parse_autoreset, read_options

MUJOCO = ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer")
SCALARS = (
    *("TSP-v0", "CVRP-v0", "CartPole-v1", "Pendulum-v1", "Reasoning-v0", "TicTacToe-v0", "RockPaperScissors-v0"),
    *("Code-v0", "FunctionCall-v0", "HalfCheetah-v5", "Hopper-v5"),
)


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("options", [3, "task", ["task"], {1: 2}])
def test_options_are_a_dict(name, options):
    env = gym.make(f"polyathlon/{name}", disable_env_checker=True)
    with pytest.raises(UsageError, match="options as a dict"):
        env.reset(seed=0, options=options)
    env.reset(seed=0, options=None)
    env.reset(seed=0, options={})


@pytest.mark.parametrize("name", ["TSP-v0", "Pendulum-v1", "HalfCheetah-v5", "TicTacToe-v0"])
def test_options_of_rows_are_a_dict(name):
    rows = gym.make_vec(f"polyathlon/{name}", num_envs=2, vectorization_mode="vector_entry_point")
    with pytest.raises(UsageError, match="options as a dict"):
        rows.reset(options=3)
    with pytest.raises(UsageError, match="nonsense"):
        rows.reset(options={"nonsense": 1})


def test_options_of_a_game_table_are_a_dict():
    for table in (make_aec(TicTacToe), make_parallel(RockPaperScissors)):
        with pytest.raises(UsageError, match="options as a dict"):
            table.reset(seed=0, options=3)
        table.reset(seed=0, options=None)
    assert read_options(None) == {} and read_options({"a": 1}) == {"a": 1}


def test_a_mujoco_task_has_no_options():
    with pytest.raises(UsageError, match=r"no reset options, got \['qpos'\]"):
        gym.make("polyathlon/Hopper-v5").reset(options={"qpos": [0.0]})


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Pendulum-v1", "TSP-v0"])
@pytest.mark.parametrize("mode", ["same_step", "SAME_STEP", "SameStep", AutoresetMode.SAME_STEP])
def test_every_form_of_an_autoreset_mode_is_taken(name, mode):
    rows = gym.make_vec(f"polyathlon/{name}", 2, "vector_entry_point", autoreset_mode=mode)
    assert rows.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Pendulum-v1"])
def test_another_autoreset_mode_is_refused(name):
    with pytest.raises(UsageError, match=r"autoreset mode 'samestep_'.*SAME_STEP"):
        gym.make_vec(f"polyathlon/{name}", 2, "vector_entry_point", autoreset_mode="samestep_")
    assert [parse_autoreset(mode.value) for mode in AutoresetMode] == list(AutoresetMode)


HUGE = [np.nan, np.inf, -np.inf, 1e30, -2 * LARGEST_ACTION]


@pytest.mark.parametrize("name", [*(f"{task}-v5" for task in MUJOCO), "Pendulum-v1", "MountainCarContinuous-v0"])
def test_actions_that_are_no_numbers_are_refused_and_large_ones_pay_finite_rewards(name):
    env = gym.make(f"polyathlon/{name}", disable_env_checker=True)
    rows = gym.make_vec(f"polyathlon/{name}", 3, "vector_entry_point")
    env.reset(seed=0)
    rows.reset(seed=0)
    action = np.zeros(rows.action_space.shape, np.float32)
    for number in HUGE:
        with pytest.raises(UsageError, match=r"1e\+10"):
            env.step(np.full(env.action_space.shape, number, np.float32))
        action[1] = number
        with pytest.raises(UsageError, match=r"1e\+10"):
            rows.step(action)
    action[1] = LARGEST_ACTION
    assert np.isfinite(np.asarray(rows.step(action)[1])).all()
    assert np.isfinite(env.step(np.full(env.action_space.shape, LARGEST_ACTION, np.float32))[1])


def _steps(env, actions):
    return [(np.asarray(o), np.asarray(r), end, cut) for o, r, end, cut, _ in (env.step(action) for action in actions)]


def _same(one, other):
    return all(all(np.array_equal(a, b) for a, b in zip(left, right)) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("name", [*(f"{task}-v5" for task in MUJOCO), "Pendulum-v1", "CartPole-v1"])
def test_a_copy_goes_on_where_the_original_is(name, way):
    env = gym.make(f"polyathlon/{name}")
    env.reset(seed=5)
    env.action_space.seed(1)
    kept, more = ([env.action_space.sample() for _ in range(count)] for count in (3, 4))
    _steps(env, kept)
    other = way(env)
    assert type(other) is type(env) and other is not env
    expected = _steps(env, more)
    # also after the original has gone on, and in later episodes
    assert _same(_steps(other, more), expected)
    assert np.array_equal(*(np.concatenate([np.ravel(part) for part in _flat(one.reset()[0])]) for one in (env, other)))


def _flat(obs):
    return list(obs.values()) if isinstance(obs, dict) else [obs]


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_keeps_what_was_changed_and_shares_nothing(way):
    env = gym.make("polyathlon/HalfCheetah-v5", ctrl_cost_weight=0.5)
    env.unwrapped.model.opt.gravity[2] = -1.0
    env.reset(seed=1)
    other = way(env)
    assert other.unwrapped.model.opt.gravity[2] == -1.0 and other.unwrapped._ctrl_cost_weight == 0.5
    action = np.ones(6, np.float32)
    assert _same(_steps(env, [action]), _steps(other, [action]))
    other.unwrapped.model.opt.gravity[2] = -9.81
    other.unwrapped.data.qpos[:] = 0.0
    assert env.unwrapped.model.opt.gravity[2] == -1.0 and env.unwrapped.data.qpos.any()
    assert not _same(_steps(env, [action]), _steps(other, [action]))


def test_a_copy_draws_what_it_is(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    env = gym.make("polyathlon/Hopper-v5", render_mode="rgb_array", width=64, height=64)
    env.reset(seed=0)
    for _ in range(8):
        env.step(np.ones(3, np.float32))
    other = copy.deepcopy(env)
    assert np.array_equal(env.render(), other.render())
    before = other.render()
    other.reset(seed=1)
    assert not np.array_equal(before, other.render()) and np.array_equal(before, env.render())


def test_a_copy_of_several_objectives_goes_on_as_well():
    pytest.importorskip("mo_gymnasium")
    env = gym.make("polyathlon/HalfCheetah-v5", reward="vector", disable_env_checker=True)
    env.reset(seed=5)
    action = np.ones(6, np.float32)
    env.step(action)
    other = copy.deepcopy(env)
    assert _same(_steps(other, [action] * 3), _steps(env, [action] * 3))
    with pytest.raises(UsageError, match="NaN"):
        env.step(np.full(6, np.nan, np.float32))
