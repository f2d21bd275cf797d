"""Llama's forward pass of this package against the class of transformers: decoding, reading, gradients."""

from __future__ import annotations

import pytest
import torch
import transformers

from polyathlon.agents.language.decoders import CacheDecoder, LlamaDecoder, make_decoder
from polyathlon.agents.language.llama import is_plain_llama
from polyathlon.agents.language.reading import read_episodes
from polyathlon.envs.models import load_model

VOCABULARY = 50
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "one key head": {"num_key_value_heads": 1, "head_dim": 12},
    "llama3": {"rope_parameters": LLAMA3},
}
# two rows share a context, one is shorter, one is alone, and they do not stand side by side
CONTEXTS = [[5, 6, 7, 8, 9], [3, 4], [5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8], [3, 4], [3, 4]]


def make_model(**options):
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(3)
        model = transformers.LlamaForCausalLM(config).eval()
        for weight in model.parameters():  # norms and projections that differ from their neat initial values
            weight.data += 0.1 * torch.randn_like(weight)
    return model


@pytest.fixture(scope="module", params=list(VARIANTS))
def model(request):
    return make_model(**VARIANTS[request.param])


@torch.no_grad()
def test_decoding_gives_the_logits_of_a_whole_forward_pass(model):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (7, len(CONTEXTS)), generator=generator)
    decoder = make_decoder(model, CONTEXTS, 7, torch.device("cpu"))
    assert isinstance(decoder, LlamaDecoder)
    rows, texts, logits = list(range(len(CONTEXTS))), [list(c) for c in CONTEXTS], decoder.logits
    for step, chosen in enumerate(tokens):
        for i, row in enumerate(rows):
            whole = model(input_ids=torch.tensor([texts[row]])).logits[0, -1]
            torch.testing.assert_close(logits[i], whole, atol=2e-5, rtol=0)
        if step in (2, 4):  # some rows end; in the second round the last one of a context
            kept = [0, 1, 3, 5] if step == 2 else [1, 3]
            decoder.keep(torch.tensor(kept))
            rows = [rows[i] for i in kept]
        for row in rows:
            texts[row].append(int(chosen[row]))
        logits = decoder.advance(chosen[torch.tensor(rows)])


def episodes(starts):
    generator = torch.Generator().manual_seed(1)
    lengths = [len(c) + more for c, more in zip(CONTEXTS, (3, 6, 1, 2, 6, 4), strict=True)]
    tokens = torch.zeros(len(CONTEXTS), max(lengths), dtype=torch.int64)
    for i, (context, length) in enumerate(zip(CONTEXTS, lengths, strict=True)):
        tokens[i, :length] = torch.randint(VOCABULARY - 3, (length,), generator=generator)
        tokens[i, : len(context)] = torch.tensor(context)
    attention = (torch.arange(tokens.shape[1]) < torch.tensor(lengths)[:, None]).long()
    at = torch.arange(tokens.shape[1] - 1)
    weight = torch.randn(tokens.shape[0], tokens.shape[1] - 1, generator=generator)
    return tokens, attention, weight * (at >= starts[:, None] - 1) * attention[:, 1:]


@pytest.mark.parametrize("starts", ["after the context", "at once"])
def test_reading_gives_log_probabilities_values_and_gradients(model, starts):
    first = torch.tensor([len(c) for c in CONTEXTS]) if starts == "after the context" else torch.ones(6).long()
    tokens, attention, weight = episodes(first)
    value_net = torch.nn.Linear(32, 1)
    found = []
    for fast in (True, False):
        model.zero_grad()
        value_net.zero_grad()
        reading = read_episodes(model, value_net, tokens, attention, VOCABULARY - 3, 0.8, first, fast)
        (weight * reading.logp + 0.3 * weight * reading.value).sum().backward()
        gradients = [p.grad.clone() for p in (*model.parameters(), *value_net.parameters())]
        found.append(([x * (weight != 0) for x in reading[:3]], gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    for name, mine, reference in zip(("logp", "entropy", "value"), ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    for mine, reference in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)
    assert float(ours[0].detach().abs().max()) > 1 and float(ours[2].detach().abs().max()) > 0


def test_the_generic_readings_before_the_start_are_zero():
    model = make_model()
    first = torch.tensor([len(c) for c in CONTEXTS])
    tokens, attention, _ = episodes(first)
    for fast in (True, False):
        logp = read_episodes(model, None, tokens, attention, VOCABULARY, 1.0, first, fast).logp
        before = torch.arange(tokens.shape[1] - 1) < first[:, None] - 1
        assert not logp[before].any()


def test_other_models_take_the_generic_path():
    assert is_plain_llama(load_model("tiny")) and not is_plain_llama(load_model("tiny", lora=2))
    biased = make_model(attention_bias=True)
    assert not is_plain_llama(biased)
    assert not is_plain_llama(make_model(hidden_act="gelu"))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
    assert not is_plain_llama(make_model(rope_parameters=dynamic))
    assert isinstance(make_decoder(biased, CONTEXTS, 2, torch.device("cpu")), CacheDecoder)
    assert isinstance(make_decoder(make_model(), CONTEXTS, 2, torch.device("cpu"), fast=False), CacheDecoder)
