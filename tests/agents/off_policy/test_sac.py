"""Soft actor-critic: its gradient step against autograd, its numbers, its exact resume, its refusals."""

from __future__ import annotations

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.nn.functional import mse_loss

from polyathlon.agents import SAC
from polyathlon.agents.parts.squashed_gaussian import tanh_gaussian
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [32, 24]}, "device": "cpu", "seed": 0}


def sample_rows(agent, number):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(number, 2 * 3 + 1 + 2, generator=generator)
    rows[:, -1] = (rows[:, -1] > 0.5).float()
    agent.batch_size = number
    update = agent._ready()
    return update, agent.replay.split(rows), torch.randn(2 * number, 1, generator=generator)


@pytest.mark.parametrize("critics", [1, 2, 3])
def test_gradient_step_equals_autograd(critics):
    agent = SAC("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": {"net_arch": [32, 24], "n_critics": critics}})
    reference = copy.deepcopy(agent.policy)
    update, batch, eps = sample_rows(agent, 16)
    actor_adam = torch.optim.Adam(reference.actor.parameters(), lr=3e-4)
    critic_adam = torch.optim.Adam(reference.critic.parameters(), lr=3e-4)
    action, logp = tanh_gaussian(*reference.head(batch.obs), eps[:16])
    with torch.no_grad():
        next_action, next_logp = tanh_gaussian(*reference.head(batch.next_obs), eps[16:])
        q_next = torch.cat(reference.critic_target(batch.next_obs, next_action), 1).amin(1)
        y = batch.reward + 0.99 * (1 - batch.done) * (q_next - next_logp)
    (0.5 * sum(mse_loss(q[:, 0], y) for q in reference.critic(batch.obs, batch.action))).backward()
    critic_adam.step()
    critic_gradients = [p.grad.clone() for p in reference.critic.parameters()]
    lowest = torch.cat(reference.critic(batch.obs, action), 1).amin(1)
    actor_adam.zero_grad()
    (logp - lowest).mean().backward()
    actor_adam.step()
    gap = float(logp.detach().mean()) - 1.0

    update.step(batch, agent.log_ent_coef, agent.ent_coef_optimizer, 3e-4, 0.99, 0.005, -1.0, None, eps)

    for mine, wanted in zip(agent.policy.critic.parameters(), critic_gradients, strict=True):
        torch.testing.assert_close(mine.grad, wanted, rtol=1e-5, atol=1e-6)
    for (name, mine), wanted in zip(agent.policy.actor.named_parameters(), reference.actor.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)
    assert float(agent.log_ent_coef.grad) == pytest.approx(-gap, abs=1e-5)


def test_target_critics_move_by_tau_and_not_at_all_without():
    agent = SAC("MlpPolicy", "Pendulum-v1", **SMALL)
    update, batch, eps = sample_rows(agent, 8)
    before = update.target.clone()
    update.step(batch, agent.log_ent_coef, None, 3e-4, 0.99, 0.0, -1.0, None, eps)
    assert torch.equal(update.target, before)
    update.step(batch, agent.log_ent_coef, None, 3e-4, 0.99, 0.25, -1.0, None, eps)
    torch.testing.assert_close(update.target, 0.75 * before + 0.25 * update.critic.vector.data)


def test_networks_start_as_sb3s_do():
    from stable_baselines3 import SAC as SB3SAC

    ours = SAC("MlpPolicy", "Pendulum-v1", **SMALL)
    theirs = SB3SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [32, 24]}, device="cpu", seed=0)
    shapes = {name: tensor.shape for name, tensor in theirs.policy.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.policy.state_dict().items()} == shapes
    ours.policy.load_state_dict(theirs.policy.state_dict())
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(
        ours.predict(obs, deterministic=True)[0], theirs.predict(obs, deterministic=True)[0], rtol=1e-6
    )


def test_learns_pendulum():
    agent = SAC(
        "MlpPolicy", "Pendulum-v1", learning_rate=2e-3, batch_size=64, policy_kwargs={"net_arch": [64, 64]}, seed=0
    )
    agent.learn(5_000)
    returns = [episode["r"] for episode in agent.ep_info_buffer]
    assert np.mean(returns[-5:]) > np.mean(returns[:5]) + 500
    assert np.mean(returns[-5:]) > -500


def test_resumed_run_equals_the_unbroken_one(tmp_path):
    settings = {**SMALL, "learning_starts": 50, "batch_size": 32}
    unbroken = SAC("MlpPolicy", "Pendulum-v1", **settings).learn(300)
    first = SAC("MlpPolicy", "Pendulum-v1", **settings)
    first.learn(170)
    again = SAC.resume(first.checkpoint(tmp_path / "run.pt"), "Pendulum-v1")
    again.learn(130, reset_num_timesteps=False)
    for name, wanted in unbroken.policy.state_dict().items():
        assert torch.equal(again.policy.state_dict()[name], wanted), name
    assert torch.equal(again.log_ent_coef, unbroken.log_ent_coef)
    assert again.replay.size == unbroken.replay.size == 300


def test_fixed_temperature_stays_and_survives_saving(tmp_path):
    agent = SAC("MlpPolicy", "Pendulum-v1", ent_coef=0.3, learning_starts=20, batch_size=16, **SMALL).learn(60)
    agent.save(tmp_path / "agent")
    again = SAC.load(tmp_path / "agent")
    assert float(again.log_ent_coef.exp()) == pytest.approx(0.3)


def test_actions_reach_the_bounds_of_the_environment():
    class Wide(gym.Env):
        observation_space = spaces.Box(-1, 1, (2,), np.float32)
        action_space = spaces.Box(np.array([0.0, -10.0], np.float32), np.array([4.0, 10.0], np.float32))

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            assert self.action_space.contains(action), action
            seen.append(action)
            return np.zeros(2, np.float32), 0.0, False, len(seen) % 10 == 0, {}

    seen: list[np.ndarray] = []
    SAC("MlpPolicy", Wide(), learning_starts=150, batch_size=8, **SMALL).learn(200)
    actions = np.stack(seen)
    assert actions.min(0)[0] < 0.4 and actions.max(0)[0] > 3.6
    assert actions.min(0)[1] < -9 and actions.max(0)[1] > 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ent_coef": "fixed"}, "'auto_0.1'"),
        ({"ent_coef": 0}, "positive number"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"gradient_steps": 0}, "-1 for one each transition"),
        ({"tau": 2}, "tau must lie between 0 and 1"),
        ({"matmul_precision": "low"}, "'highest' or 'medium'"),
        ({"policy_kwargs": {"activation_fn": torch.nn.Tanh}}, "perceptrons with ReLU"),
        ({"policy_kwargs": {"net_arch": []}}, "at least one hidden layer"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        SAC("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


def test_a_dictionary_of_observations_names_the_wrapper():
    class Pair(gym.Env):
        observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,))})
        action_space = spaces.Box(-1, 1, (1,))

    with pytest.raises(UsageError, match="VectorObservation"):
        SAC("MlpPolicy", Pair())


def test_a_deviation_at_its_bounds_has_no_gradient():
    agent = SAC("MlpPolicy", "Pendulum-v1", **SMALL)
    update, batch, eps = sample_rows(agent, 16)
    with torch.no_grad():  # log deviations from far below the lower bound to far above the upper one
        agent.policy.actor.log_std.weight.mul_(400)
    reference = copy.deepcopy(agent.policy)
    raw = reference.actor.log_std(reference.actor.latent_pi(batch.obs))
    log_std = raw.clamp(-20, 2)
    assert (log_std == 2).any() and (log_std == -20).any() and (log_std == raw).any()
    mean = reference.actor.mu(reference.actor.latent_pi(batch.obs))
    action, logp = tanh_gaussian(mean, log_std, eps[:16])
    update.step(batch, agent.log_ent_coef, None, 0.0, 0.99, 0.005, -1.0, None, eps)
    lowest = torch.cat(reference.critic(batch.obs, action), 1).amin(1)
    (logp - lowest).mean().backward()
    for mine, wanted in zip(agent.policy.actor.parameters(), reference.actor.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad, rtol=1e-4, atol=1e-5)


def test_targets_move_at_every_interval_of_gradient_steps():
    agent = SAC("MlpPolicy", "Pendulum-v1", target_update_interval=3, batch_size=8, **SMALL)
    update, _, _ = sample_rows(agent, 8)
    agent.replay.add(*[torch.randn(20, n) for n in (3, 1, 3)], torch.randn(20), torch.zeros(20, dtype=torch.bool))
    moved = []
    for _ in range(7):
        before = update.target.clone()
        agent.train(1)
        moved.append(not torch.equal(update.target, before))
    assert moved == [False, False, True, False, False, True, False]
