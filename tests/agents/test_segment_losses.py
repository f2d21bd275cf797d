"""Losses of whole answers take any policy: a table, a Gaussian perceptron and a language model get the gradient of one formula."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch

import polyathlon
from polyathlon.agents.language.reading import read_episodes
from polyathlon.agents.parts.contrastive_preference import cpl_pairs
from polyathlon.agents.parts.contrastive_rewards import copg
from polyathlon.agents.parts.preferences import dpo, ipo, rpo
from polyathlon.agents.parts.score_function import hypo
from polyathlon.envs.models import load_model
from polyathlon.envs.models.table_model import TableModel

N, T, BETA = 6, 3, 0.3
SIDE, GROUP = torch.tensor([1, -1, 1, -1, 0, 0]), torch.tensor([0, 0, 1, 1, 2, 2])
MASK = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 1, 0]])
REWARD = torch.tensor([1.0, 0.25, 0.5, -0.5, 0.1, 0.9])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def table():
    model = TableModel("table:3,3,4")
    model.z.data.copy_(random(*model.z.shape))
    tokens = torch.randint(4, (N, T), generator=torch.Generator().manual_seed(1))
    tokens = torch.cat([(model.shape.first + GROUP % 3)[:, None], tokens], 1)
    logp = read_episodes(model, None, tokens, torch.ones_like(tokens), model.shape.vocabulary).logp
    return list(model.parameters()), logp


def gaussian():
    """Segments of three steps of a task with continuous actions."""
    agent = polyathlon.make_agent("ppo", gym.make("Pendulum-v1"), seed=0, device="cpu")
    logp = agent.log_prob(random(N * T, 3).numpy(), random(N * T, 1, seed=1).numpy()).view(N, T)
    trained = [p for name, p in agent.policy.named_parameters() if "value" not in name and "vf" not in name]
    return trained, logp


def language_model():
    model = load_model("tiny")
    tokens = torch.randint(50, 100, (N, T + 4), generator=torch.Generator().manual_seed(1))
    tokens[1::2, :4] = tokens[::2, :4]
    starts = torch.full((N,), 4)
    logp = read_episodes(model, None, tokens, torch.ones_like(tokens), 200, starts=starts).logp[:, -T:]
    return list(model.parameters()), logp


def weights(name, rho):
    """Return c [N] of the gradient sum_i c_i grad log p(y_i), written out; rho is that of the rows."""
    c = torch.zeros(N)
    fresh = torch.tensor([4, 5])
    for w, l in ((0, 1), (2, 3)):
        delta = rho[w] - rho[l]
        if name == "cpl":  # softplus(.5 A_l - A_w)
            slope = torch.sigmoid(BETA * (0.5 * rho[l] - rho[w])) / 2
            c[w] -= BETA * slope
            c[l] += 0.5 * BETA * slope
            continue
        if name in ("dpo", "rpo", "hypo"):
            slope = -BETA * torch.sigmoid(-BETA * delta) / 2
        elif name == "ipo":
            slope = 2 * (delta - 1 / (2 * BETA)) / 2
        else:
            slope = -(REWARD[w] - REWARD[l] - BETA * delta) / 3
        c[w] += slope
        c[l] -= slope
        if name == "rpo":
            c[w] -= 0.2 * BETA / 2
    if name == "copg":
        h = REWARD[4] - REWARD[5] - BETA * (rho[4] - rho[5])
        c[4], c[5] = -h / 3, h / 3
    if name == "hypo":
        c[fresh] = 0.5 * (rho[fresh] - rho[fresh.flip(0)]) / 2
    return c


LOSSES = {
    "dpo": lambda logp, ref: dpo(logp, ref, MASK, SIDE, GROUP, beta=BETA),
    "ipo": lambda logp, ref: ipo(logp, ref, MASK, SIDE, GROUP, tau=BETA, length_norm=False),
    "copg": lambda logp, ref: copg(logp, ref, MASK, REWARD, GROUP, beta=BETA),
    "rpo": lambda logp, ref: rpo(logp, ref, MASK, SIDE, GROUP, beta=BETA, eta=0.2),
    "cpl": lambda logp, ref: cpl_pairs(logp, ref, MASK, SIDE, GROUP, alpha=BETA, bias=0.5),
    "hypo": lambda logp, ref: hypo(logp, ref, MASK, SIDE, GROUP, beta=BETA, lam=0.5),
}


@pytest.mark.parametrize("policy", [table, gaussian, language_model], ids=lambda f: f.__name__)
def test_any_policy_gets_the_gradient_of_one_formula(policy):
    parameters, logp = policy()
    reference = logp.detach() + 0.5 * random(N, T, seed=2)
    rho = ((logp.detach() - reference) * MASK).sum(1)
    for name, loss in LOSSES.items():
        found = torch.autograd.grad(loss(logp, reference), parameters, retain_graph=True, allow_unused=True)
        whole = (weights(name, rho) * (logp * MASK).sum(1)).sum()
        want = torch.autograd.grad(whole, parameters, retain_graph=True, allow_unused=True)
        pairs = [(a, b) for a, b in zip(found, want, strict=True) if a is not None or b is not None]
        assert pairs
        largest = max(float(b.abs().max()) for _, b in pairs)
        assert largest > 1e-3
        for a, b in pairs:
            torch.testing.assert_close(a, b, atol=3e-6 * largest, rtol=1e-4)
