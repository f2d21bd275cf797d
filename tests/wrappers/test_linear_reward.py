"""LinearReward: the weighted sum, what passes unchanged, and what is refused."""

from __future__ import annotations

import pickle

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO as SB3PPO

import polyathlon
from polyathlon.agents import PPO
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.copies import copy_env
from polyathlon.wrappers import LinearReward, NodeAction

TOURS = {"num_nodes": 5, "reward": "vector", "disable_env_checker": True}


def tours() -> gym.Env:
    return gym.make("polyathlon/MultiObjectiveTSP-v0", **TOURS)


def test_the_weighted_sum_is_paid_and_everything_else_passes():
    plain, wrapped = tours(), LinearReward(tours(), [2.0, -1.0])
    (obs, info), (same_obs, same_info) = plain.reset(seed=1), wrapped.reset(seed=1)
    np.testing.assert_array_equal(obs["nodes"], same_obs["nodes"])
    for point in (3, 1):
        np.testing.assert_array_equal(info["action_mask"], same_info["action_mask"])
        np.testing.assert_array_equal(wrapped.get_wrapper_attr("action_masks")(), info["action_mask"])
        _, reward, _, _, info = plain.step(point)
        _, number, _, _, same_info = wrapped.step(point)
        assert isinstance(number, float) and number == pytest.approx(2 * float(reward[0]) - float(reward[1]))
        np.testing.assert_array_equal(same_info["vector_reward"], reward)


def test_without_weights_all_objectives_weigh_the_same():
    assert LinearReward(tours()).weight.tolist() == [0.5, 0.5]


def test_copies_keep_the_weights():
    wrapped = LinearReward(tours(), np.array([0.25, 0.75]))
    for other in (copy_env(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert isinstance(other, LinearReward) and other.weight.tolist() == [0.25, 0.75]


@pytest.mark.parametrize("weight", [[1.0], [1.0, np.inf], "equal", [[1.0, 0.0]]])
def test_other_weights_are_refused(weight):
    with pytest.raises(UsageError, match="2 objectives: give as many finite weights"):
        LinearReward(tours(), weight)


def test_a_reward_that_is_a_number_already_is_refused():
    with pytest.raises(UsageError, match="pays one number: leave it out"):
        LinearReward(gym.make("Pendulum-v1"))
    with pytest.raises(UsageError, match="pays one number"):
        LinearReward(LinearReward(tours()))


def test_agents_of_numbers_train_on_it():
    wrapped = polyathlon.adapt(tours(), "ppo", weight=[0.3, 0.7])
    assert isinstance(wrapped, LinearReward)
    PPO("MultiInputPolicy", wrapped, n_steps=8, batch_size=8, seed=0).learn(16)
    SB3PPO("MultiInputPolicy", LinearReward(tours()), n_steps=8, batch_size=8, device="cpu").learn(8)
    continuous = polyathlon.adapt(tours(), "sac")
    names = set()
    while isinstance(continuous, gym.Wrapper):
        names.add(type(continuous).__name__)
        continuous = continuous.env
    assert {"LinearReward", NodeAction.__name__} <= names  # cities are chosen by where they lie


def test_rows_of_a_task_in_words_are_weighted_too():
    task = gym.make("polyathlon/Code-v0", reward="vector", disable_env_checker=True)
    weight = [1.0, 0.0, 0.01]
    rows = LinearReward(task, weight).batch(2)
    rows.reset(seed=0)
    _, reward, _, _, infos = rows.step(["no program", ""])
    assert reward.shape == (2,) and reward.dtype == np.float32
    for number, info in zip(reward, infos):
        assert number == pytest.approx(float(info["vector_reward"] @ np.array(weight)), rel=1e-5)
    with pytest.raises(UsageError, match="directly around the task in words"):
        LinearReward(tours()).batch(2)
