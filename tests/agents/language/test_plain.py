"""Models without a cache of use: read anew, equal to one reading of the whole, trained; and what is no decoder."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")
import torch
import transformers

from polyathlon.agents.language.decoders import CacheDecoder, make_decoder
from polyathlon.agents.language.plain import PlainDecoder, known_alone, known_arguments, refuse_no_decoder, remembers
from polyathlon.agents.language.reading import read_episodes
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import load_model

CPU = torch.device("cpu")
CONTEXTS = [[1, 2, 3, 4, 5], [6, 7], [1, 2, 3, 4, 5], [8, 9]]


def small(kind):
    width = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2}
    configs = {
        "mamba": lambda: transformers.MambaConfig(**width, state_size=4),
        "rwkv": lambda: transformers.RwkvConfig(**width, attention_hidden_size=16, context_length=64),
        "gpt2": lambda: transformers.GPT2Config(vocab_size=20, n_positions=64, n_embd=16, n_layer=2, n_head=2),
        "bert": lambda: transformers.BertConfig(**width, intermediate_size=16, num_attention_heads=2),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(configs[kind]()).eval()


def test_a_cache_is_used_where_it_tells_the_same():
    model = small("gpt2")
    assert remembers(model, CacheDecoder, CPU)
    assert isinstance(make_decoder(model, CONTEXTS, 4, CPU), CacheDecoder)
    assert isinstance(make_decoder(load_model("tiny"), CONTEXTS, 4, CPU, fast=False), CacheDecoder)


def test_a_cache_is_used_under_its_new_name():
    # transformers 5.24 calls the argument and the output `cache`
    class Renamed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small("gpt2")

        def forward(self, input_ids, attention_mask=None, position_ids=None, cache=None, use_cache=True):
            word = "cache" if "cache" in known_arguments(self.inner) else "past_key_values"
            words = {
                "attention_mask": attention_mask,
                "position_ids": position_ids,
                word: cache,
                "use_cache": use_cache,
            }
            out = self.inner(input_ids=input_ids, **words)
            return SimpleNamespace(logits=out.logits, cache=out.get(word))

    assert remembers(Renamed().eval(), CacheDecoder, CPU)


def test_a_cache_that_tells_something_else_is_not_used():
    class Forgets(CacheDecoder):
        def keep(self, index):
            super().keep(index.flip(0))

    assert not remembers(small("gpt2"), Forgets, CPU)


@pytest.mark.parametrize("kind", ["mamba", "rwkv", "gpt2"])
@torch.no_grad()
def test_reading_anew_equals_one_reading(kind):
    model = small(kind)
    if kind != "gpt2":
        assert isinstance(make_decoder(model, CONTEXTS, 4, CPU), PlainDecoder)
    decoder = PlainDecoder(model, CONTEXTS, CPU)
    decoder.advance(torch.tensor([3, 4, 5, 6]))
    decoder.keep(torch.tensor([0, 3]))
    logits = decoder.advance(torch.tensor([7, 8]))
    for row, whole in enumerate([[1, 2, 3, 4, 5, 3, 7], [8, 9, 6, 8]]):
        alone = model(input_ids=torch.tensor([whole]), use_cache=False).logits[0]
        torch.testing.assert_close(logits[row], alone[-1], atol=1e-5, rtol=0)
    # training reads rows padded on the right: padding must not change what stands before it
    tokens = torch.tensor([[1, 2, 3, 4, 5, 3, 7], [8, 9, 6, 8, 0, 0, 0]])
    reading = read_episodes(model, None, tokens, (tokens > 0).long(), 20)
    wanted = alone.log_softmax(-1)[[0, 1, 2], [9, 6, 8]]
    torch.testing.assert_close(reading.logp[1, :3], wanted, atol=1e-5, rtol=0)


def test_what_reads_ahead_is_refused():
    refuse_no_decoder(small("gpt2"), "gpt2")
    with pytest.raises(UsageError, match="'bert-mini' .* is no decoder"):
        refuse_no_decoder(small("bert"), "bert-mini")

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, decoder_input_ids):
            return None

    with pytest.raises(UsageError, match="gives no logits for ids alone"):
        refuse_no_decoder(Both(), "t5")


class Says(torch.nn.Module):
    """Says each token, and so much of the one that follows it."""

    def __init__(self, ahead=0.0, scale=1.0, dtype=torch.float32):
        super().__init__()
        self.weight, self.ahead, self.scale, self.dtype = torch.nn.Parameter(torch.zeros(1)), ahead, scale, dtype

    def forward(self, input_ids, use_cache):
        assert use_cache is False
        following = torch.nn.functional.pad(input_ids[:, 1:], (0, 1))
        logits = self.scale * (input_ids + self.ahead * following.double())
        return SimpleNamespace(logits=logits[..., None].expand(-1, -1, 5).to(self.dtype))


@pytest.mark.parametrize(
    ("words", "is_decoder"),
    [
        ({}, True),
        ({"ahead": 6e-6}, True),  # by 2.4e-5, of logits up to 3
        ({"ahead": 9e-6}, False),
        ({"ahead": 2e-5, "scale": 0.1}, True),  # by 8e-6, of logits below 1
        ({"ahead": 3e-5, "scale": 0.1}, False),
        ({"ahead": 2e-3, "dtype": torch.bfloat16}, True),
        ({"ahead": 2e-2, "dtype": torch.bfloat16}, False),
        ({"ahead": 9e-6, "dtype": torch.float64}, False),
        ({"scale": float("nan")}, False),
    ],
)
def test_a_decoder_says_the_same_whatever_follows(words, is_decoder):
    if is_decoder:
        refuse_no_decoder(Says(**words), "own")
        return
    said = (
        "the model 'own' (Says) is no decoder: what it says after a token depends on the tokens that follow; LanguageAgent takes decoders, "
        "which transformers loads by AutoModelForCausalLM"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        refuse_no_decoder(Says(**words), "own")


def test_what_a_model_that_cannot_be_asked_says():
    class Fails(Says):
        def forward(self, input_ids, use_cache):
            raise ValueError("x" * 200)

    said = (
        f"the model 'own' (Fails) gives no logits for ids alone (ValueError: {'x' * 120}); LanguageAgent takes decoders, which transformers "
        "loads by AutoModelForCausalLM"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        refuse_no_decoder(Fails(), "own")


def test_arguments_that_a_model_knows_also_under_adapters():
    made = Says()
    assert known_arguments(made) == {"input_ids", "use_cache"}
    adapted = SimpleNamespace(get_base_model=lambda: made, forward=lambda more: None)
    assert known_arguments(adapted) == {"input_ids", "use_cache"}
    assert known_alone(adapted, use_cache=3, cache=4) == {"use_cache": 3} and known_alone(made) == {}
