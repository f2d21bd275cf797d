"""SB3's words of steps and minibatches on agents: action_noise, n_steps, replay classes, and what is refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common import buffers
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from polyathlon.agents import IQL, PPO, RLPD, SAC, TD3
from polyathlon.agents.parts.n_step_returns import NStepReturns
from polyathlon.datasets import record
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import Endless, MatchNumber
from polyathlon.envs.tensor import make_vector

SMALL = {"device": "cpu", "seed": 1, "batch_size": 8, "policy_kwargs": {"net_arch": [8, 8]}}
ZERO, ONE = np.zeros(1), np.ones(1)


def rows(task, n_envs=2):
    return make_vector(task, num_envs=n_envs, output="torch", autoreset_mode="same_step")


def actions(agent_class, task, steps, n_envs, **words):
    """What is recorded before anything is learned; these tasks show the same whatever is done."""
    agent = agent_class("MlpPolicy", rows(task, n_envs), train_freq=steps, **SMALL, **words).learn(1)
    return agent.replay.split(agent.replay.rows[: steps * n_envs]).action[:, 0]


@pytest.mark.parametrize(("agent_class", "learning_starts"), [(SAC, 0), (SAC, 1000), (TD3, 0), (TD3, 1000)])
def test_recorded_actions_differ_by_the_noise_alone(agent_class, learning_starts):
    def noisy(sigma):
        noise = NormalActionNoise(ZERO, sigma * ONE)
        return actions(agent_class, MatchNumber(), 20, 20, learning_starts=learning_starts, action_noise=noise)

    none, little, more = noisy(0.0), noisy(0.05), noisy(0.1)
    inside = (more.abs() < 1) & (little.abs() < 1)
    torch.testing.assert_close((more - none)[inside], 2 * (little - none)[inside], atol=1e-5, rtol=1e-4)
    assert inside.float().mean() > 0.8 and float((more - none)[inside].std()) == pytest.approx(0.1, rel=0.15)
    assert float(noisy(50.0).abs().max()) == 1


def test_a_walk_begins_anew_with_every_episode():
    drift = OrnsteinUhlenbeckActionNoise(ONE, ZERO, theta=1.0, dt=0.1)
    still = NormalActionNoise(ZERO, ZERO)
    walked, plain = (
        actions(TD3, Endless(form="box"), 12, 2, learning_starts=0, action_noise=noise) for noise in (drift, still)
    )
    once = [0.1, 0.19, 0.271, 0.3439, 0.40951]  # five steps, then a limit
    wanted = torch.tensor(once + once + once[:2]).repeat_interleave(2)
    torch.testing.assert_close(walked - plain, wanted, atol=1e-5, rtol=0)


def test_action_noise_takes_the_place_of_exploration_noise():
    still = NormalActionNoise(ZERO, ZERO)
    agent = TD3("MlpPolicy", rows(MatchNumber()), learning_starts=20, train_freq=10, action_noise=still, **SMALL)
    agent.learn(20).learning_starts = 10
    agent.learn(20, reset_num_timesteps=False)
    batch = agent.replay.split(agent.replay.rows[20:40])
    torch.testing.assert_close(batch.action, agent.policy.mode(batch.obs))
    with pytest.raises(UsageError, match="leave one of them out"):
        TD3("MlpPolicy", "Pendulum-v1", exploration_noise=0.2, action_noise=still, **SMALL)


@pytest.mark.parametrize(
    "words",
    [
        {"action_noise": OrnsteinUhlenbeckActionNoise(ZERO, ONE)},
        {"action_noise": VectorizedActionNoise(NormalActionNoise(ZERO, 0.3 * ONE), 2)},
        {"n_steps": 3, "buffer_size": 31},
    ],
)
def test_a_resumed_run_is_the_unbroken_one(tmp_path, words):
    def make():
        return SAC("MlpPolicy", rows(Endless(form="box")), learning_starts=10, **words, **SMALL)

    unbroken, plain = (
        make().learn(64),
        SAC("MlpPolicy", rows(Endless(form="box")), learning_starts=10, **SMALL).learn(64),
    )
    path = make().learn(36).checkpoint(tmp_path / "run.pt")
    again = SAC.resume(path, rows(Endless(form="box")), device="cpu")
    again.learn(28, reset_num_timesteps=False)
    assert again.replay.size == unbroken.replay.size
    held = slice(0, unbroken.replay.size)
    assert torch.equal(again.replay.rows[held], unbroken.replay.rows[held])
    assert torch.equal(again.networks["actor"].vector, unbroken.networks["actor"].vector)
    assert not torch.equal(plain.networks["actor"].vector, unbroken.networks["actor"].vector)


def test_files_keep_the_words(tmp_path):
    noise = NormalActionNoise(0.25 * ONE, ZERO)
    SAC("MlpPolicy", "Pendulum-v1", action_noise=noise, n_steps=3, **SMALL).save(tmp_path / "agent.zip")
    again = SAC.load(tmp_path / "agent.zip", env=gym.make("Pendulum-v1"), device="cpu")
    again.learning_starts = 0
    again.learn(12)
    assert again.n_steps == 3 and isinstance(again.replay.sampler, NStepReturns)
    assert float(again.action_noise.draw(1, again.generator)) == 0.25
    changed = SAC.load(
        tmp_path / "agent.zip", gym.make("Pendulum-v1"), "cpu", action_noise=NormalActionNoise(ONE, ZERO)
    )
    assert float(changed.action_noise.draw(1, changed.generator)) == 1


@pytest.mark.parametrize(
    "words",
    [{"n_steps": 3}, {"replay_buffer_class": buffers.NStepReplayBuffer, "replay_buffer_kwargs": {"n_steps": 3}}],
)
def test_n_steps_reach_the_losses(words):
    agent = SAC("MlpPolicy", rows(Endless(form="box")), learning_starts=1000, gamma=0.5, **words, **SMALL).learn(40)
    fields = agent._fields()
    # every step pays 1, a limit cuts after five: sums of 3, 2 or 1 rewards, bootstrapped in each case
    pairs = set(zip(fields["reward"].tolist(), fields["discount"].tolist()))
    assert pairs <= {(1.75, 0.125), (1.5, 0.25), (1.0, 0.5)} and (1.75, 0.125) in pairs
    agent.train(2)


def test_one_step_is_the_run_without_the_word():
    plain, one = (
        SAC("MlpPolicy", rows(MatchNumber()), learning_starts=10, **words, **SMALL).learn(60)
        for words in ({}, {"n_steps": 1, "replay_buffer_class": buffers.ReplayBuffer, "train_freq": (1, "step")})
    )
    assert one.replay.sampler is None
    assert torch.equal(plain.networks["actor"].vector, one.networks["actor"].vector)


def test_returns_of_a_dataset():
    data = record("random", "Pendulum-v1", episodes=2, dataset_id="samplers/n-steps-v0", overwrite=True)
    agent = IQL("MlpPolicy", None, dataset=data, n_steps=4, **SMALL)
    agent.learn(2)
    ends = agent.replay.ended.nonzero()[:, 0].tolist()
    assert ends == [199, 399]
    batch = agent.replay.sampler.returns(agent.replay, torch.tensor([0, 197, 199]))
    reward, g = agent.replay.rows[:, -2], 0.99
    assert float(batch.reward[0]) == pytest.approx(float(sum(g**k * reward[k] for k in range(4))), rel=1e-5)
    assert batch.discount.tolist() == pytest.approx([g**4, g**3, g])
    mixed = RLPD("MlpPolicy", "Pendulum-v1", dataset=data, n_steps=2, learning_starts=4, **SMALL).learn(8)
    assert set(np.round(mixed._fields()["discount"].tolist(), 4)) <= {0.9801, 0.99}


@pytest.mark.parametrize(
    ("agent_class", "words", "message"),
    [
        (SAC, {"use_sde": True}, "SAC does not take use_sde, .*use action_noise="),
        (SAC, {"use_sde_at_warmup": False}, "does not take use_sde_at_warmup"),
        (SAC, {"sde_sample_freq": 4}, "does not take sde_sample_freq"),
        (TD3, {"optimize_memory_usage": True}, "loses the last one of an episode that a limit cut"),
        (PPO, {"use_sde": True}, "PPO does not take use_sde, .*ent_coef= keeps the exploration up"),
        (PPO, {"rollout_buffer_class": buffers.RolloutBuffer}, "the rollout lies in tensors on the device"),
        (PPO, {"rollout_buffer_kwargs": {}}, "leave it out"),
        (SAC, {"n_steps": 0}, "n_steps must be a positive integer, got 0"),
        (SAC, {"train_freq": (1, "episode")}, "train_freq counts steps here.*gradient_steps=-1"),
        (SAC, {"train_freq": TrainFreq(2, TrainFrequencyUnit.EPISODE)}, "train_freq counts steps"),
        (SAC, {"train_freq": (0, "step")}, "train_freq must be a positive integer"),
        (SAC, {"action_noise": NormalActionNoise(np.zeros(2), np.ones(2))}, r"shape \(2,\), an action \(1,\)"),
        (SAC, {"replay_buffer_class": dict}, "replay_buffer_class=dict is not taken"),
        (SAC, {"replay_buffer_class": stable_baselines3.HerReplayBuffer}, "observation, achieved_goal, desired_goal"),
        (SAC, {"replay_buffer_kwargs": {"n_sampled_goal": 2}}, "replay_buffer_class= names no sampler"),
        (SAC, {"replay_buffer_kwargs": {"handle_timeout_termination": False}}, "always bootstrapped"),
        (
            SAC,
            {"replay_buffer_class": buffers.NStepReplayBuffer, "replay_buffer_kwargs": {"gamma": 0.5}},
            "not the agent's",
        ),
        (
            SAC,
            {"replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": {"n_sampled_goals": 2}},
            "Did you mean 'n_sampled_goal'",
        ),
        (SAC, {"replay_buffer_class": "HerReplayBuffer", "n_steps": 2}, "with n_steps > 1 is not taken"),
    ],
)
def test_what_is_not_taken_says_why(agent_class, words, message):
    with pytest.raises(UsageError, match=message):
        agent_class("MlpPolicy", "CartPole-v1" if agent_class is PPO else "Pendulum-v1", device="cpu", **words)
