"""Environments that break the interface, also after a while, and spaces that no agent acts in: named, not an error of numpy's."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import polyathlon
from polyathlon.agents import PPO, SAC
from polyathlon.envs.errors import UsageError

SMALL = {"device": "cpu", "policy_kwargs": {"net_arch": [4]}}
RIGHT = (np.zeros(3, np.float32), 0.5, False, False)


class Later(gym.Env):
    """Right for ten steps; then it returns what `broken` says, or does what it does."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)

    def __init__(self, broken=None, action_space=None):
        self.broken, self.steps = broken, 0
        self.action_space = spaces.Box(-1, 1, (2,), np.float32) if action_space is None else action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return RIGHT[0], {}

    def step(self, action):
        self.steps += 1
        if self.broken is None or self.steps <= 10:
            assert self.action_space.contains(action)
            return *RIGHT, {}
        return self.broken() if callable(self.broken) else self.broken


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ((*RIGHT[:3], {}), "Later breaks Gymnasium's interface: .*expected 5, got 4"),
        ((*RIGHT, None), "Later breaks Gymnasium's interface: .*'NoneType'"),
        ((RIGHT[0], None, False, False, {}), "Later breaks Gymnasium's interface: .*'NoneType'"),
        ((RIGHT[0], np.zeros(2), False, False, {}), "Later breaks Gymnasium's interface: "),
        ((np.zeros(6, np.float32), *RIGHT[1:], {}), r"Later returned an observation of shape \(6,\), .* says \(3,\)"),
        ((None, *RIGHT[1:], {}), r"Later returned an observation of shape \(\), .* says \(3,\)"),
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
def test_what_a_step_returns_is_named_where_it_cannot_be_read(broken, message, rows):
    agent = PPO("MlpPolicy", Later(broken), n_envs=rows, n_steps=16, batch_size=16, seed=0, **SMALL)
    with pytest.raises(UsageError, match=message):
        agent.learn(32)


def test_an_error_of_the_environment_itself_stays_what_it_is():
    def fails():
        raise ValueError("not today")

    with pytest.raises(ValueError, match="^not today$") as error:
        PPO("MlpPolicy", Later(fails), n_steps=16, batch_size=16, seed=0, **SMALL).learn(16)
    assert not isinstance(error.value, UsageError)


@pytest.mark.parametrize("agent_class", [PPO, SAC])
@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 5, (2,), np.int64), "acts in real numbers, but Box.* takes whole ones; make it a MultiDiscrete"),
        (spaces.Box(-1, 1, (0,), np.float32), "has nothing to choose in Box"),
    ],
)
def test_a_box_that_no_agent_acts_in_is_refused(agent_class, space, message):
    with pytest.raises(UsageError, match=f"{agent_class.__name__} {message}"):
        agent_class("MlpPolicy", Later(action_space=space), **SMALL)


@pytest.mark.parametrize("low", [0, [0, -3]])
def test_the_wrapper_that_the_refusal_of_whole_numbers_names_helps(low):
    env = Later(action_space=spaces.Box(np.full(2, low), np.full(2, 5), dtype=np.int64))
    with pytest.raises(UsageError) as error:
        SAC("MlpPolicy", env, **SMALL)
    advice = str(error.value).split("or round: ")[1]
    SAC("MlpPolicy", eval(advice, {"gymnasium": gym, "env": env}), learning_starts=4, batch_size=4, **SMALL).learn(8)


def test_actions_of_several_parts_are_an_error_of_the_user():
    """It was a TypeError, which the command line showed as a traceback."""
    env = Later(action_space=spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))))
    with pytest.raises(UsageError, match="the action space Tuple.* has no form that an agent can act in"):
        polyathlon.train("ppo", env, 16)


def test_classes_in_several_axes_are_refused_with_the_wrapper_that_reads_them():
    env = Later()
    env.observation_space = spaces.MultiDiscrete([[3, 4], [2, 2]])
    with pytest.raises(UsageError, match="more than one axis, .*VectorObservation"):
        PPO("MlpPolicy", env, **SMALL)
