"""Every policy says its distribution and every agent the density of actions."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.agents import BQNCO, CMORL, PMOEPPO, PPO, LanguageAgent
from polyathlon.agents.on_policy.policies import ActorCritic
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes import TEXT_PROBES, Tradeoff
from polyathlon.envs.tensor import make_vector
from polyathlon.wrappers.tokens.token_action import TokenAction

SMALL = {"n_steps": 16, "batch_size": 8, "seed": 0, "device": "cpu"}


def test_ppo_in_a_box_by_hand():
    agent = PPO("MlpPolicy", "Pendulum-v1", policy_kwargs={"log_std_init": -0.5}, **SMALL)
    obs = np.ones((2, 3), np.float32)
    mean = agent.policy.distribution(torch.as_tensor(obs)).mode().detach()
    found = agent.log_prob(obs, mean.numpy() + 0.3)
    wanted = -0.5 * (0.3 / math.exp(-0.5)) ** 2 + 0.5 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(found, torch.full((2,), wanted), rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert agent.policy.log_std.grad is not None
    with pytest.raises(UsageError, match="Box cannot be masked"):
        agent.log_prob(obs, mean, action_masks=np.ones((2, 1), bool))


def test_masks_move_the_probability_to_what_is_allowed():
    agent = PPO("MlpPolicy", "CartPole-v1", **SMALL)
    obs = np.zeros((2, 4), np.float32)
    both = torch.stack([agent.log_prob(obs, np.array([k, k])) for k in (0, 1)]).exp()
    torch.testing.assert_close(both.sum(0), torch.ones(2))
    allowed = np.array([[True, False], [True, True]])
    found = agent.log_prob(obs, np.array([0, 0]), action_masks=allowed).exp()
    torch.testing.assert_close(found, torch.stack([torch.ones(()), both[0, 1]]))
    shown, mask = torch.as_tensor(obs), torch.as_tensor(allowed)
    ours = agent.policy.distribution(shown, mask).entropy()
    torch.testing.assert_close(ours, agent.policy.get_distribution(shown, mask).entropy())


@pytest.mark.parametrize("num_experts", [1, 3])
def test_a_mixture_says_what_it_acts_by(num_experts):
    agent = PMOEPPO("MlpPolicy", "Pendulum-v1", num_experts=num_experts, **SMALL)
    obs, action = torch.ones(4, 3), torch.linspace(-1, 1, 4)[:, None]
    wanted = agent.policy.evaluate_actions(obs, action)[1]
    torch.testing.assert_close(agent.log_prob(obs, action), wanted)
    assert agent.policy.forward(obs)[1].shape == (4, 1)


@pytest.mark.parametrize("form", ["box", "discrete"])
def test_a_policy_of_a_front_by_preference(form):
    env = make_vector(Tradeoff, 4, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, form=form)
    agent = CMORL("MlpPolicy", env, num_initial_policies=2, num_extension_policies=0, **SMALL)
    with torch.no_grad():
        agent.population.matrix.add_(
            torch.randn(agent.population.matrix.shape, generator=torch.Generator().manual_seed(0))
        )
    obs, action = np.zeros((2, 2), np.float32), np.array([agent.action_space.sample() for _ in range(2)])
    ends = [agent.log_prob(obs, action, preference=w).detach() for w in ((1.0, 0.0), (0.0, 1.0))]
    assert ends[0].shape == (2,) and not torch.equal(*ends)
    shown = torch.as_tensor(np.concatenate([obs, obs]))
    both = agent.population.distribution(shown)
    if form == "discrete":
        action = action - agent.action_space.start
    found = both.log_prob(torch.as_tensor(np.concatenate([action, action])))
    for k, weight in enumerate(torch.eye(2)):
        p = agent._nearest(weight)
        torch.testing.assert_close(found[2 * p : 2 * p + 2].detach(), ends[k])


def test_a_language_model_by_token():
    env = TokenAction(TEXT_PROBES["CopyAnswer"](), max_new_tokens=1, max_length=64)
    agent = LanguageAgent("tiny", env, recipe="grpo", temperature=2.0, seed=0, device="cpu")
    obs = {key: np.asarray(value)[None] for key, value in env.reset(seed=0)[0].items()}
    shown = agent.policy.obs_to_tensor(obs)[0]
    logits = agent.policy.read(shown)[0]
    token = int(logits.argmax())
    torch.testing.assert_close(agent.log_prob(obs, np.array([token])), (logits / 2).log_softmax(-1)[:, token])
    plain = agent.policy.distribution(shown)
    torch.testing.assert_close(
        plain.log_prob(torch.tensor([token])), agent.policy.get_distribution(shown).log_prob(torch.tensor([token]))
    )
    mask = torch.zeros_like(logits, dtype=torch.bool).index_fill(1, torch.tensor([token]), True)
    assert float(agent.policy.distribution(shown, mask).log_prob(torch.tensor([token])).detach()) == pytest.approx(0.0)
    with pytest.raises(UsageError, match="observations of a TokenAction"):
        agent.log_prob("2 + 2 =", [1])


def test_a_construction_policy_forbids_what_the_table_shows_as_closed():
    agent = BQNCO(
        "ReZeroPolicy", gym.make("polyathlon/TSP-v0", num_nodes=5), solver="brute_force", seed=0, device="cpu"
    )
    obs = agent.env.reset()
    probabilities = []
    for node in range(agent.action_space.n):
        probabilities.append(agent.log_prob(obs, np.full(agent.n_envs, node)).detach().exp())
    total = torch.stack(probabilities)
    torch.testing.assert_close(total.sum(0), torch.ones(agent.n_envs))
    shown = agent.policy.obs_to_tensor(obs)[0]
    torch.testing.assert_close(total.T, agent.policy.log_probs(shown).detach().exp())
    assert bool((total == 0).any())


class Secret(ActorCritic):
    @property
    def distribution(self):
        raise AttributeError


def test_a_policy_without_a_density_says_so():
    agent = PPO("MlpPolicy", "Pendulum-v1", **SMALL)
    agent.policy.__class__ = Secret
    with pytest.raises(UsageError, match="Secret has no density"):
        agent.log_prob(np.ones((1, 3), np.float32), np.ones((1, 1), np.float32))
