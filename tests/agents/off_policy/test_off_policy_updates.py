"""The written-out gradient steps of TD3, TD3+BC, IQL, AWAC and BC against autograd on the formulas."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.distributions import Independent, Normal

from polyathlon.agents import AWAC, BC, IQL, TD3, TD3BC
from polyathlon.agents.parts.offline_losses import expectile_loss, weighted_imitation
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.squashed_gaussian import OFFLINE_LOG_STD_MAX as LOG_STD_MAX
from polyathlon.agents.parts.squashed_gaussian import OFFLINE_LOG_STD_MIN as LOG_STD_MIN
from polyathlon.datasets import record

ROWS, RATE, GAMMA, TAU = 16, 3e-4, 0.9, 0.25
SMALL = {"policy_kwargs": {"net_arch": [32, 24]}, "device": "cpu", "seed": 0, "batch_size": ROWS}


def prepared(agent_class, **options):
    """Return a policy, its twin for autograd, the update, and a batch."""
    agent = agent_class("MlpPolicy", "Pendulum-v1", **SMALL, **options)
    policy = agent.policy
    with torch.no_grad():  # move the targets and the spreads away from where they start
        generator = torch.Generator().manual_seed(3)
        for name in ("target", "actor_target_vector"):
            if hasattr(policy, name):
                vector = getattr(policy, name)
                vector += 0.05 * torch.randn(vector.shape, generator=generator)
        if policy.is_gaussian:
            policy.actor.log_std.fill_(-0.3)
    twin = copy.deepcopy(policy)
    update = policy.make_update(ROWS)
    rows = torch.randn(ROWS, 2 * 3 + 1 + 2, generator=generator)
    rows[:, 3] = rows[:, 3].tanh()
    rows[:, -1] = (rows[:, -1] > 0.5).float()
    replay = Replay(ROWS, 3, 1, torch.device("cpu"))
    return policy, twin, update, replay.split(rows)


def lowest(critic, obs, action):
    return torch.cat(critic(obs, action), 1).amin(1)


def density(twin, obs):
    return Independent(Normal(twin.mean_action(obs), twin.actor.log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp()), 1)


def check(mine, twin, loss):
    """Compare the gradients that a step left with those of a loss, and the parameters with a step of Adam."""
    adam = torch.optim.Adam(twin.parameters(), lr=RATE)
    adam.zero_grad()
    loss.backward()
    adam.step()
    for (name, parameter), other in zip(mine.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)


def critic_loss(twin, batch, q_next):
    y = batch.reward + GAMMA * (1 - batch.done) * q_next
    return 0.5 * sum((q[:, 0] - y).square().mean() for q in twin.critic(batch.obs, batch.action))


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return record("random", "Pendulum-v1", episodes=1, dataset_id="tests/pendulum-v0")


@pytest.mark.parametrize("imitation", [None, 2.5, 0.0])
def test_td3_equals_autograd(imitation, dataset):
    agent_class, options = (TD3, {}) if imitation is None else (TD3BC, {"dataset": dataset})
    policy, twin, update, batch = prepared(agent_class, **options)
    eps = torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        noise = (0.2 * eps).clamp(-0.5, 0.5)
        next_action = (twin.actor_target(batch.next_obs) + noise).clamp(-1, 1)
        q_next = lowest(twin.critic_target, batch.next_obs, next_action)
    update.step(batch, RATE, GAMMA, 0.2, 0.5, None, eps)
    check(policy.critic, twin.critic, critic_loss(twin, batch, q_next))

    before = (update.target.clone(), update.actor_target_vector.clone())
    update.actor_step(batch, RATE, TAU, imitation)
    action = twin.actor(batch.obs)
    q = twin.critic.q1_forward(batch.obs, action)
    if imitation is None:
        loss = -q.mean()
    else:
        lam = imitation / q.detach().abs().mean()
        loss = -lam * q.mean() + torch.nn.functional.mse_loss(action, batch.action)
    check(policy.actor, twin.actor, loss)
    for moved, old, new in zip(
        (update.target, update.actor_target_vector), before, (policy.critic.optimizer, policy.actor.optimizer)
    ):
        torch.testing.assert_close(moved, (1 - TAU) * old + TAU * new.vector.data)


def test_iql_equals_autograd():
    policy, twin, update, batch = prepared(IQL)
    with torch.no_grad():
        q = lowest(twin.critic_target, batch.obs, batch.action)
        gap = q - twin.value_net(batch.obs)[:, 0]
        next_value = twin.value_net(batch.next_obs)[:, 0]
        target = update.target.clone()
    update.step(batch, RATE, GAMMA, TAU, 0.7, 3.0, 0.4)
    check(policy.value_net, twin.value_net, expectile_loss(q - twin.value_net(batch.obs)[:, 0], 0.7))
    weight = (3.0 * gap).exp().clamp(max=0.4)
    assert (weight == 0.4).any() and (weight < 0.4).any()
    check(policy.actor, twin.actor, weighted_imitation(density(twin, batch.obs).log_prob(batch.action), weight))
    check(policy.critic, twin.critic, critic_loss(twin, batch, next_value))
    torch.testing.assert_close(update.target, (1 - TAU) * target + TAU * policy.critic.optimizer.vector.data)


def test_awac_equals_autograd():
    policy, twin, update, batch = prepared(AWAC)
    eps = torch.randn(2 * ROWS, 1, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        drawn = [
            (twin.mean_action(obs) + twin.actor.log_std.exp() * noise).clamp(-1, 1)
            for obs, noise in ((batch.obs, eps[:ROWS]), (batch.next_obs, eps[ROWS:]))
        ]
        q_next = lowest(twin.critic_target, batch.next_obs, drawn[1])
        advantage = lowest(twin.critic, batch.obs, batch.action) - lowest(twin.critic, batch.obs, drawn[0])
    update.step(batch, RATE, GAMMA, TAU, 2.0, 100.0, None, eps)
    check(policy.critic, twin.critic, critic_loss(twin, batch, q_next))
    logp = density(twin, batch.obs).log_prob(batch.action)
    check(policy.actor, twin.actor, weighted_imitation(logp, (2.0 * advantage).exp()))


@pytest.mark.parametrize("loss", ["log_prob", "mse"])
def test_imitation_equals_autograd(loss, dataset):
    policy, twin, update, batch = prepared(BC, dataset=dataset)
    update.step(batch, RATE, loss)
    if loss == "log_prob":
        wanted = weighted_imitation(density(twin, batch.obs).log_prob(batch.action))
    else:
        wanted = torch.nn.functional.mse_loss(twin.mean_action(batch.obs), batch.action) + 0 * twin.actor.log_std.sum()
    check(policy.actor, twin.actor, wanted)
    assert update.report()["loss"] == pytest.approx(float(wanted.detach()), rel=1e-4)


@pytest.mark.parametrize("log_std", [LOG_STD_MIN - 1, LOG_STD_MAX + 1])
def test_a_spread_outside_its_bounds_has_no_gradient(log_std, dataset):
    policy, _, update, batch = prepared(BC, dataset=dataset)
    policy.actor.log_std.data.fill_(log_std)
    update.step(batch, RATE, "log_prob")
    assert policy.actor.log_std.grad.abs().max() == 0


def test_explored_actions_stay_inside_the_box_and_reach_its_bounds():
    agent = TD3("MlpPolicy", "Pendulum-v1", exploration_noise=3.0, **SMALL)
    action = agent._explore(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)))
    assert float(action.min()) == -1 and float(action.max()) == 1
    assert 0.2 < float((action.abs() < 1).float().mean()) < 0.4  # P(|N(0, 3)| < 1) = 0.26
