"""Llama's forward pass of this package against the class of transformers: decoding, reading, gradients."""

from __future__ import annotations

import pytest
import torch
import transformers

from polyathlon.agents.language.decoders import CacheDecoder, LlamaDecoder, make_decoder
from polyathlon.agents.language.llama import Llama, is_plain_llama
from polyathlon.agents.language.reading import read_episodes
from polyathlon.envs.models import load_model
from polyathlon.envs.models.models import _with_adapters

VOCABULARY = 50
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
QWEN2 = {"family": "Qwen2", "num_key_value_heads": 2, "use_sliding_window": False}
QWEN3 = {"family": "Qwen3", "num_key_value_heads": 2, "head_dim": 16, "use_sliding_window": False}
VARIANTS = {
    "plain": {},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "adapters": {"lora": 3},
    "qwen2": QWEN2,
    "qwen2 with adapters": {**QWEN2, "lora": 2},
    "qwen3": QWEN3,
    "qwen3 with adapters and biases": {**QWEN3, "attention_bias": True, "lora": 2},
    "mistral": {"family": "Mistral", "num_key_value_heads": 2, "sliding_window": None, "head_dim": 8},
    "grouped": {"num_key_value_heads": 2, "tie_word_embeddings": False},
    "one key head": {"num_key_value_heads": 1, "head_dim": 12},
    "llama3": {"rope_parameters": LLAMA3},
}
# two rows share a context, one is shorter, one is alone, and they do not stand side by side
CONTEXTS = [[5, 6, 7, 8, 9], [3, 4], [5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8], [3, 4], [3, 4]]


def make_model(family="Llama", lora=None, **options):
    config = getattr(transformers, f"{family}Config")(**SMALL, **options)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(3)
        model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
        if lora is not None:
            model = _with_adapters(model, lora)
        for (
            weight
        ) in model.parameters():  # norms, biases, projections and adapters that differ from their neat initial values
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


@torch.no_grad()
def test_later_turns_read_what_is_new_and_what_was_rewritten(model, monkeypatch):
    read = []
    embed = Llama.embed
    monkeypatch.setattr(Llama, "embed", lambda self, tokens: read.append(len(tokens)) or embed(self, tokens))
    decoder = make_decoder(model, CONTEXTS, 2, torch.device("cpu"))
    decoder.advance(torch.arange(len(CONTEXTS)))
    decoder.keep(torch.tensor([1]))  # what is kept does not depend on who ended first
    turns = [
        # rows 0 and 2 said different things, row 1 ended, rows 4 and 5 said the same; they got unequally long answers
        ([CONTEXTS[0] + [1, 2, 3], CONTEXTS[2] + [2], CONTEXTS[3] + [9] * 6, *[CONTEXTS[4] + [7, 8]] * 2], 4 * 6),
        ([CONTEXTS[3] + [9] * 6 + [1, 2], CONTEXTS[0] + [1, 2, 3, 4]], 2 * 2),
        ([CONTEXTS[0] + [1, 2, 3, 4, 5], [9, *CONTEXTS[3][1:], *[9] * 6, 1, 2, 3]], 2 * 17),  # the second was rewritten
        ([CONTEXTS[0] + [1, 2, 3]], 8),  # and here text was taken back
    ]
    for contexts, number in turns:
        read.clear()
        assert decoder.follow(contexts, 3) and read == [number]
        logits, texts = decoder.logits, [list(c) for c in contexts]
        for token in (4, 6, 8):
            anew = make_decoder(model, texts, 1, torch.device("cpu")).logits
            torch.testing.assert_close(logits, anew, atol=2e-5, rtol=0)
            for text in texts:
                text.append(token)
            logits = decoder.advance(torch.full((len(texts),), token))


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
        trained = [p for p in (*model.parameters(), *value_net.parameters()) if p.requires_grad]
        gradients = [p.grad.clone() for p in trained]
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
    assert is_plain_llama(load_model("tiny")) and is_plain_llama(load_model("tiny", lora=2))
    assert not is_plain_llama(make_model(hidden_act="gelu"))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
    other = make_model(rope_parameters=dynamic)
    assert not is_plain_llama(other)
    assert isinstance(make_decoder(other, CONTEXTS, 2, torch.device("cpu")), CacheDecoder)
    assert isinstance(make_decoder(make_model(), CONTEXTS, 2, torch.device("cpu"), fast=False), CacheDecoder)


@pytest.mark.parametrize(
    "options",
    [
        {**QWEN2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        {**QWEN3, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
        {"family": "Mistral", "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    ],
)
def test_sliding_windows_are_left_to_the_model(options):
    assert not is_plain_llama(make_model(**options))


def test_adapters_of_other_kinds_are_left_to_the_model():
    import peft

    words = {"r": 2, "target_modules": ["q_proj", "o_proj"], "task_type": "CAUSAL_LM"}
    assert is_plain_llama(peft.get_peft_model(make_model(), peft.LoraConfig(**words)))
    assert not is_plain_llama(peft.get_peft_model(make_model(), peft.LoraConfig(**words, use_dora=True)))
    assert not is_plain_llama(
        peft.get_peft_model(make_model(attention_bias=True), peft.LoraConfig(**words, lora_bias=True))
    )
    merged = peft.get_peft_model(make_model(), peft.LoraConfig(**words))
    merged.merge_adapter()
    assert not is_plain_llama(merged)


def test_beginnings_without_their_last_layer_keep_the_same_keys_and_values(model):
    if not is_plain_llama(model):
        pytest.skip("read by the model itself")
    tokens = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(4))
    given, short = Llama(model).read_prefixes(tokens, with_last=False)
    whole, kept = Llama(model).read_prefixes(tokens)
    assert len(short) == len(kept) > 1 and not torch.equal(given, whole)
    for own, other in zip(short, kept):
        for mine, theirs in zip(own, other):
            assert torch.equal(mine, theirs)


class OwnLinear(torch.nn.Linear):
    """A linear layer of another kind."""


class OwnEmbedding(torch.nn.Embedding):
    """An embedding of another kind."""


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("", "lm_head", torch.nn.Linear(32, VOCABULARY)),
        ("", "lm_head", OwnLinear(32, VOCABULARY, bias=False)),
        ("model", "embed_tokens", OwnEmbedding(VOCABULARY, 32)),
        ("model.rotary_emb", "rope_type", "yarn"),
        ("config", "hidden_act", "relu"),
        *(
            (f"model.layers.1.{part}", name, OwnLinear(32, 32, bias=False))
            for part, name in (
                *(("self_attn", name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
                *(("mlp", name) for name in ("gate_proj", "up_proj", "down_proj")),
            )
        ),
        ("model.layers.1.self_attn", "sliding_window", 4),
    ],
)
def test_a_model_is_plain_in_all_its_parts(where, name, value):
    made = make_model()
    holder = made
    for step in filter(None, where.split(".")):
        holder = holder[int(step)] if step.isdigit() else getattr(holder, step)
    setattr(holder, name, value)
    assert not is_plain_llama(made)


def test_rotations_that_do_not_depend_on_the_length_and_windows_of_other_kinds():
    made = make_model()
    for kind in ("default", "linear", "llama3"):
        made.model.rotary_emb.rope_type = kind
        assert is_plain_llama(made)
    made.config.sliding_window = 4  # which Llama does not look at
    assert is_plain_llama(made)
    assert not is_plain_llama(torch.nn.Linear(2, 2))
    del made.model.layers[0].mlp.up_proj
    assert not is_plain_llama(made)
