"""Agents with goals in hindsight: they learn, resume bit by bit, take SB3's class, and refuse what has no goals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from polyathlon.agents import RLPD, SAC, TD3, HerReplayBuffer
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import ReachPoint
from polyathlon.envs.tensor import make_scalar, make_vector

SMALL = {"device": "cpu", "seed": 1, "batch_size": 16, "policy_kwargs": {"net_arch": [8, 8]}, "learning_starts": 48}
WORDS = {"n_sampled_goal": 3, "goal_selection_strategy": "episode"}


def rows(n_envs=3, **words):
    return make_vector(ReachPoint(**words), num_envs=n_envs, output="torch", autoreset_mode="same_step")


def her(agent_class=SAC, env=None, **words):
    settings = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": WORDS, **SMALL, **words}
    return agent_class("MultiInputPolicy", rows() if env is None else env, **settings)


def success(agent, number=100):
    env = rows(number)
    obs, _ = env.reset(seed=7)
    for _ in range(15):
        action, _ = agent.predict({key: part.numpy() for key, part in obs.items()}, deterministic=True)
        obs, reward, *_ = env.step(action)
    return float((reward == 0).float().mean())


def test_goals_that_are_never_rewarded_by_chance_are_reached():
    def learned(**words):
        settings = {"learning_rate": 3e-3, "batch_size": 128, "gamma": 0.9, "learning_starts": 600}
        settings |= {"policy_kwargs": {"net_arch": [32, 32]}, "device": "cpu", "seed": 0}
        return success(SAC("MultiInputPolicy", rows(8), **settings, **words).learn(6400))

    assert learned(replay_buffer_class=HerReplayBuffer) >= 0.8


@pytest.mark.parametrize(
    ("agent_class", "words"),
    [(SAC, {"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))}), (TD3, {"buffer_size": 100})],
)
def test_a_resumed_run_is_the_unbroken_one(tmp_path, agent_class, words):
    unbroken = her(agent_class, **words).learn(150)
    path = her(agent_class, **words).learn(99).checkpoint(tmp_path / "run.pt")
    again = agent_class.resume(path, rows(), device="cpu")
    assert again.replay.sampler.settings() == {**WORDS, "copy_info_dict": False}
    again.learn(51, reset_num_timesteps=False)
    assert torch.equal(again.networks["actor"].vector, unbroken.networks["actor"].vector)
    assert torch.equal(again.replay.sampler.episodes.first, unbroken.replay.sampler.episodes.first)
    plain = her(agent_class, replay_buffer_class=None, replay_buffer_kwargs=None, **words).learn(150)
    assert not torch.equal(plain.networks["actor"].vector, unbroken.networks["actor"].vector)
    assert unbroken.replay.capacity % 3 == 0 and unbroken.replay.capacity <= words.get("buffer_size", 1_000_000)


def test_the_memory_in_a_file_and_episodes_that_a_new_call_of_learn_cuts(tmp_path):
    agent = her().learn(60)  # 20 steps: one episode of 15 and five of the next, in each row
    assert agent.replay.sampler.episodes.count().tolist() == [15] * 3
    agent.save_replay_buffer(tmp_path / "memory")
    fresh = her()
    fresh.load_replay_buffer(tmp_path / "memory")
    assert fresh.replay.sampler.episodes.count().tolist() == [20] * 3
    going = her()
    going.load_replay_buffer(tmp_path / "memory", truncate_last_traj=False)
    assert going.replay.sampler.episodes.count().tolist() == [15] * 3
    agent.learn(3)
    assert agent.replay.sampler.episodes.count().tolist() == [20] * 3


def test_sb3_s_class_selects_ours_and_scalar_and_normalised_environments_are_taken():
    for env in (make_scalar(ReachPoint()), VecNormalize(DummyVecEnv([lambda: make_scalar(ReachPoint())] * 2))):
        words = {"goal_selection_strategy": "final", "copy_info_dict": True}
        agent = her(env=env, replay_buffer_class=stable_baselines3.HerReplayBuffer, replay_buffer_kwargs=words).learn(
            70
        )
        sampler = agent.replay.sampler
        assert isinstance(sampler, HerReplayBuffer) and sampler.goal_selection_strategy == "final"
        assert {"is_success"} <= set(sampler.infos[0])
        batch = agent.replay.sample(16, agent.generator)
        assert bool((batch.reward[12:] < 0).any())
        assert float(batch.reward.min()) == (-1 if agent.get_vec_normalize_env() is None else batch.reward.min())


def test_normalised_goals_are_those_of_the_raw_ones():
    env = VecNormalize(DummyVecEnv([lambda: make_scalar(ReachPoint())] * 2), clip_obs=100)
    agent = her(env=env).learn(120)
    place = agent.replay.sampler.episodes.draw(torch.linspace(0, 0.99, 20, dtype=torch.float64))
    u = torch.linspace(0, 0.99, 20, dtype=torch.float64)
    found = agent.replay.sampler.relabelled(agent.replay, place, u)
    goals = agent.replay.next_obs["achieved_goal"][agent.replay.sampler.goal_places(place, u)]
    raw = {**{key: part[place].numpy() for key, part in agent.replay.obs.items()}, "desired_goal": goals.numpy()}
    for key, wanted in env.normalize_obs(raw).items():
        np.testing.assert_allclose(found.obs[key].numpy(), wanted, rtol=1e-5)
    achieved = agent.replay.next_obs["achieved_goal"][place]
    paid = ((achieved - goals).norm(dim=1) <= 0.1).float() - 1
    np.testing.assert_allclose(found.reward.numpy(), env.normalize_reward(paid.numpy()), rtol=1e-5)


def test_rlpd_changes_the_goals_of_what_it_met_alone():
    data = record("random", make_scalar(ReachPoint()), episodes=4, dataset_id="samplers/reach-v0", overwrite=True)
    agent = her(RLPD, dataset=data).learn(60)
    batch = agent._minibatch()
    recorded, own = batch.obs["desired_goal"][:8], batch.obs["desired_goal"][8:]
    held = agent.offline.obs["desired_goal"]
    assert all(bool((held == goal).all(1).any()) for goal in recorded)
    met = agent.replay.obs["desired_goal"][:60]
    assert sum(bool((met == goal).all(1).any()) for goal in own) == 2  # one in four has its own goal
    with pytest.raises(UsageError, match="needs a memory of its own: give offline_ratio="):
        her(SAC, dataset=data, offline_steps=10)


class NoReward(gym.Env):
    box = spaces.Box(-1, 1, (2,))
    observation_space = spaces.Dict({"observation": box, "achieved_goal": box, "desired_goal": box})
    action_space = box


class OtherGoals(NoReward):
    observation_space = spaces.Dict({**NoReward.observation_space.spaces, "desired_goal": spaces.Box(-1, 1, (3,))})


class NoGoals(NoReward):
    observation_space = spaces.Dict({"observation": NoReward.box, "goal": NoReward.box})


@pytest.mark.parametrize(
    ("env", "words", "message"),
    [
        (NoReward, {}, r"NoReward has no method compute_reward\(achieved_goal, desired_goal, info\)"),
        (OtherGoals, {}, "keys observation, achieved_goal, desired_goal, the goals of one shape"),
        (NoGoals, {}, "leave replay_buffer_class out, or take a goal environment"),
        (rows, {"n_steps": 2}, "the reward of a new goal over several steps is not defined here"),
        (rows, {"replay_buffer_class": stable_baselines3.common.buffers.RolloutBuffer}, "RolloutBuffer is not taken"),
        (rows, {"replay_buffer_kwargs": {"goal_selection_strategy": "last"}}, "unknown goal selection strategy 'last'"),
    ],
)
def test_what_cannot_be_changed_in_hindsight_is_refused(env, words, message):
    with pytest.raises(UsageError, match=message):
        her(env=env(), **words)


def test_learning_before_an_episode_has_ended_says_what_to_do():
    with pytest.raises(UsageError, match="let learning_starts be more than the longest episode"):
        her(learning_starts=10).learn(40)
