"""PPO: what it learns, and what it does as an SB3 algorithm."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy

from polyathlon.agents import PPO
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import make_vector

GAMMA = 0.5


def probe(name, num_envs=8, **options):
    return make_vector(
        f"polyathlon.envs.probes:{name}", num_envs, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, **options
    )


def small(env, **kwargs):
    options = {"n_steps": 32, "batch_size": 64, "n_epochs": 8, "learning_rate": 3e-3, "gamma": GAMMA, "seed": 0}
    return PPO("MlpPolicy", env, **{**options, **kwargs})


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ValueNow", "discrete"),
        ("RewardLater", "box"),
        ("Endless", "discrete"),
        ("MaskHolds", "discrete"),
        ("MatchSign", "discrete"),
        ("MatchSign", "box"),
    ],
)
def test_probe_values(name, form, fast):
    agent = small(probe(name, form=form), fast_update=fast).learn(6_000)
    values = agent.source.vector_env.task.values(GAMMA)
    found = agent.policy.values(torch.tensor(list(values)).float())
    torch.testing.assert_close(found, torch.tensor(list(values.values())).float(), atol=0.07, rtol=0)
    assert agent.ep_info_buffer[-1]["r"] >= 0.99 or name == "MatchSign"


def test_credit_flows_back_over_time():
    agent = small(probe("EarlyChoice")).learn(10_000)
    assert agent.predict(np.zeros(2, np.float32), deterministic=True)[0] == 1
    assert agent.policy.values(torch.zeros(1, 2)).item() == pytest.approx(GAMMA**2, abs=0.05)


def test_a_continuous_action_follows_the_observation():
    agent = small(probe("MatchNumber")).learn(12_000)
    shown = np.stack([np.linspace(-0.4, 0.4, 5), np.zeros(5)], 1).astype(np.float32)
    np.testing.assert_allclose(agent.predict(shown, deterministic=True)[0][:, 0], shown[:, 0], atol=0.1)


def test_learns_cartpole():
    agent = PPO("MlpPolicy", "CartPole-v1", n_steps=512, learning_rate=1e-3, seed=0).learn(14_000)
    mean, _ = evaluate_policy(agent, Monitor(gym.make("CartPole-v1")), n_eval_episodes=5)
    assert mean > 400


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_save_and_load_predict_the_same(env, tmp_path):
    agent = PPO("MlpPolicy", gym.make(env), n_steps=64, seed=0, normalize_observations=True, normalize_rewards=True)
    agent.learn(128)
    agent.save(tmp_path / "agent.zip")
    again = PPO.load(tmp_path / "agent.zip", env=gym.make(env))
    observation = np.stack([gym.make(env).reset(seed=s)[0] for s in range(20)])
    for expected, given in zip(
        agent.predict(observation, deterministic=True), again.predict(observation, deterministic=True)
    ):
        np.testing.assert_array_equal(expected, given)
    again.learn(64)
    assert again.policy.moments.count == 192


def parameters_after(total, seed, **kwargs):
    agent = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=64, n_epochs=2, seed=seed, **kwargs).learn(total)
    return agent.networks["model"].vector.detach()


def test_the_same_seed_gives_the_same_numbers_and_leaves_global_state_alone():
    before = torch.random.get_rng_state()
    first = parameters_after(256, 3)
    assert torch.equal(first, parameters_after(256, 3))
    assert not torch.equal(first, parameters_after(256, 4))
    assert torch.equal(before, torch.random.get_rng_state())


class CheckpointAt(BaseCallback):
    """Write one checkpoint when a number of steps is reached, in the middle of a rollout."""

    def __init__(self, path, at):
        super().__init__()
        self.path, self.at = path, at

    def _on_step(self):
        if self.num_timesteps == self.at:
            self.model.checkpoint(self.path)
        return True


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_resume_in_the_middle_of_a_rollout_equals_the_unbroken_run(env, tmp_path):
    def make():
        return gym.make(env, max_episode_steps=30)

    options = {"n_steps": 64, "n_epochs": 2, "seed": 1, "normalize_observations": True, "normalize_rewards": True}
    whole = PPO("MlpPolicy", make(), **options)
    whole.learn(320, callback=CheckpointAt(tmp_path / "agent.checkpoint", 161))
    again = PPO.resume(tmp_path / "agent.checkpoint", make())
    assert again.num_timesteps == 161
    again.learn(320 - 161, reset_num_timesteps=False)
    assert torch.equal(whole.networks["model"].vector, again.networks["model"].vector)
    assert list(whole.ep_info_buffer) == list(again.ep_info_buffer)
    assert whole.num_timesteps == again.num_timesteps


def test_sb3s_callbacks_and_evaluation_work(tmp_path):
    agent = PPO("MlpPolicy", Monitor(gym.make("Pendulum-v1")), n_steps=64, seed=1, tensorboard_log=str(tmp_path / "tb"))
    callback = EvalCallback(Monitor(gym.make("Pendulum-v1")), eval_freq=100, n_eval_episodes=1, log_path=str(tmp_path))
    agent.learn(200, callback=callback, progress_bar=True)
    assert (tmp_path / "evaluations.npz").exists() and any((tmp_path / "tb").iterdir())
    mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=2)
    assert -2_000 < mean < 0


def test_a_callback_can_stop():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 10

    assert PPO("MlpPolicy", gym.make("Pendulum-v1"), n_steps=64).learn(1_000, callback=Stop()).num_timesteps == 10


def test_masks_given_to_predict_hold():
    agent = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=32, seed=0)
    observation = np.zeros((50, 4), np.float32)
    masks = np.tile([[True, False], [False, True]], (25, 1))
    for deterministic in (True, False):
        actions, _ = agent.predict(observation, deterministic=deterministic, action_masks=masks)
        np.testing.assert_array_equal(actions, np.tile([0, 1], 25))
    assert agent.predict(observation[0], action_masks=np.array([False, True]))[0] == 1


class Shown(gym.Env):
    """Observations of any space; every action pays 1 and each episode is one step."""

    action_space = spaces.Discrete(3, start=5)

    def __init__(self, space):
        self.observation_space = space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 1.0, True, False, {}


TOKENS = spaces.Dict({"tokens": spaces.Box(0, 258, (12,), np.int64), "length": spaces.Box(0, 12, (), np.int64)})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Box(0, 255, (36, 36, 3), np.uint8),
        spaces.Dict({"a": spaces.Box(-1, 1, (2, 3)), "b": spaces.Discrete(3)}),
        TOKENS,
    ],
)
def test_observations_of_any_space(space):
    agent = PPO("MlpPolicy", Shown(space), n_steps=64, seed=0, learning_rate=3e-3).learn(192)
    observation = agent.env.reset()
    assert agent.predict(observation)[0][0] in (5, 6, 7)
    value = agent.policy.predict_values(agent.policy.obs_to_tensor(observation)[0]).item()
    assert value == pytest.approx(1.0, abs=0.6)


def test_the_last_tokens_are_seen_and_padding_is_not():
    agent = PPO("MlpPolicy", Shown(TOKENS), n_steps=32, seed=0)
    tokens = np.arange(1, 13)
    seen = {"tokens": torch.as_tensor(tokens[None]), "length": torch.tensor([5])}
    padded = {"tokens": torch.as_tensor(np.where(np.arange(12) < 5, tokens, 99)[None]), "length": torch.tensor([5])}
    other = {"tokens": torch.as_tensor(np.where(np.arange(12) == 4, 77, tokens)[None]), "length": torch.tensor([5])}
    with torch.no_grad():
        torch.testing.assert_close(agent.policy.values(seen), agent.policy.values(padded))
        assert not torch.equal(agent.policy.values(seen), agent.policy.values(other))


def test_sb3s_own_policy_class_trains():
    agent = PPO(ActorCriticPolicy, gym.make("CartPole-v1"), n_steps=256, learning_rate=1e-3, seed=0)
    before = agent.policy.action_net.weight.detach().clone()
    agent.learn(512)
    assert not torch.equal(before, agent.policy.action_net.weight)


def test_text_observations_name_the_wrapper():
    with pytest.raises(UsageError, match="VectorObservation"):
        PPO("MlpPolicy", Shown(spaces.Text(10)))


def test_text_actions_name_the_wrapper():
    env = Shown(spaces.Discrete(2))
    env.action_space = spaces.Text(5)
    with pytest.raises(UsageError, match="TokenAction"):
        PPO("MlpPolicy", env)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps must be a positive integer, got 0"),
        ({"batch_size": -1}, "batch_size must be a positive integer"),
        ({"n_epochs": 1.5}, "n_epochs must be a positive integer"),
        ({"gamma": 1.5}, "gamma must lie between 0 and 1"),
        ({"clip_range": float("nan")}, "clip_range must be a number and must not be negative, got nan"),
        ({"clip_range": "lin_0.2"}, "clip_range must be a number"),
        ({"clip_range_vf": -1.0}, "clip_range_vf must be a number and must not be negative"),
        ({"ent_coef": float("nan")}, "ent_coef must be a finite number, got nan"),
        ({"vf_coef": float("inf")}, "vf_coef must be a finite number"),
        ({"target_kl": -0.1}, "target_kl must be a positive number"),
        ({"max_grad_norm": 0}, "max_grad_norm must be a positive number"),
        ({"batch_size": 1}, "cannot be normalised"),
        ({"policy": "MlpPolicyy"}, "Did you mean 'MlpPolicy'"),
        ({"policy_kwargs": {"use_sde": True}}, "use_sde"),
    ],
)
def test_bad_settings_are_refused(options, message):
    options = {"policy": "MlpPolicy", **options}
    with pytest.raises(UsageError, match=message):
        PPO(env=gym.make("CartPole-v1"), **options)


def test_normalised_observations_need_a_flat_box():
    with pytest.raises(UsageError, match="flat Box"):
        PPO("MlpPolicy", Shown(spaces.Discrete(3)), normalize_observations=True)


def test_sums_of_rewards_are_carried_over_rollouts_and_dropped_at_a_reset():
    agent = small(probe("Endless"), normalize_rewards=True, n_steps=4, batch_size=32, n_epochs=1)
    agent.learn(1)
    agent.reward_moments.update = lambda sums: seen.append(sums.clone())
    seen = []
    rollout = type("Rollout", (), {})()
    rollout.reward, rollout.done = torch.ones(2, 8), torch.zeros(2, 8, dtype=torch.bool)
    agent._carried_return = None
    for _ in range(2):
        agent._scaled_reward(rollout)
    agent._reset_source()
    agent._scaled_reward(rollout)
    # G = r + G / 2: 1, 1.5, then 1.75, 1.875; after the reset 1, 1.5 again
    assert [sums[::8].tolist() for sums in seen] == [[1.0, 1.5], [1.75, 1.875], [1.0, 1.5]]
