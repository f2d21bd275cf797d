"""Boxes of float16: what is seen trains as float32, and actions are of the space's own type, as an environment may demand."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

import polyathlon

NET = {"policy_kwargs": {"net_arch": [4]}, "device": "cpu", "seed": 0}
PPO = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, **NET}
SAC = {"learning_starts": 4, "batch_size": 4, **NET}
POPULATION = {"num_initial_policies": 2, "num_extension_policies": 1, "n_envs": 4, **PPO}
AGENTS = {"ppo": PPO, "pmoe_ppo": PPO, "sac": SAC, "td3": SAC, "pmoe": SAC, "expo": SAC, "cmorl": POPULATION}


class Narrow(gym.Env):
    """Refuses actions outside of its space, whose type is part of it."""

    def __init__(self):
        self.observation_space = spaces.Box(-1, 1, (3,), np.float16)
        self.action_space = spaces.Box(-2, 2, (2,), np.float16)

    def _shown(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float16)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._shown(), {}

    def step(self, action):
        assert self.action_space.contains(action), action.dtype
        self.steps += 1
        return self._shown(), -float(np.abs(action).sum()), False, self.steps == 5, {}


@pytest.mark.parametrize("rows", ["as it is", "sb3", "gymnasium"])
@pytest.mark.parametrize("name", AGENTS)
def test_actions_are_of_the_type_of_their_space(name, rows):
    words = dict(AGENTS[name])
    number = words.pop("n_envs", 1) if rows != "as it is" else 1
    same_step = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}
    env = {
        "as it is": Narrow,
        "sb3": lambda: DummyVecEnv([Narrow] * number),
        "gymnasium": lambda: gym.vector.SyncVectorEnv([Narrow] * number, **same_step),
    }[rows]()
    agent = polyathlon.make_agent(name, env, **words).learn(24)
    for deterministic in (True, False):
        action, _ = agent.predict(np.zeros(3, np.float16), deterministic=deterministic)
        assert agent.action_space.contains(action) and np.isfinite(action).all()
