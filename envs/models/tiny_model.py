"""The model "tiny": a Llama of two layers and width 64 on bytes, made from a config, with fixed initial weights."""

from __future__ import annotations

from typing import Any

import torch

from polyathlon.envs.errors import require

PAD, BOS, EOS = 0, 1, 2
VOCABULARY = 259
WIDTH = 64
LAYERS = 2
CONTEXT = 1024
INITIAL_SEED = 259


def byte_characters() -> list[str]:
    """Return the 256 printable characters that byte-level tokenizers write for the bytes 0 to 255.

    Source: `bytes_to_unicode` of GPT-2: a printable Latin-1 byte stands for itself, the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in characters)
    characters.update({byte: chr(0x100 + k) for k, byte in enumerate(others)})
    return [characters[byte] for byte in range(256)]


def tiny_tokenizer() -> Any:
    """Build the byte tokenizer: id 0 pads, 1 begins, 2 ends, and byte b has the id b + 3.

    Text that looks like a special token is encoded as its bytes, so decoding what was encoded gives the text again,
    for every text without lone surrogates. Bytes that are not UTF-8 decode to U+FFFD.

    Returns:
        A `PreTrainedTokenizerFast` with 259 ids, no chat template, padding on the left.
    """
    tokenizers = require("tokenizers", "language")
    transformers = require("transformers", "language")
    vocabulary = {"<pad>": PAD, "<s>": BOS, "</s>": EOS}
    vocabulary.update({character: byte + 3 for byte, character in enumerate(byte_characters())})
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def tiny_model(attn: str | None = None) -> Any:
    """Build the model with its fixed initial weights, in float32 on the CPU.

    Args:
        attn: attention implementation of transformers; None takes the default.

    Returns:
        A `LlamaForCausalLM` with 0.15 M parameters.
    """
    transformers = require("transformers", "language")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        attn_implementation=attn,
    )
    with torch.random.fork_rng(devices=[]):
        model = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(INITIAL_SEED)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                spread = 0.02 if "embed" in name else weight.shape[1] ** -0.5
                weight.normal_(0.0, spread, generator=generator)
    return model
