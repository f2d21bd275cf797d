"""PPO and SAC near a cloned policy: the reward and the losses by hand, limits, files, refusals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import polyathlon
from polyathlon.agents import BC, EXPO, PPO, SAC
from polyathlon.agents.off_policy import near_reference, sac
from polyathlon.agents.parts.intrinsic import BonusBatch
from polyathlon.agents.parts.kl_to_reference import KLToReference
from polyathlon.datasets import play_episodes
from polyathlon.envs.data.datasets import DatasetWriter
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A policy cloned from one that always pushes by 1 of 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        env = gym.make("Pendulum-v1", max_episode_steps=20)
        played = list(play_episodes(env, lambda obs, info: np.array([1.0], np.float32), steps=200))
        with DatasetWriter("reference/push-v0", env.observation_space, env.action_space) as writer:
            writer.write(played)
        yield BC("MlpPolicy", env, dataset="reference/push-v0", learning_rate=1e-2, **SMALL).learn(400)


def test_the_reward_of_ppo_by_hand(clone):
    obs, action = torch.randn(6, 3), torch.tensor([[1.0], [0.5], [-1.0], [2.0], [0.0], [1.5]])
    log_prob = torch.full((3, 2), -0.7)
    bonus = KLToReference(clone, 0.5)
    assert bonus.metrics() == {"train/reference_kl": 0.0} and bonus.extrinsic == 1  # all of the environment's reward
    found = bonus.bonus(BonusBatch(torch.zeros(3, 2), policy=(obs, action, None, log_prob)))
    # BC's density is that of actions in [-1, 1]; the torque has a half range of 2
    near = clone.log_prob(obs, action).detach() - np.log(2.0)
    torch.testing.assert_close(found, -0.5 * (log_prob - near.view(3, 2)))
    assert bonus.metrics()["train/reference_kl"] == pytest.approx(float((log_prob - near.view(3, 2)).mean()), rel=1e-5)
    assert found.argmax() in (0, 5)  # what was demonstrated is cheapest


def test_the_reward_of_ppo_near_a_clone_of_several_choices(tmp_path, monkeypatch):
    class Task(gym.Env):
        observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([3, 2])

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 0.0, True, False, {}

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = Task()
    with DatasetWriter("reference/choices-v0", env.observation_space, env.action_space) as writer:
        writer.write(play_episodes(env, lambda obs, info: np.array([2, 0]), steps=8))
    clone = BC("MlpPolicy", env, dataset="reference/choices-v0", **SMALL)
    obs, action, log_prob = torch.zeros(2, 2), torch.tensor([[2, 0], [0, 1]]), torch.tensor([[-0.7, -0.2]])
    found = KLToReference(clone).bonus(BonusBatch(torch.zeros(1, 2), policy=(obs, action, None, log_prob)))
    torch.testing.assert_close(found, -0.05 * (log_prob - clone.log_prob(obs, action).detach()))
    PPO("MlpPolicy", env, reference=clone, n_steps=8, batch_size=8, **SMALL).learn(8)


def test_ppo_is_drawn_to_its_reference(clone):
    words = {"n_steps": 128, "batch_size": 64, "learning_rate": 1e-2, **SMALL}
    env = gym.make("Pendulum-v1", max_episode_steps=20)
    free = PPO("MlpPolicy", env, **words).learn(2048)
    near = PPO("MlpPolicy", env, reference=clone, reference_coef=50.0, **words).learn(2048)
    shown = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    gap_near, gap_free = (np.abs(agent.predict(shown, deterministic=True)[0] - 1).mean() for agent in (near, free))
    assert gap_near < gap_free - 0.2 and "train/reference_kl" in near.logger.name_to_value


def test_the_losses_of_sac_near_a_uniform_reference_are_sac_s_with_a_constant():
    class Uniform:
        def __init__(self, obs):
            self.size = len(obs)

        def log_prob(self, action):
            return torch.full((self.size,), -np.log(2.0) * action.shape[1])

    agent = SAC("MlpPolicy", gym.make("Pendulum-v1"), **SMALL)
    nets = agent.networks
    log_alpha, discount = torch.tensor([-1.0]), torch.full((5,), 0.9)
    obs, action, next_obs = torch.randn(5, 3), torch.rand(5, 1) * 2 - 1, torch.randn(5, 3)
    reward, noise = torch.randn(5), torch.randn(5, 1)
    own = (nets["critic"].at(nets["critic"].vector), nets["critic_target"].at(nets["critic_target"].vector))
    acting = nets["actor"].at(nets["actor"].vector)
    constant = discount * log_alpha.exp() * np.log(2.0)
    near = near_reference.critic(*own, acting, Uniform, log_alpha, obs, action, reward, next_obs, discount, noise)
    plain = sac.critic(*own, acting, log_alpha, obs, action, reward - constant, next_obs, discount, noise)
    torch.testing.assert_close(near, plain)
    near, _ = near_reference.actor(acting, own[0], Uniform, log_alpha, obs, noise)
    plain, _ = sac.actor(acting, own[0], log_alpha, obs, noise)
    torch.testing.assert_close(near, plain + (log_alpha.exp() * np.log(2.0)).squeeze())


def near_sac(clone, weight, **words):
    env = gym.make("Pendulum-v1", max_episode_steps=20)
    return SAC(
        "MlpPolicy", env, ent_coef=weight, reference=clone, learning_starts=20, learning_rate=3e-3, **SMALL, **words
    )


def test_sac_is_drawn_to_its_reference_which_stays(clone):
    agent = near_sac(clone, 50.0)
    shown = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)

    def density(network):
        seen = torch.as_tensor(shown)
        return network(seen).log_prob(torch.full((50, 1), 0.5))

    start = density(agent.networks["reference"])
    torch.testing.assert_close(start, clone.log_prob(shown, np.full((50, 1), 1.0, np.float32)))
    agent.learn(400)
    torch.testing.assert_close(density(agent.networks["reference"]), start)
    assert np.abs(agent.predict(shown, deterministic=True)[0] - 1).mean() < 0.3


def test_a_file_holds_the_reference(clone, tmp_path):
    agent = near_sac(clone, 0.1).learn(40)
    agent.save(tmp_path / "near.zip")
    loaded = SAC.load(tmp_path / "near.zip", env=agent.get_env(), device="cpu")
    vectors = [one.networks["reference"].vector for one in (agent, loaded)]
    assert torch.equal(*vectors)
    agent.checkpoint(tmp_path / "run.pt")
    resumed = SAC.resume(tmp_path / "run.pt", gym.make("Pendulum-v1", max_episode_steps=20), device="cpu")
    for one in (agent, resumed):
        one.learn(20, reset_num_timesteps=False)
    assert torch.equal(agent.networks["actor"].vector, resumed.networks["actor"].vector)


def test_what_cannot_be_is_refused(clone):
    env = gym.make("Pendulum-v1")
    for make, message in (
        (lambda: SAC("MlpPolicy", env, reference=clone, **SMALL), "ent_coef is the weight of the divergence"),
        (lambda: SAC("MlpPolicy", env, reference="bc", ent_coef=0.1, **SMALL), "reference= takes a trained off-policy"),
        (
            lambda: SAC("MlpPolicy", gym.make("MountainCarContinuous-v0"), reference=clone, ent_coef=0.1, **SMALL),
            "another observation space",
        ),
        (
            lambda: SAC("MlpPolicy", env, reference=EXPO("MlpPolicy", env, **SMALL), ent_coef=0.1, **SMALL),
            "no density",
        ),
        (lambda: polyathlon.make_agent("rlpd", env, reference=clone, ent_coef=0.1, **SMALL), "RLPD"),
        (lambda: PPO("MlpPolicy", env, reference_coef=0.1), "give reference="),
        (lambda: PPO("MlpPolicy", env, reference="bc"), "log_prob"),
        (lambda: PPO("MlpPolicy", env, reference=clone, reference_coef=0.0), "lam"),
        (lambda: PPO("MlpPolicy", env, reference=clone, bonus=KLToReference(clone)), "reference= or bonus="),
    ):
        with pytest.raises(UsageError) as error:
            make()
        assert message in str(error.value)
