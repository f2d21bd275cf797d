"""PMOE: its gradient step against autograd, its limit SAC, what learns and what does not, its refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from polyathlon.agents import PMOE
from polyathlon.agents.off_policy.action_values import ActionValues
from polyathlon.agents.off_policy.hand_written import HandWrittenSAC
from polyathlon.agents.off_policy.perceptrons import layers_of
from polyathlon.agents.off_policy.pmoe_update import ESTIMATORS
from polyathlon.agents.parts.action_distributions import sample_categorical
from polyathlon.agents.parts.expert_routing import frequency_loss, gumbel_noise, relaxed_choice, score_ratio_loss
from polyathlon.agents.parts.gaussian_mixture import of_expert, tanh_gmm_logp
from polyathlon.agents.parts.squashed_gaussian import tanh_gaussian
from polyathlon.envs.errors import UsageError

SMALL = {"policy_kwargs": {"net_arch": [32, 24]}, "device": "cpu", "seed": 0}
ROWS, EXPERTS, OBS, ACTIONS = 16, 3, 3, 1


def prepared(**arguments):
    """Return an agent, its update, a batch and noise; the router is not indifferent any more."""
    agent = PMOE("MlpPolicy", "Pendulum-v1", num_experts=EXPERTS, batch_size=ROWS, **{**SMALL, **arguments})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        agent.actor.router.weight.normal_(generator=generator)
        agent.actor.log_std.bias.add_(0.5)
    rows = torch.randn(ROWS, 2 * OBS + ACTIONS + 2, generator=generator)
    rows[:, -1] = (rows[:, -1] > 0.5).float()
    update = agent._ready()
    return agent, update, agent.replay.split(rows), torch.randn((EXPERTS + 1) * ROWS, ACTIONS, generator=generator)


def lowest(critic, obs, action):
    """Values [B, K] of actions [B, K, A]."""
    flat = critic(obs.repeat_interleave(action.shape[1], 0), action.flatten(0, 1))
    return torch.cat(flat, 1).amin(1).view(action.shape[:2])


def actor_loss(estimator, policy, batch, noise, generator, alpha):
    """Return the loss of actor and router, and the log-densities that the temperature sees."""
    mean, log_std = policy.head(batch.obs)
    log_w = policy.log_weights(batch.obs)
    action, logp = tanh_gaussian(mean, log_std, noise)
    if estimator in ("frequency", "backprop_all"):
        q = lowest(policy.critic, batch.obs, action)
        best = q.argmax(1)
        each = (alpha * logp - q).sum(1) if estimator == "backprop_all" else of_expert(alpha * logp - q, best)
        return each.mean() + frequency_loss(log_w.exp(), q), of_expert(logp, best)
    if estimator == "score_ratio":
        expert = sample_categorical(log_w, generator)
        logp, action = of_expert(logp, expert), of_expert(action, expert)
        gain = lowest(policy.critic, batch.obs, action[:, None])[:, 0] - alpha * logp
        return -gain.mean() + score_ratio_loss(log_w, expert, gain), logp
    choice = relaxed_choice(log_w, gumbel_noise(log_w, generator), 1.0)
    action = (choice[..., None] * action).sum(1)
    logp = tanh_gmm_logp(log_w, mean, log_std, torch.atanh(action))
    return (alpha * logp - lowest(policy.critic, batch.obs, action[:, None])[:, 0]).mean(), logp


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradient_step_equals_autograd(estimator):
    agent, update, batch, eps = prepared(estimator=estimator)
    reference = copy.deepcopy(agent.policy)
    generator = torch.Generator().manual_seed(2)
    critic_adam = torch.optim.Adam(reference.critic.parameters(), lr=3e-4)
    actor_adam = torch.optim.Adam(reference.actor.parameters(), lr=3e-4)
    with torch.no_grad():
        mean, log_std = reference.head(batch.next_obs)
        log_w = reference.log_weights(batch.next_obs)
        expert = sample_categorical(log_w, generator)
        action, logp = tanh_gaussian(of_expert(mean, expert), of_expert(log_std, expert), eps[-ROWS:])
        if estimator == "gumbel_softmax":
            logp = tanh_gmm_logp(log_w, mean, log_std, torch.atanh(action))
        q_next = torch.cat(reference.critic_target(batch.next_obs, action), 1).amin(1)
        y = batch.reward + 0.99 * (1 - batch.done) * (q_next - logp)
    (0.5 * sum(mse_loss(q[:, 0], y) for q in reference.critic(batch.obs, batch.action))).backward()
    critic_gradients = [p.grad.clone() for p in reference.critic.parameters()]
    critic_adam.step()
    actor_adam.zero_grad()
    noise = eps[:-ROWS].view(ROWS, EXPERTS, ACTIONS)
    loss, logp = actor_loss(estimator, reference, batch, noise, generator, 1.0)
    loss.backward()
    actor_adam.step()

    mine = torch.Generator().manual_seed(2)
    update.step(batch, agent.log_ent_coef, agent.ent_coef_optimizer, 3e-4, 0.99, 0.005, -1.0, mine, eps)

    for own, wanted in zip(agent.policy.critic.parameters(), critic_gradients, strict=True):
        torch.testing.assert_close(own.grad, wanted, rtol=1e-4, atol=1e-5)
    for (name, own), wanted in zip(agent.actor.named_parameters(), reference.actor.parameters(), strict=True):
        assert wanted.grad.abs().sum() > 0, name
        torch.testing.assert_close(own.grad, wanted.grad, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert float(agent.log_ent_coef.grad) == pytest.approx(1.0 - float(logp.detach().mean()), abs=1e-4)


def test_only_the_best_expert_of_a_state_learns_from_it():
    agent, update, batch, eps = prepared()
    update.step(batch, agent.log_ent_coef, None, 0.0, 0.99, 0.0, -1.0, torch.Generator().manual_seed(2), eps)
    mean, log_std = agent.policy.head(batch.obs)
    action = tanh_gaussian(mean, log_std, eps[:-ROWS].view(ROWS, EXPERTS, ACTIONS))[0]
    best = lowest(agent.critic, batch.obs, action).argmax(1)
    slope = update.head_slope.view(ROWS, 2, EXPERTS, ACTIONS)
    learns = torch.zeros(ROWS, EXPERTS, dtype=torch.bool)
    learns[torch.arange(ROWS), best] = True
    assert bool((slope[:, 0].abs().sum(-1) > 0)[learns].all())
    assert float(slope.abs().sum((1, 3))[~learns].max()) == 0.0
    assert len(best.unique()) > 1  # else the test says little


@pytest.mark.parametrize("critics", [1, 2, 3])
def test_the_best_action_is_found_with_few_critics(critics):
    generator = torch.Generator().manual_seed(0)
    widths, rows, actions = [7, 32, 24, 1], 64, 5
    size = 7 * 32 + 32 + 32 * 24 + 24 + 25
    vector = 0.3 * torch.randn(critics * size, generator=generator)
    layers = [layers_of(vector, None, widths, i * size)[0] for i in range(critics)]
    values = ActionValues(layers, 4, rows, actions)
    obs = torch.randn(rows, 4, generator=generator)
    action = torch.randn(rows, actions, 3, generator=generator)
    q, chosen = values.values(obs, action).clone().min(1)
    best = q.view(rows, actions).argmax(1)
    index = torch.arange(rows) * actions + best
    slopes = values.slopes(index, chosen[index]).clone()

    found = values.best(obs, action, torch.randint(critics, (rows,), generator=generator))

    assert torch.equal(found.number, best)
    torch.testing.assert_close(found.value, q[index])
    torch.testing.assert_close(found.by_action, slopes)
    assert values.is_lazy == (critics == 2) and (values.valued < q.numel() * critics) == values.is_lazy


def test_values_and_slopes_equal_autograd():
    agent, update, batch, _ = prepared()
    action = torch.rand(ROWS, EXPERTS, ACTIONS, generator=torch.Generator().manual_seed(3)).requires_grad_()
    q = agent.critic(batch.obs.repeat_interleave(EXPERTS, 0), action.flatten(0, 1))
    q[1].sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(update.own.values(batch.obs, action), torch.cat(q, 1))
        rows = torch.arange(0, ROWS * EXPERTS, 3)
        slopes = update.own.slopes(rows, torch.ones(rows.numel(), dtype=torch.long))
    torch.testing.assert_close(slopes, action.grad.flatten(0, 1)[rows], rtol=1e-5, atol=1e-6)


def test_one_expert_is_soft_actor_critic_bit_for_bit():
    settings = {**SMALL, "learning_starts": 50, "batch_size": 32}
    plain = HandWrittenSAC("MlpPolicy", "Pendulum-v1", **settings).learn(200)
    agent = PMOE("MlpPolicy", "Pendulum-v1", num_experts=1, **settings).learn(200)
    mine = agent.policy.state_dict()
    for name, wanted in plain.policy.state_dict().items():
        assert torch.equal(mine.pop(name), wanted), name
    assert torch.equal(agent.log_ent_coef, plain.log_ent_coef)
    assert all(float(value.abs().max()) == 0 for value in mine.values()) and set(mine) == {
        "actor.router.weight",
        "actor.router.bias",
    }


def test_the_router_learns_which_expert_is_best():
    # critics that grow with the action, and rewards that agree with them, make the expert with the largest action the best
    agent, update, batch, _ = prepared(learning_rate=0.05)
    with torch.no_grad():
        agent.actor.router.weight.zero_()
        agent.actor.mu.weight.zero_()
        agent.actor.mu.bias.copy_(torch.tensor([-2.0, 2.0, 0.0]))
        agent.critic.optimizer.vector.zero_()
        for network in agent.critic.q_networks:
            network[0].weight[:, OBS:] = 1.0
            network[2].weight.fill_(0.1)
            network[4].weight.fill_(0.1)
        batch.reward.copy_(agent.critic(batch.obs, batch.action)[0][:, 0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        update.step(batch, agent.log_ent_coef, None, 0.05, 0.0, 0.0, -1.0, generator)
    weights = agent.expert_weights(batch.obs.numpy())
    assert weights.shape == (ROWS, EXPERTS) and weights[:, 1].mean() > 0.8
    assert agent.expert_weights(batch.obs[0].numpy()).shape == (EXPERTS,)


def test_the_likeliest_expert_acts_deterministically():
    agent, _, batch, _ = prepared()
    obs = batch.obs.numpy()
    expert = agent.expert_weights(obs).argmax(1)
    with torch.no_grad():
        mean = of_expert(agent.policy.head(batch.obs)[0], torch.as_tensor(expert))
    wanted = 2 * torch.tanh(mean).numpy()  # a pendulum's torque reaches 2
    np.testing.assert_allclose(agent.predict(obs, deterministic=True)[0], wanted, rtol=1e-5)


def test_experts_are_drawn_by_their_weights():
    agent, _, batch, _ = prepared()
    with torch.no_grad():
        agent.actor.router.weight.zero_()
        agent.actor.router.bias.copy_(torch.tensor([0.7, 0.2, 0.1]).log())
        agent.actor.mu.weight.zero_()
        agent.actor.mu.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        agent.actor.log_std.weight.zero_()
        agent.actor.log_std.bias.fill_(-10)
    actions = agent.policy.sample(torch.zeros(5_000, OBS), torch.Generator().manual_seed(0))
    shares = [float((actions.detach() - np.tanh(x)).abs().lt(0.01).float().mean()) for x in (-1.0, 0.0, 1.0)]
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)


def test_the_use_of_the_experts_is_logged(tmp_path):
    from stable_baselines3.common.logger import configure

    agent = PMOE("MlpPolicy", "Pendulum-v1", learning_starts=20, batch_size=16, **SMALL)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(420, log_interval=1)
    header, *lines = (tmp_path / "progress.csv").read_text().splitlines()
    last = dict(zip(header.split(","), lines[-1].split(",")))
    for kind in ("weight", "picked"):
        assert sum(float(last[f"experts/{kind}_{k}"]) for k in range(4)) == pytest.approx(1.0, abs=1e-4)


def test_rewards_are_standardised_where_asked_for():
    agent, update, batch, _ = prepared(batch_reward_scale=10.0)
    scaled = update._rewards(batch.reward)
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-5) and float(scaled.std()) == pytest.approx(10, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_experts": 0}, "num_experts must be a positive integer"),
        ({"estimator": "frequenzy"}, "frequency"),
        ({"gumbel_temperature": 0.0, "estimator": "gumbel_softmax"}, "gumbel_temperature must be positive"),
        ({"gumbel_temperature": 0.5}, "gumbel_softmax' only"),
        ({"batch_reward_scale": -1.0}, "batch_reward_scale must be positive"),
        ({"policy_kwargs": {"num_experts": 2}}, "leave it out there"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        PMOE("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})
