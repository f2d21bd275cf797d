"""Copies of environments."""

from __future__ import annotations

import tempfile

import gymnasium as gym
import numpy as np
import pytest

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import changes_since_made, copy_env


class Scale(gym.RewardWrapper, gym.utils.RecordConstructorArgs):
    def __init__(self, env, by):
        gym.utils.RecordConstructorArgs.__init__(self, by=by)
        super().__init__(env)
        self.by = by

    def reward(self, reward):
        return reward * self.by


class Silent(gym.Wrapper):
    """Does not record its arguments."""


class Stuck(gym.Wrapper):
    def __getstate__(self):
        raise TypeError("no")

    def __deepcopy__(self, memo):
        raise TypeError("no")


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: Scale(e, 3.0), Silent])
def test_a_copy_is_independent_and_has_the_same_settings(wrap):
    env = wrap(gym.make("Pendulum-v1", g=5.0, max_episode_steps=7))
    twin = copy_env(env)
    assert type(twin) is type(env) and twin.unwrapped is not env.unwrapped and twin.unwrapped.g == 5.0
    left, _ = env.reset(seed=3)
    right, _ = twin.reset(seed=3)
    np.testing.assert_array_equal(left, right)
    steps = [(env.step(np.ones(1, np.float32)), twin.step(np.ones(1, np.float32))) for _ in range(7)]
    assert all(a[1] == b[1] and a[3] == b[3] for a, b in steps)
    assert steps[-1][0][3]


def test_an_environment_that_cannot_be_copied_says_so():
    with pytest.raises(UsageError, match="RecordConstructorArgs"):
        copy_env(Stuck(Silent(gym.make("Pendulum-v1"))))


class InFolder(gym.Env):
    """Works in a temporary folder of its own, and can be copied by nothing but its spec."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, size=1):
        self.size, self.folder = size, tempfile.TemporaryDirectory()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def __getstate__(self):
        raise TypeError("no")

    def __deepcopy__(self, memo):
        raise TypeError("no")


def test_what_every_environment_has_of_its_own_is_no_setting_and_what_was_set_still_is(monkeypatch):
    spec = gym.envs.registration.EnvSpec("InFolder-v0", entry_point=InFolder)
    monkeypatch.setitem(gym.registry, "InFolder-v0", spec)
    env = gym.make("InFolder-v0", size=3)
    assert changes_since_made(env) == []
    twin = copy_env(env)
    assert twin.unwrapped.size == 3 and twin.unwrapped.folder.name != env.unwrapped.folder.name
    env.unwrapped.size = 4
    assert [path.split(".")[-1] for path in changes_since_made(env)] == ["size"]
    with pytest.raises(UsageError, match="changed since gym.make: .*size"):
        copy_env(env)
