"""Frozen copies of policies: they act as the agent does, and stay when it learns."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from polyathlon.agents import PPO, SAC, LanguageAgent
from polyathlon.agents.parts.actors import Actor
from polyathlon.envs.errors import UsageError
from polyathlon.envs.probes.language_probes import FixedAnswer
from polyathlon.wrappers import TokenAction


def test_an_actor_of_ppo_is_masked_and_keeps_still():
    env = gym.make("polyathlon/TicTacToe-v0", opponent="random")
    agent = PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=2, seed=0)
    actor = agent.frozen_actor()
    obs = torch.zeros(64, 3, 3, 3, dtype=torch.int8)
    mask = torch.zeros(64, 9, dtype=torch.bool)
    mask[:, [2, 5]] = True
    drawn = actor.act(obs, mask, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {2, 5}
    assert torch.equal(drawn, actor.act(obs, mask, torch.Generator().manual_seed(0)))
    best = actor.act(obs, mask, None, deterministic=True)
    assert (
        best.tolist() == [int(agent.predict(obs[0].numpy(), deterministic=True, action_masks=mask[0].numpy())[0])] * 64
    )
    before = {name: value.clone() for name, value in actor.state_dict().items()}
    agent.learn(32)
    assert all(torch.equal(before[name], value) for name, value in actor.state_dict().items())
    assert any(not torch.equal(before[n], v) for n, v in agent.policy.state_dict().items())
    assert not any(p.requires_grad for p in actor.module.parameters())


@pytest.mark.parametrize("kind", [PPO, SAC])
def test_an_actor_of_a_box_gives_actions_of_the_box(kind):
    env = gym.make("Pendulum-v1")
    agent = kind("MlpPolicy", env, seed=0, policy_kwargs={"net_arch": [8]})
    actor = agent.frozen_actor()
    assert actor.observation_space == env.observation_space and actor.action_space == env.action_space
    obs = torch.randn(200, 3, generator=torch.Generator().manual_seed(1)) * 5
    action = actor.act(obs, None, torch.Generator().manual_seed(0))
    assert action.shape == (200, 1) and action.abs().max() <= 2 and action.std() > 0.1
    best = actor.act(obs, None, None, deterministic=True)
    wanted = np.stack([agent.predict(row.numpy(), deterministic=True)[0] for row in obs[:5]])
    np.testing.assert_allclose(best[:5].numpy(), np.clip(wanted, -2, 2), atol=1e-6)
    noise = torch.zeros(200, 1)
    torch.testing.assert_close(actor.act_with(obs, lambda shape: noise), best)
    shifted = actor.act_with(obs[:1], lambda shape: torch.ones(1, *shape))
    assert torch.equal(shifted, actor.act_with(obs, lambda shape: torch.ones(200, *shape))[:1])


def test_an_actor_of_a_language_model_answers_texts_by_texts():
    agent = LanguageAgent("tiny", TokenAction(FixedAnswer(), max_new_tokens=4), num_prompts=2, group_size=2, seed=0)
    actor = agent.frozen_actor()
    said = actor.act(["y or n?", "y or n?"], None, torch.Generator().manual_seed(0))
    assert len(said) == 2 and all(isinstance(text, str) for text in said)
    assert said == actor.act(["y or n?", "y or n?"], None, torch.Generator().manual_seed(0))
    keys = torch.tensor([[1, 2], [3, 4]])
    both, alone = actor.answer(["a", "b"], keys), actor.answer(["b"], keys[1:])
    assert both[1] == alone[0]
    assert actor.act(["a"], None, torch.Generator(), deterministic=True) == [agent.predict("a", deterministic=True)[0]]


def test_bounds_lie_where_the_actions_do_and_a_policy_without_parameters_acts_on_the_cpu():
    actor = Actor(None, gym.spaces.Box(-1, 2, (2,)), torch.nn.Identity())
    assert actor.device == torch.device("cpu") and actor.observation_space is None
    assert [bound.tolist() for bound in actor._bounds(torch.zeros(1))] == [[-1, -1], [2, 2]]
    assert [bound.device.type for bound in actor._bounds(torch.zeros(1, device="meta"))] == ["meta", "meta"]


def test_a_policy_that_does_not_say_its_noise_is_refused():
    module = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match="does not say which noise it takes"):
        Actor(module, gym.spaces.Box(-1, 1, (2,)), module).act_with(
            torch.zeros(1, 2), lambda shape: torch.zeros(1, *shape)
        )
