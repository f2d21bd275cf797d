"""PMOE on PPO: its loss by hand, its limit PPO, how it acts, its refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss, one_hot

from polyathlon.agents import PMOEPPO, PPO
from polyathlon.agents.on_policy.minibatches import Minibatches
from polyathlon.agents.parts.gaussian_mixture import of_expert
from polyathlon.envs.errors import UsageError

SMALL = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "device": "cpu", "seed": 0}
ROWS, OBS, EXPERTS = 12, 3, 4


def agent_and_batch(**arguments):
    agent = PMOEPPO("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        agent.policy.router.weight.normal_(generator=generator)
        agent.policy.action_net.weight.normal_(generator=generator)
        agent.policy.log_std.normal_(generator=generator)
    obs = torch.randn(ROWS, OBS, generator=generator)
    rest = torch.randn(5, ROWS, generator=generator)
    batch = Minibatches(obs, rest[0][:, None], None, rest[1], -rest[2].abs(), rest[3], rest[4])
    return agent, batch


def gradients(agent, batch, **noise):
    """Return the loss of a minibatch and its gradient by the policy's parameters."""
    engine = agent.engine
    gradient = engine.gradients({**batch._asdict(), **noise, **agent.numbers()})[0]["policy"]
    own = [p for n in engine.wired[0].loss.moved for p in engine.networks[n].modules[0].parameters()]
    parts = dict(zip(map(id, own), gradient.split([p.numel() for p in own])))
    found = {name: parts[id(p)].view(p.shape) for name, p in agent.policy.named_parameters() if id(p) in parts}
    before = engine.state_dict()
    engine.step({**batch._asdict(), **noise, **agent.numbers()})
    loss = engine.metrics()["policy_loss"]
    engine.load_state_dict(before)
    return loss, found


def test_loss_is_that_of_the_mixture_with_router_and_judge():
    agent, batch = agent_and_batch()
    policy = agent.policy
    noise = torch.empty(ROWS, EXPERTS, 1).normal_(generator=torch.Generator().manual_seed(2))
    total, found = gradients(agent, batch, noise=noise)

    w = policy.router(batch.obs).softmax(-1)
    mean = policy.action_net(policy.mlp_extractor.policy_net(batch.obs))  # one action component: [B, K]
    std = policy.log_std[:, 0].exp()
    density = torch.exp(-0.5 * ((batch.action - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    log_prob = (w * density).sum(1).log()
    advantage = (batch.adv - batch.adv.mean()) / (batch.adv.std() + 1e-8)
    ratio = (log_prob - batch.old_logp).exp()
    surrogate = -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    value_loss = mse_loss(policy.predict_values(batch.obs)[:, 0], batch.returns)
    sample = (mean + std * noise[..., 0]).detach()
    pairs = torch.cat([batch.obs.repeat_interleave(EXPERTS, 0), sample.reshape(-1, 1)], 1)
    best = policy.q_net(pairs).view(ROWS, EXPERTS).argmax(1)
    router_loss = mse_loss(w, one_hot(best, EXPERTS).float())
    q_loss = mse_loss(policy.q_net(torch.cat([batch.obs, batch.action], 1))[:, 0], batch.returns)
    wanted = surrogate + 0.5 * value_loss + router_loss + q_loss

    assert total == pytest.approx(float(wanted.detach()), rel=1e-5)
    parameters = dict(policy.named_parameters())
    assert set(found) == set(parameters)
    for name, other in zip(parameters, torch.autograd.grad(wanted, list(parameters.values())), strict=True):
        torch.testing.assert_close(found[name], other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fast_update", [True, False])
def test_one_expert_is_ppo_bit_for_bit(fast_update):
    settings = {**SMALL, "fast_update": fast_update}
    plain = PPO("MlpPolicy", "Pendulum-v1", **settings).learn(256)
    agent = PMOEPPO("MlpPolicy", "Pendulum-v1", num_experts=1, **settings).learn(256)
    assert (agent._fast is not None) == fast_update
    mine, wanted = agent.policy.state_dict(), plain.policy.state_dict()
    assert mine.keys() == wanted.keys() and all(torch.equal(mine[name], wanted[name]) for name in wanted)


def test_without_judge_the_router_learns_from_the_surrogate_alone():
    agent, batch = agent_and_batch(estimator="score_ratio")
    before = {name: p.clone() for name, p in agent.policy.q_net.named_parameters()}
    _, found = gradients(agent, batch)
    assert float(found["router.weight"].abs().sum()) > 0
    assert not any(name.startswith("q_net") for name in found)
    agent.learn(64)
    assert all(torch.equal(p, before[name]) for name, p in agent.policy.q_net.named_parameters())


def test_densities_belong_to_the_actions_that_are_drawn():
    agent, _ = agent_and_batch()
    policy = agent.policy
    with torch.no_grad():
        obs = torch.zeros(1, OBS)
        grid = torch.linspace(-60, 60, 24_001)[:, None]
        density = policy.evaluate(obs.expand(grid.shape[0], -1), grid, None)[1].exp()
        assert float(density.sum() * 120 / 24_000) == pytest.approx(1, abs=1e-3)
        drawn = policy.act(obs.expand(40_000, -1), None, torch.Generator().manual_seed(0))
        middle = float(density[(grid.abs() < 1)[:, 0]].sum() * 120 / 24_000)
        assert float((drawn.abs() < 1).float().mean()) == pytest.approx(middle, abs=0.01)


def test_the_likeliest_expert_acts_deterministically():
    agent, batch = agent_and_batch()
    obs = batch.obs.numpy()
    expert = torch.as_tensor(agent.expert_weights(obs).argmax(1))
    with torch.no_grad():
        wanted = of_expert(agent.policy.mixture(batch.obs)[1], expert).clamp(-2, 2).numpy()
    np.testing.assert_allclose(agent.predict(obs, deterministic=True)[0], wanted, rtol=1e-5)


def test_the_use_of_the_experts_is_logged(tmp_path):
    from stable_baselines3.common.logger import configure

    agent = PMOEPPO("MlpPolicy", "Pendulum-v1", **SMALL)
    agent.set_logger(configure(str(tmp_path), ["csv"]))
    agent.learn(256)
    header, *lines = (tmp_path / "progress.csv").read_text().splitlines()
    last = dict(zip(header.split(","), lines[-1].split(",")))
    for kind in ("weight", "picked"):
        assert sum(float(last[f"experts/{kind}_{k}"]) for k in range(4)) == pytest.approx(1.0, abs=1e-4)
    assert float(last["train/q_loss"]) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_experts": True}, "num_experts must be a positive integer"),
        ({"estimator": "gumbel_softmax"}, "PMOE has it"),
        ({"estimator": "score"}, "score_ratio"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        PMOEPPO("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


def test_sb3s_distribution_of_a_mixture_is_refused():
    agent, batch = agent_and_batch()
    with pytest.raises(UsageError, match="evaluate_actions"):
        agent.policy.get_distribution(batch.obs)
