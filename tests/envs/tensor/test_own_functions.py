"""Copies of an environment whose functions name it: each copy reads and steps itself."""

from __future__ import annotations

import types

import gymnasium as gym
import numpy as np
import pytest

from polyathlon.agents import PPO
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import copy_envs


class Counting(gym.Env):
    """Pays the number of its steps, and ends after five."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), float(self.steps), False, self.steps >= 5, {}


gym.register("tests/Counting-v0", Counting)


def made() -> gym.Env:
    return gym.make("tests/Counting-v0")


def played(rows: list[gym.Env], steps: tuple[int, ...]) -> list[list[float]]:
    """Step each row so often, all in turns, and return what each was paid."""
    for row in rows:
        row.reset(seed=0)
    paid: list[list[float]] = [[] for _ in rows]
    for step in range(max(steps)):
        for own, row, count in zip(paid, rows, steps, strict=True):
            if step < count:
                own.append(float(row.step(np.zeros(1, np.float32))[1]))
    return paid


def by_closure() -> gym.Env:
    env = made()
    before = env.unwrapped.step

    def step(action):
        obs, reward, terminated, truncated, info = before(action)
        return obs, reward + 100, terminated, truncated, info

    env.unwrapped.step = step
    return env


def by_defaults_twice() -> gym.Env:
    env = made()
    for _ in range(2):

        def step(action, before=env.unwrapped.step):
            obs, reward, terminated, truncated, info = before(action)
            return obs, reward + 50, terminated, truncated, info

        env.unwrapped.step = step
    return env


def by_method() -> gym.Env:
    env = made()

    def step(self, action):
        obs, reward, terminated, truncated, info = type(self).step(self, action)
        return obs, reward + 100, terminated, truncated, info

    env.unwrapped.step = types.MethodType(step, env.unwrapped)
    return env


def by_wrapper() -> gym.Env:
    env = made()
    return gym.wrappers.TransformReward(env, lambda reward: 100 + env.unwrapped.steps)


@pytest.mark.parametrize("make", [by_closure, by_defaults_twice, by_method, by_wrapper])
def test_each_copy_steps_itself(make):
    """Rows at different steps, which a shared original would mix."""
    assert played(copy_envs(make(), 2), (4, 2)) == [[101.0, 102.0, 103.0, 104.0], [101.0, 102.0]]


@pytest.mark.parametrize("make", [by_closure, by_wrapper])
def test_rows_of_an_agent_end_where_each_ends(make):
    env = PPO("MlpPolicy", make(), n_envs=3, n_steps=8, batch_size=8, device="cpu").env
    env.reset()
    ends = [env.step(np.zeros((3, 1), np.float32))[2].tolist() for _ in range(6)]
    assert ends == [[False] * 3] * 4 + [[True] * 3] + [[False] * 3]


class Tally:
    """A reward function that counts its calls."""

    calls = 0

    def __call__(self, reward):
        self.calls += 1
        return float(self.calls)


def test_objects_given_to_wrappers_are_each_row_s_own():
    env = gym.wrappers.TransformReward(made(), Tally())
    assert played(copy_envs(env, 2), (3, 2)) == [[1.0, 2.0, 3.0], [1.0, 2.0]]


original = made()


def test_a_global_name_of_the_environment_is_refused_where_more_than_its_spaces_is_read():
    with pytest.raises(UsageError, match="by the global name 'original'.*Put it in a gymnasium.Wrapper"):
        copy_envs(gym.wrappers.TransformReward(original, lambda reward: original.unwrapped.steps), 2)
    scaled = gym.wrappers.TransformReward(original, lambda reward: reward * original.observation_space.high[0])
    assert played(copy_envs(scaled, 2), (3, 2)) == [[1.0, 2.0, 3.0], [1.0, 2.0]]


class Pays(gym.Wrapper):
    """What the error advises."""

    def step(self, action):
        obs, _, terminated, truncated, info = self.env.step(action)
        return obs, float(self.unwrapped.steps), terminated, truncated, info


def test_the_wrapper_that_the_error_advises_reads_its_own_row():
    assert played(copy_envs(Pays(made()), 2), (3, 2)) == [[1.0, 2.0, 3.0], [1.0, 2.0]]
