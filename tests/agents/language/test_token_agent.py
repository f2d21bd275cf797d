"""An agent that answers by tokens: its ends by answers, what it acts on, its frozen copy, the temperature of its draws."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from polyathlon.agents import LanguageAgent
from polyathlon.agents.language import saving
from polyathlon.agents.language.token_agent import TokenAgent
from polyathlon.envs.errors import UsageError
from polyathlon.wrappers import TokenAction

from .test_language_agent import Letter, letters


@pytest.fixture(scope="module")
def agent():
    return LanguageAgent("tiny", letters(), num_prompts=2, group_size=2, seed=0, temperature=0.5)


def observed(agent, text="a"):
    ids = agent.token_env.rules.prompt([{"role": "user", "content": text}])
    tokens = np.zeros(agent.observation_space["tokens"].shape, np.int64)
    tokens[: len(ids)] = ids
    return {"tokens": tokens, "length": np.int64(len(ids))}


def test_learning_ends_and_progresses_by_tokens_or_by_answers():
    agent = LanguageAgent("tiny", letters(), num_prompts=2, group_size=2, seed=0)
    agent.num_timesteps, agent._episode_num = 10, 3
    assert agent._has_finished(10) and not agent._has_finished(11)
    agent._update_current_progress_remaining(10, 40)
    assert agent._current_progress_remaining == 0.75
    agent.completions = 4
    assert not agent._has_finished(1)
    agent._update_current_progress_remaining(10, 10)
    assert agent._current_progress_remaining == 0.25
    agent._episode_num = 5
    agent._update_current_progress_remaining(10, 40)
    assert agent._has_finished(100) and agent._current_progress_remaining == 0  # one group more than was asked for
    agent._episode_num = 4
    assert agent._has_finished(100)


def test_its_environment_is_the_token_action_under_any_wrapper():
    env = letters()
    agent = LanguageAgent("tiny", gym.wrappers.TimeLimit(env, 5), num_prompts=2, group_size=2)
    assert agent.token_env is env and isinstance(env, TokenAction)
    agent.env.envs[0] = gym.Wrapper(Letter(max_turns=1))
    with pytest.raises(UsageError, match="has token spaces but no TokenAction wrapper"):
        _ = agent.token_env
    agent.env = None
    with pytest.raises(UsageError, match="takes a scalar TokenAction environment .*got None"):
        _ = agent.token_env


def test_the_temperature_divides_the_logits(agent):
    obs = observed(agent)
    batch = {name: torch.as_tensor(np.asarray(value)[None]) for name, value in obs.items()}
    with torch.no_grad():
        logits = agent.policy.read(batch)[0]
    wanted = (logits / 0.5).log_softmax(-1)[0]
    ids = np.arange(agent.action_space.n)
    many = {name: np.repeat(np.asarray(value)[None], len(ids), 0) for name, value in obs.items()}
    torch.testing.assert_close(agent.log_prob(many, ids).detach(), wanted, atol=1e-5, rtol=0)
    drawn = agent.predict({name: np.repeat(np.asarray(value)[None], 4000, 0) for name, value in obs.items()})[0]
    best = int(wanted.argmax())
    assert drawn.shape == (4000,) and abs((drawn == best).mean() - float(wanted.exp()[best])) < 0.03
    found, state = agent.predict(obs, state=("kept",), deterministic=True)
    assert found == best and np.ndim(found) == 0 and state == ("kept",)
    with pytest.raises(UsageError, match="ids of tokens, got list"):
        agent.log_prob(["a"], ids[:1])


def test_a_frozen_copy_answers_as_the_agent_and_by_each_text_s_key(agent):
    actor = agent.frozen_actor()
    keys = torch.tensor([[1, 2], [3, 4], [1, 2]])
    said = actor.answer(["a", "b", "a"], keys)
    assert said[0] == said[2] and actor.answer(["b"], keys[1:2]) == [said[1]]
    assert actor.act(["a", "b"], None, None, deterministic=True) == agent.predict(["a", "b"], deterministic=True)[0]
    assert actor.device == agent.device and actor.temperature == 0.5 and actor.rules is agent.token_env.rules
    kept = actor.state_dict()
    for value in kept.values():
        value.zero_()
    assert any(bool(value.any()) for value in actor.state_dict().values())
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    first, again, other = (actor.act(["a"] * 8, None, generator) for generator in seeds)
    assert first == again and first != other and len(set(first)) > 1  # equal texts have keys of their own


def test_texts_are_answered_by_draws_or_by_the_likeliest_tokens(agent):
    assert len(set(agent.predict(["a"] * 8)[0])) > 1 and len(set(agent.predict(["a"] * 8, deterministic=True)[0])) == 1


def test_saving_for_plain_transformers_takes_its_words(agent, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(saving, "save_pretrained", lambda *words: asked.append(words) or tmp_path)
    assert agent.save_pretrained(tmp_path) == agent.save_pretrained(tmp_path, "apart", {"task": "x"}) == tmp_path
    assert asked == [(agent, tmp_path, "merged", None), (agent, tmp_path, "apart", {"task": "x"})]


def test_the_model_is_tiny_where_none_is_named(agent):
    assert agent.model_name == "tiny" and TokenAgent.action_forms == ("tokens",)
    kept, agent.policy_kwargs = agent.policy_kwargs, {}
    assert agent.model_name == "tiny"
    agent.policy_kwargs = kept
