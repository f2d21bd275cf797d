"""Rewards of goals in hindsight from environments of every form, and the probe with goals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stable_baselines3 import HerReplayBuffer as SB3HerReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from polyathlon.agents.streams.environments import as_vec_env
from polyathlon.agents.streams.goals import goal_rewards, refuse_no_rewards
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import MatchNumber, ReachPoint
from polyathlon.envs.tensor import make_scalar, make_vector


def scalar():
    return make_scalar(ReachPoint())


def rows(task=None, **words):
    return make_vector(task or ReachPoint(), num_envs=3, autoreset_mode="same_step", **words)


FORMS = {
    "scalar": scalar,
    "dummy": lambda: DummyVecEnv([scalar] * 2),
    "normalised": lambda: VecNormalize(DummyVecEnv([scalar] * 2)),
    "sync": lambda: SyncVectorEnv([scalar] * 2, autoreset_mode=AutoresetMode.SAME_STEP),
    "async": lambda: AsyncVectorEnv([scalar] * 2, autoreset_mode=AutoresetMode.SAME_STEP),
    "tensor, numpy": rows,
    "tensor, torch": lambda: rows(output="torch"),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_call_pays_a_whole_minibatch(form, monkeypatch):
    calls, pay = [], ReachPoint.compute_reward
    if form != "async":  # whose environments live elsewhere
        monkeypatch.setattr(ReachPoint, "compute_reward", lambda *given: calls.append(given) or pay(*given))
    env = as_vec_env(FORMS[form]())
    refuse_no_rewards(env)
    achieved = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.0, 0.0]])
    desired = torch.tensor([[0.0, 0.0], [0.5, 0.45], [0.0, 0.11], [0.06, 0.07]])
    reward = goal_rewards(env, achieved, desired, [{}] * 4)
    assert reward.tolist() == [0, 0, -1, 0]
    assert len(calls) == (form != "async") and all(
        isinstance(goal, torch.Tensor) for call in calls for goal in call[1:3]
    )
    env.close()


def test_environments_without_rewards_for_goals_are_refused():
    for env in (
        gym.make("Pendulum-v1"),
        rows(MatchNumber()),
        SyncVectorEnv([lambda: gym.make("Pendulum-v1")], autoreset_mode=AutoresetMode.SAME_STEP),
        AsyncVectorEnv([lambda: gym.make("Pendulum-v1")], autoreset_mode=AutoresetMode.SAME_STEP),
    ):
        wrapped = as_vec_env(env)
        with pytest.raises(UsageError, match=r"has no method compute_reward\(achieved_goal, desired_goal, info\)"):
            refuse_no_rewards(wrapped)
        wrapped.close()


class One(gym.Wrapper):
    def compute_reward(self, achieved_goal, desired_goal, info):
        return 0.0


def test_one_reward_for_several_goals_is_refused():
    with pytest.raises(UsageError, match=r"gave rewards of shape \(\) for 4 goals at once"):
        goal_rewards(as_vec_env(One(scalar())), torch.zeros(4, 2), torch.zeros(4, 2), [{}] * 4)


def test_sb3_s_own_buffer_works_on_tensor_tasks():
    env = as_vec_env(rows())
    buffer = SB3HerReplayBuffer(60, env.observation_space, env.action_space, env, "cpu", 3)
    obs = env.reset()
    for _ in range(20):
        after, reward, done, infos = env.step(np.zeros((3, 2), np.float32))
        buffer.add(obs, after, np.zeros((3, 2)), reward, done, infos)
        obs = after
    sample = buffer.sample(20)
    assert set(sample.rewards.flatten().tolist()) == {0.0, -1.0}  # goals in hindsight are where the point stands


def test_the_probe_pays_by_the_distance_and_goes_on_to_its_limit():
    env = make_scalar(ReachPoint(dimension=3, tolerance=0.05))
    obs, _ = env.reset(seed=4)
    assert obs["observation"].tolist() == obs["achieved_goal"].tolist() == [0, 0, 0]
    total, steps, ended = 0.0, 0, False
    while not ended:
        step = np.clip((obs["desired_goal"] - obs["observation"]) / 0.2, -1, 1)
        obs, reward, terminated, ended, info = env.step(step.astype(np.float32))
        assert not terminated and reward == (0.0 if info["is_success"] else -1.0)
        distance = np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"])
        assert info["is_success"] == (distance <= 0.05)
        total, steps = total + reward, steps + 1
    assert steps == 15 and -4 <= total <= 0 and info["is_success"]
    with pytest.raises(UsageError, match="tolerance must be a positive number"):
        ReachPoint(tolerance=0)
