"""What a model says about given tokens, with logits that are known: any model's path, and the shared one of Llamas."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from polyathlon.agents.language import reading as module
from polyathlon.agents.language.reading import read_episodes
from polyathlon.envs.models import load_model

TOKENS = torch.tensor([[0, 1, 2, 1], [0, 2, 1, 0]])
ATTENTION = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
# logits after each token of the vocabulary of four, the last of which cannot be chosen
TABLE = torch.tensor([[0.0, 1.0, 2.0, 9.0], [1.0, 0.0, -1.0, 9.0], [0.5, 0.5, 3.0, 9.0]])


class Table(torch.nn.Module):
    """Answers with the logits of the last token alone; hidden states are one-hot tokens."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(TABLE.clone())

    def forward(self, input_ids, attention_mask, use_cache, output_hidden_states):
        assert not use_cache
        hidden = torch.nn.functional.one_hot(input_ids, 3).float()
        return SimpleNamespace(logits=self.table[input_ids], hidden_states=(None, hidden))


class Last(Table):
    """Computes no more logits than it is asked for."""

    asked = 0

    def forward(self, input_ids, attention_mask, use_cache, output_hidden_states, logits_to_keep=0):
        self.asked = logits_to_keep
        out = super().forward(input_ids, attention_mask, use_cache, output_hidden_states)
        return SimpleNamespace(logits=out.logits[:, -logits_to_keep:], hidden_states=out.hidden_states)


def by_hand(temperature):
    """Log-probabilities and entropies over the three tokens that can be chosen."""
    logps = (TABLE[:, :3] / temperature).log_softmax(-1)
    each = torch.tensor([[float(logps[a, b]) for a, b in pairwise(row)] for row in TOKENS.tolist()])
    entropy = -(logps.exp() * logps).sum(-1)
    return each, torch.stack([entropy[row[:-1]] for row in TOKENS])


@pytest.mark.parametrize("model", [Table, Last])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_any_model_is_read_at_the_place_before_each_token(model, temperature):
    logp, entropy = by_hand(temperature)
    found = read_episodes(model(), None, TOKENS, ATTENTION, 3, temperature)
    torch.testing.assert_close(found.logp.detach(), logp)
    torch.testing.assert_close(found.entropy, entropy)
    assert not found.value.any() and found.logp.shape == (2, 3)


@pytest.mark.parametrize("model", [Table, Last])
def test_places_before_the_start_of_a_row_are_zero_and_not_computed(model):
    made = model()
    found = read_episodes(made, None, TOKENS, ATTENTION, 3, 1.0, torch.tensor([2, 3]))
    logp, entropy = by_hand(1.0)
    keep = torch.tensor([[0.0, 1, 1], [0, 0, 1]])
    torch.testing.assert_close(found.logp.detach(), logp * keep)
    torch.testing.assert_close(found.entropy, entropy * keep)
    if model is Last:
        assert made.asked == 3  # from the place before token 2 on, the last one included


def test_values_come_from_the_hidden_state_before_each_token():
    value_net = torch.nn.Linear(3, 1, bias=False)
    value_net.weight.data = torch.tensor([[10.0, 20.0, 30.0]])
    found = read_episodes(Last(), value_net, TOKENS, ATTENTION, 3, 1.0, torch.tensor([1, 2]))
    assert found.value.tolist() == [[10, 20, 30], [0, 30, 20]]


def test_log_probabilities_carry_a_gradient_and_entropies_none():
    model = Table()
    found = read_episodes(model, None, TOKENS, ATTENTION, 3)
    assert not found.entropy.requires_grad
    found.logp[0, 0].backward()
    probability = TABLE[0, :3].softmax(-1)
    # d log p(1) / d logits = onehot(1) - p, nothing for the token that cannot be chosen
    wanted = torch.cat([torch.tensor([0.0, 1.0, 0.0]) - probability, torch.zeros(1)])
    torch.testing.assert_close(model.table.grad[0], wanted)


def test_a_llama_takes_the_shared_path_only_where_it_may(monkeypatch):
    taken = []
    monkeypatch.setattr(module, "_read_llama", lambda *arguments: taken.append("llama") or "shared")
    tiny = load_model("tiny")
    assert read_episodes(tiny, None, TOKENS, ATTENTION, 256) == "shared"
    assert read_episodes(tiny, None, TOKENS, ATTENTION, 256, fast=False).logp.shape == (2, 3)
    assert read_episodes(Table(), None, TOKENS, ATTENTION, 3).logp.shape == (2, 3)
    assert taken == ["llama"]


def test_rows_with_one_beginning_and_rows_without_any_are_read_alike():
    tiny = load_model("tiny")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(200, (4, 7), generator=generator)
    tokens[1, :4] = tokens[0, :4]
    lengths = torch.tensor([7, 6, 7, 4])
    attention = (torch.arange(7) < lengths[:, None]).long()
    starts = torch.tensor([4, 4, 1, 3])
    with torch.no_grad():
        mine, theirs = (
            read_episodes(tiny, None, tokens, attention, 250, 0.9, starts, fast=fast) for fast in (True, False)
        )
    is_read = (torch.arange(6) >= starts[:, None] - 1) & (attention[:, 1:] > 0)
    for ours, reference in zip(mine[:2], theirs[:2]):
        torch.testing.assert_close(ours * is_read, reference * is_read, atol=1e-5, rtol=0)
        assert not ours[~is_read].any()
