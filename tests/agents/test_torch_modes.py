"""Settings of torch around an agent: refused where it would fail in the middle or learn nothing, harmless around `predict`."""

from __future__ import annotations

import contextlib

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import PPO, SAC, LanguageAgent
from polyathlon.envs.errors import UsageError

SMALL = {"device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [4]}}


@contextlib.contextmanager
def numbers(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


MODES = [
    (lambda: numbers(torch.float64), "default type is torch.float64, .*set_default_dtype"),
    (torch.inference_mode, "nothing can be learnt in torch.inference_mode"),
    (lambda: torch.autocast("cpu", torch.bfloat16), "outside torch.autocast"),
    (lambda: default_device("meta"), "default device is 'meta', but this agent is on 'cpu': .*set_default_device"),
]


def language_agent():
    env = polyathlon.adapt(gym.make("polyathlon/Reasoning-v0", task="chain_sum"), LanguageAgent, max_new_tokens=2)
    return LanguageAgent("tiny", env, recipe="grpo", num_prompts=2, group_size=2, seed=0)


MAKERS = [
    lambda: PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, n_epochs=1, **SMALL),
    lambda: SAC("MlpPolicy", "Pendulum-v1", learning_starts=2, batch_size=2, **SMALL),
    language_agent,
]


@pytest.mark.parametrize("make", MAKERS, ids=["ppo", "sac", "language"])
@pytest.mark.parametrize(("mode", "message"), MODES)
def test_agents_are_not_made_and_do_not_learn_where_they_could_not(mode, message, make):
    agent = make()
    with mode(), pytest.raises(UsageError, match=message):
        agent.learn(8)
    with mode(), pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize("make", MAKERS[:2], ids=["ppo", "sac"])
def test_predict_says_that_the_default_device_is_another(make):
    agent, obs = make(), np.zeros(3, np.float32)
    with default_device("meta"), pytest.raises(UsageError, match="default device is 'meta'"):
        agent.predict(obs)
    with default_device("cpu"):
        agent.predict(obs)


@pytest.mark.parametrize("make", MAKERS[:2], ids=["ppo", "sac"])
def test_predict_acts_in_every_mode_and_the_agent_learns_after_it(make):
    agent, obs = make(), np.zeros(3, np.float32)
    plain = agent.predict(obs, deterministic=True)[0]
    for mode, _ in MODES[:2]:
        with mode():
            np.testing.assert_array_equal(agent.predict(obs, deterministic=True)[0], plain)
    assert agent.learn(8).num_timesteps == 8
