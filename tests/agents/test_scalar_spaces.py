"""Observations and actions that are one number, of a Box of shape (): they train as those of shape (1,) do."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import polyathlon
from polyathlon.agents.parts.features import Preparation
from polyathlon.agents.parts.observations import as_rows

NET = {"policy_kwargs": {"net_arch": [8]}}
PPO = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, **NET}
SAC = {"learning_starts": 4, "batch_size": 4, **NET}
AGENTS = {
    "ppo": (PPO, 2),
    "pmoe_ppo": (PPO, 2),
    "sac": (SAC, 1),
    "pmoe": (SAC, 1),
    "cmorl": ({"n_steps": 4, "batch_size": 4, "n_epochs": 1, **NET}, 30),
}


class Number(gym.Env):
    """A number to repeat; `shape` is () or (1,), of what is seen and of what is done."""

    def __init__(self, shape):
        self.observation_space = self.action_space = spaces.Box(-1, 1, shape, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.shown = 0, self.np_random.uniform(-1, 1)
        return np.full(self.observation_space.shape, self.shown, np.float32), {}

    def step(self, action):
        assert np.shape(action) == self.action_space.shape
        reward = -abs(float(np.reshape(action, ())) - self.shown)
        self.steps, self.shown = self.steps + 1, self.np_random.uniform(-1, 1)
        return np.full(self.observation_space.shape, self.shown, np.float32), reward, False, self.steps == 5, {}


@pytest.mark.parametrize("name", AGENTS)
def test_a_number_trains_as_a_row_of_one_number_does(name):
    words, rows = AGENTS[name]
    numbers = []
    for shape in ((), (1,)):
        agent = polyathlon.make_agent(name, Number(shape), n_envs=rows, seed=0, **words)
        agent.learn(rows * 12)
        action, _ = agent.predict(np.full(shape, 0.3, np.float32), deterministic=True)
        assert action.shape == shape
        numbers.append(float(np.reshape(action, ())))
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)


def test_a_part_of_an_observation_may_be_one_number():
    space = spaces.Dict({"speed": spaces.Box(-1, 1, (), np.float32)})
    assert Preparation(space)({"speed": torch.tensor([0.5, 0.25])})["speed"].tolist() == [[0.5], [0.25]]
    assert as_rows(torch.ones(3)).shape == (3, 1) and as_rows(torch.ones(3, 2, 4)).shape == (3, 8)
