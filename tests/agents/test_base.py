"""The base of the agents: environments, seeds, sources, checkpoints.

Modules: polyathlon.agents.parts.saved_states.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from polyathlon.agents import SAC
from polyathlon.agents.base import Agent
from polyathlon.agents.streams.env_stream import NonFiniteError, make_env_stream
from polyathlon.agents.streams.environments import as_vec_env, make_vec_env
from polyathlon.agents.streams.vec_envs import ScalarEnvs, episode_seed
from polyathlon.envs.errors import UsageError


class RandomAgent(Agent):
    """Acts at random from the agent's own generator and learns nothing."""

    action_forms = ("box",)
    policy_aliases = {"MlpPolicy": ActorCriticPolicy}

    def __init__(
        self, policy: Any, env: Any, learning_rate: float = 1e-3, _init_setup_model: bool = True, **kwargs: Any
    ):
        super().__init__(policy, env, learning_rate, **kwargs)
        self.rewards: list[float] = []
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        with self.seeded_initialisation():
            self.policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule)

    def collect(self, callback: Any) -> bool:
        shape = (self.source.num_envs, *self.action_space.shape)
        step = self.source.step(torch.rand(shape, generator=self.generator) * 2 - 1)
        self.rewards += step.reward.tolist()
        self.num_timesteps += self.source.num_envs
        callback.update_locals(locals())
        return callback.on_step()

    def train(self) -> None:
        """Nothing is learnt."""


def test_episode_seeds_differ_between_episodes_and_rows():
    seeds = {episode_seed(s, e) for s in range(5) for e in range(5)}
    assert len(seeds) == 25
    assert episode_seed(3, 0) == 3


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_is_the_same_for_any_number_of_rows(rows):
    env = ScalarEnvs([gym.make("Pendulum-v1", max_episode_steps=5) for _ in range(rows)])
    alone = ScalarEnvs([gym.make("Pendulum-v1", max_episode_steps=5)])
    env.seed(7), alone.seed(7 + rows - 1)
    first, other = env.reset(), alone.reset()
    for _ in range(12):
        np.testing.assert_array_equal(first[-1], other[0])
        first, *_ = env.step(np.zeros((rows, 1), np.float32))
        other, *_ = alone.step(np.zeros((1, 1), np.float32))


def test_final_observation_and_truncation_reach_the_agent():
    source = make_env_stream(as_vec_env(gym.make("Pendulum-v1", max_episode_steps=3)), torch.device("cpu"))
    source.reset(0)
    for _ in range(2):
        assert not source.step(torch.zeros(1, 1)).truncated.any()
    step = source.step(torch.zeros(1, 1))
    assert step.truncated.all() and not step.terminated.any()
    assert not torch.equal(step.next_obs, source.obs)
    assert source.pop_episode_stats()[0][1] == 3


def test_same_step_vector_environment_equals_scalar_rows():
    options = {"vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
    vector = gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync", **options, max_episode_steps=4)
    left = make_env_stream(as_vec_env(vector), torch.device("cpu"))
    right = make_env_stream(
        ScalarEnvs([gym.make("Pendulum-v1", max_episode_steps=4) for _ in range(2)]), torch.device("cpu")
    )
    left.reset(5), right.reset(5)
    for _ in range(4):
        torch.testing.assert_close(left.obs, right.obs, rtol=0, atol=0)
        a, b = left.step(torch.ones(2, 1)), right.step(torch.ones(2, 1))
        torch.testing.assert_close(a.next_obs, b.next_obs, rtol=0, atol=0)
        assert torch.equal(a.truncated, b.truncated)


def test_next_step_mode_is_refused_with_the_cure():
    with pytest.raises(UsageError, match="SAME_STEP"):
        RandomAgent("MlpPolicy", gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="sync"))


def test_wrong_form_names_the_wrapper():
    with pytest.raises(UsageError, match="ContinuousAction"):
        RandomAgent("MlpPolicy", gym.make("CartPole-v1"))


@pytest.mark.parametrize("given", [0, -2, 1.5])
def test_a_bad_number_of_rows_is_refused(given):
    with pytest.raises(UsageError, match="n_envs must be a positive integer"):
        RandomAgent("MlpPolicy", "Pendulum-v1", n_envs=given)


def test_n_envs_contradicting_a_vector_environment_is_refused():
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    with pytest.raises(UsageError, match="contradicts"):
        make_vec_env(env, 3, torch.device("cpu"))


def test_an_unknown_id_suggests_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'Pendulum-v1'"):
        RandomAgent("MlpPolicy", "Pendulm-v1")


def test_something_else_as_environment_is_refused():
    with pytest.raises(TypeError, match="an agent takes an id"):
        as_vec_env(42)


class Broken(gym.ObservationWrapper):
    def observation(self, observation):
        return np.full_like(observation, np.nan)


def test_nan_observations_are_refused_with_the_environment_named():
    agent = RandomAgent("MlpPolicy", Broken(gym.make("Pendulum-v1")), seed=0)
    with pytest.raises(
        NonFiniteError, match="environment Pendulum-v1 returned a value of observation that is not finite"
    ):
        agent.learn(2)


def test_actions_that_are_not_finite_are_the_policy_s():
    """Gymnasium's pendulum answers them with NaN, which was said to be the environment's."""
    words = {"learning_starts": 10, "batch_size": 8, "device": "cpu", "seed": 0, "policy_kwargs": {"net_arch": [8]}}
    agent = SAC("MlpPolicy", "Pendulum-v1", **words).learn(12)
    agent.networks["actor"].vector.data.fill_(np.nan)
    with pytest.raises(
        UsageError, match=r"policy gave the environment Pendulum-v1 an action .*Lower the learning rate"
    ):
        agent.learn(4, reset_num_timesteps=False)
    # where a step size is the cause, the loss is infinite before an action is no number
    with pytest.raises(FloatingPointError, match=r"_loss is infinite at gradient step \d+; lower the learning rate"):
        SAC("MlpPolicy", "Pendulum-v1", learning_rate=1e30, **words).learn(40)


def test_global_random_state_is_left_alone():
    torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    RandomAgent("MlpPolicy", gym.make("Pendulum-v1"), seed=3).learn(10)
    assert torch.equal(torch_before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


def test_resume_equals_the_unbroken_run(tmp_path):
    whole = RandomAgent("MlpPolicy", gym.make("Pendulum-v1", max_episode_steps=30), seed=1).learn(100)
    part = RandomAgent("MlpPolicy", gym.make("Pendulum-v1", max_episode_steps=30), seed=1).learn(70)
    path = part.checkpoint(tmp_path / "agent.checkpoint")
    again = RandomAgent.resume(path, gym.make("Pendulum-v1", max_episode_steps=30))
    again.learn(30, reset_num_timesteps=False)
    assert again.rewards == whole.rewards
    assert list(again.ep_info_buffer) == list(whole.ep_info_buffer)


def test_a_corrupted_checkpoint_is_refused(tmp_path):
    agent = RandomAgent("MlpPolicy", gym.make("Pendulum-v1"), seed=1).learn(3)
    path = agent.checkpoint(tmp_path / "agent.checkpoint")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="corrupted"):
        RandomAgent.resume(path, gym.make("Pendulum-v1"))
    with pytest.raises(UsageError, match="there is no checkpoint"):
        RandomAgent.resume(tmp_path / "none", gym.make("Pendulum-v1"))


def test_a_foreign_vector_environment_cannot_be_resumed_and_says_so(tmp_path):
    agent = RandomAgent("MlpPolicy", DummyVecEnv([lambda: gym.make("Pendulum-v1")]), seed=1).learn(3)
    path = agent.checkpoint(tmp_path / "agent.checkpoint")
    with pytest.raises(UsageError, match="cannot be resumed exactly"):
        RandomAgent.resume(path, DummyVecEnv([lambda: gym.make("Pendulum-v1")]))


def test_zero_timesteps_are_refused():
    with pytest.raises(UsageError, match="total_timesteps must be positive"):
        RandomAgent("MlpPolicy", gym.make("Pendulum-v1")).learn(0)
