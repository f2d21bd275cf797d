"""Whole utterances: what a row draws, what is shared, and what the model says about it afterwards."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch

import polyathlon  # noqa: F401  registers the ids
from polyathlon.agents.language.generation import answers, generate, sample_tokens
from polyathlon.agents.language.reading import read_episodes
from polyathlon.envs.models import load_model
from polyathlon.envs.random import make_keys
from polyathlon.wrappers import TokenAction

CONTEXTS = [[256, 49, 50, 10], [256, 97, 98, 99, 100, 101, 10], [256, 49, 50, 10]]


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def rules():
    return TokenAction(gym.make("polyathlon/Reasoning-v0", task="chain_sum"), max_new_tokens=12).rules


def keys_of(*numbers):
    return make_keys(torch.tensor(numbers), torch.zeros(len(numbers), dtype=torch.int64))


def test_a_row_draws_the_same_whatever_its_neighbours(model, rules):
    together = generate(model, CONTEXTS, rules, keys_of(1, 2, 3))
    for i, context in enumerate(CONTEXTS):
        alone = generate(model, [context], rules, keys_of(i + 1))[0]
        assert alone.ids == together[i].ids
        torch.testing.assert_close(torch.tensor(alone.logps), torch.tensor(together[i].logps), atol=1e-5, rtol=0)
    assert together[0].ids != together[2].ids  # equal prompts, other keys
    again = generate(model, CONTEXTS, rules, keys_of(1, 2, 3), stream=1)
    assert [c.ids for c in again] != [c.ids for c in together]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_and_recomputed_log_probabilities_agree(model, rules, temperature):
    found = generate(model, CONTEXTS, rules, keys_of(4, 5, 6), temperature=temperature)
    for context, completion in zip(CONTEXTS, found, strict=True):
        tokens = torch.tensor([[*context, *completion.ids]])
        reading = read_episodes(model, None, tokens, torch.ones_like(tokens), rules.vocabulary, temperature)
        wanted = reading.logp[0, len(context) - 1 :].detach()
        torch.testing.assert_close(torch.tensor(completion.logps), wanted, atol=1e-5, rtol=0)


def test_greedy_takes_the_likeliest_token_at_every_place(model, rules):
    completion = generate(model, [CONTEXTS[0]], rules, keys_of(1), greedy=True)[0]
    ids = list(CONTEXTS[0])
    for token in completion.ids:
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert int(logits.argmax()) == token
        ids.append(token)
    assert len(completion.ids) == 12 or completion.ids[-1] == rules.eos


def test_draws_follow_the_distribution_and_never_hit_zero():
    logps = torch.tensor([0.5, 0.0, 0.3, 0.2]).log().expand(4000, 4)
    noise = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    counts = torch.bincount(sample_tokens(logps, noise), minlength=4)
    assert counts.tolist() == [2000, 0, 1200, 800]
    assert int(sample_tokens(logps[:1], torch.zeros(1, dtype=torch.float64))) == 0
    never = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log()
    for noise, token in ((0.0, 1), (0.5, 2), (1 - 2**-53, 2)):
        assert int(sample_tokens(never, torch.tensor([noise], dtype=torch.float64))) == token


def test_answers_are_texts(model, rules):
    found = answers(model, rules, ["1 + 1 =", "2 + 2 ="], keys_of(1, 2))
    assert len(found) == 2 and all(isinstance(text, str) for text in found)
