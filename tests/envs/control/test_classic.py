"""The classic tasks against Gymnasium's."""

from __future__ import annotations

import types
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import continuous_mountain_car
from gymnasium.utils.env_checker import check_env
from scipy import stats

from polyathlon.envs.control import classic
from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import make_scalar

TASKS = {
    "CartPole-v1": (classic.CartPole, [2.6, 3.0, 0.25, 3.0]),
    "Pendulum-v1": (classic.Pendulum, [9.0, 8.0]),
    "Acrobot-v1": (classic.Acrobot, [3.14, 3.14, 4.0, 8.0]),
    "MountainCar-v0": (classic.MountainCar, [(-1.2, 0.6), 0.07]),
    "MountainCarContinuous-v0": (classic.MountainCarContinuous, [(-1.2, 0.6), 0.07]),
}


def random_state(rng, ranges):
    bounds = [item if isinstance(item, tuple) else (-item, item) for item in ranges]
    return np.array([rng.uniform(low, high) for low, high in bounds])


def play_gymnasium(name, ranges, steps):
    """Play random steps, half of them from random states, and return (before, action, after, reward, terminated)."""
    env = gym.make(name).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    rng = np.random.default_rng(0)
    records, needs_reset = [], False
    for t in range(steps):
        if needs_reset:
            env.reset()
        if t % 2:
            env.state = random_state(rng, ranges)
        env.state = np.array(env.state, np.float64)
        env.steps_beyond_terminated = None
        before, action = env.state.copy(), env.action_space.sample()
        _, reward, terminated, _, _ = env.step(action)
        needs_reset = terminated
        records.append((before, action, np.array(env.state, np.float64), reward, terminated))
    return [np.array(column) for column in zip(*records)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", TASKS)
def test_one_step_equals_gymnasium(name, dtype, tolerance, monkeypatch):
    cls, ranges = TASKS[name]
    # Gymnasium keeps this one task's state in float32; its own code run in float64 is what ours is compared with
    shim = types.SimpleNamespace(array=np.array, float32=np.float64)
    if name == "MountainCarContinuous-v0":
        env = gym.make(name)
        monkeypatch.setattr(continuous_mountain_car, "np", types.SimpleNamespace(**{**vars(np), **vars(shim)}))
        env.close()
    before, action, after, reward, terminated = play_gymnasium(name, ranges, 1000)
    task = cls(dtype=dtype)
    fresh = task.reset(make_keys(torch.arange(1000), torch.zeros(1000, dtype=torch.int64)))
    columns = [torch.tensor(column, dtype=dtype) for column in before.T]
    state = type(fresh)(fresh.key, fresh.t, *columns)
    result, our_reward, our_terminated = task.step(state, torch.tensor(action))
    scale = np.abs(after).max(0)
    for i, column in enumerate(result[2:]):
        error = np.abs(column.numpy().astype(np.float64) - after[:, i]) / np.maximum(
            np.abs(after[:, i]), 0.1 * scale[i]
        )
        near_wrap = np.abs(np.abs(after[:, i]) - np.pi) < 1e-4 if name == "Acrobot-v1" and i < 2 else False
        assert error[~np.asarray(near_wrap) & np.ones(1000, bool)].max() <= tolerance, (name, i)
    assert torch.equal(result.t, torch.ones(1000, dtype=torch.int64))
    same = our_terminated.numpy() == terminated
    assert same.all() if dtype == torch.float64 else same.mean() >= 0.999
    error = np.abs(our_reward.numpy()[same].astype(np.float64) - reward[same])
    assert (error / np.maximum(1.0, np.abs(reward[same]))).max() <= max(
        tolerance, 1e-6 if cls is classic.Pendulum else 0
    )
    if name != "Pendulum-v1":
        assert terminated.any()


@pytest.mark.parametrize("name", TASKS)
def test_spaces_limit_and_observation_equal_gymnasium(name):
    cls, _ = TASKS[name]
    twin, ours = gym.make(name), make_scalar(cls)
    assert ours.observation_space == twin.observation_space
    assert ours.action_space == twin.action_space
    assert ours.max_episode_steps == twin.spec.max_episode_steps
    observation, _ = ours.reset(seed=3)
    twin.reset(seed=3)
    twin.unwrapped.state = np.array([float(column) for column in ours.state[2:]])
    action = twin.action_space.sample()
    expected = twin.step(action)[0]
    np.testing.assert_allclose(ours.step(action)[0], expected, rtol=1e-5, atol=1e-6)
    assert ours.observation_space.contains(observation)


@pytest.mark.parametrize("name", TASKS)
def test_first_states_have_gymnasiums_distribution(name):
    cls, _ = TASKS[name]
    env = gym.make(name).unwrapped
    theirs = []
    for seed in range(1500):
        env.reset(seed=seed)
        theirs.append(np.array(env.state, np.float64))
    rows = torch.arange(1500)
    ours = cls(dtype="float64").reset(make_keys(rows, torch.zeros_like(rows)))
    for i, column in enumerate(ours[2:]):
        expected = np.array(theirs)[:, i]
        if np.ptp(expected) == 0:
            assert torch.equal(column, torch.full_like(column, float(expected[0])))
        else:
            assert stats.ks_2samp(column.numpy(), expected).pvalue > 1e-3


@pytest.mark.parametrize("name", TASKS)
def test_passes_gymnasiums_checks_with_no_warning_of_its_own(name):
    messages = []
    for env in (gym.make(name).unwrapped, make_scalar(TASKS[name][0])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_env(env, skip_render_check=True)
        messages.append({str(item.message) for item in caught})
    assert messages[1] <= messages[0]


@pytest.mark.parametrize("name", TASKS)
def test_pictures_follow_the_state(name):
    env = make_scalar(TASKS[name][0], render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.ndim == 3 and first.shape[2] == 3 and first.dtype == np.uint8
    for _ in range(40):
        if env.step(np.ones(env.action_space.shape, env.action_space.dtype))[2]:
            break
    assert (env.render() != first).any()


@pytest.mark.parametrize("name", TASKS)
def test_step_compiles_as_one_graph(name):
    cls, _ = TASKS[name]
    task = cls()
    rows = torch.arange(8)
    state = task.reset(make_keys(rows, torch.zeros_like(rows)))
    shape = (8, *task.action_space.shape)
    action = torch.zeros(8, dtype=torch.int64) if shape == (8,) else torch.full(shape, 0.5)
    expected = task.step(state, action)
    compiled = torch.compile(task.step, fullgraph=True)(state, action)
    for ours, theirs in zip(compiled[0], expected[0]):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(compiled[1], expected[1])


def test_reset_options_change_the_start():
    env = make_scalar(classic.CartPole)
    observation, _ = env.reset(seed=0, options={"low": 0.1, "high": 0.1})
    np.testing.assert_allclose(observation, 0.1, rtol=1e-6)
    observation, _ = make_scalar(classic.Pendulum).reset(seed=0, options={"x_init": 0.0, "y_init": 0.0})
    np.testing.assert_allclose(observation, [1, 0, 0])
    assert make_scalar(classic.CartPole, sutton_barto_reward=True).task.sutton_barto_reward


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lo": 0.1}, r"unknown reset option 'lo'. Did you mean 'low'\?"),
        ({"low": float("nan")}, r"'low' must be a finite number, got nan"),
        ({"low": 1, "high": 0}, r"'low' \(1.0\) must not exceed 'high' \(0.0\)"),
    ],
)
def test_bad_reset_options_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        make_scalar(classic.CartPole).reset(options=options)
