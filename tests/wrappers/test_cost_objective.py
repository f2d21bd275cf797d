"""The second objective: what each cost counts, and what is refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

import polyathlon
from polyathlon.agents import CMORL
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import num_objectives
from polyathlon.wrappers import CandidateAction, CostObjective
from polyathlon.wrappers.cost_objective import ROW_COSTS


class Paying(gym.Env):
    """Pays 3 for an action; its info is what the test says."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Box(-2, 2, (2,))

    def __init__(self, info):
        self.info = info

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 3.0, True, False, self.info


@pytest.mark.parametrize(
    ("cost", "info", "expected"),
    [
        ("steps", {}, 1.0),
        ("effort", {}, 2.5),  # (1 + 4) / 2
        ("length", {"text": "x" * 50}, 0.5),
        ("length", {}, 0.0),
        ("illegal", {"illegal_action": True}, 1.0),
        ("illegal", {"verdict": {"invalid": True}}, 1.0),
        ("illegal", {"verdict": {"invalid": False}}, 0.0),
    ],
)
def test_the_second_objective_is_minus_the_cost(cost, info, expected):
    env = CostObjective(Paying(info), cost)
    env.reset()
    reward = env.step(np.array([1.0, 2.0]))[1]
    assert reward.tolist() == [3.0, -expected] and reward.dtype == np.float32
    assert num_objectives(env) == 2 and env.reward_space.contains(reward)


def test_answers_are_measured_in_their_texts():
    env = CostObjective(CandidateAction(gym.make("polyathlon/FunctionCall-v0")), "length")
    env.reset(seed=0)
    _, reward, *_, info = env.step(np.int64(0))
    assert reward[1] == pytest.approx(-len(info["text"]) / 100)


def test_adapt_gives_it_to_agents_of_several_objectives_alone():
    env = polyathlon.adapt("Pendulum-v1", CMORL, cost="effort")
    assert num_objectives(env) == 2
    with pytest.raises(UsageError, match="fits without wrappers|option"):
        polyathlon.adapt("Pendulum-v1", "sac", cost="effort")


def test_what_means_nothing_is_refused():
    with pytest.raises(UsageError, match="cost.*'step'.*steps"):
        CostObjective(gym.make("Pendulum-v1"), "step")
    with pytest.raises(UsageError, match="pays for 2 objectives already"):
        CostObjective(CostObjective(gym.make("Pendulum-v1")))


@pytest.mark.parametrize("cost", ROW_COSTS)
def test_costs_of_rows_lie_where_the_actions_do(cost):
    paid = ROW_COSTS[cost](torch.ones(3, 2, device="meta"))  # stands for an accelerator
    assert paid.device.type == "meta" and paid.shape == (3,)
