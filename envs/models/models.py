"""Language models by name: tokenizers, weights, prompts.

A name is one of the embedded models (`model_names()`), a table ("table:P,T,V"), a folder that `save_pretrained` wrote, a GGUF file, or a name on
the HuggingFace hub. Nothing here touches global random state, and the network is used only for a hub name that is not
in the local cache, and by `fetch`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from polyathlon.envs.errors import UsageError, require

from . import model_files
from .model_files import Location, locate
from .model_tokens import MARK, end_ids
from .table_model import TableModel, table_end_ids, table_tokenizer
from .tiny_model import tiny_model, tiny_tokenizer

Message = dict[str, str]


def load_tokenizer(name: str | Path) -> Any:
    """Load the tokenizer of a model.

    Padding is set to the left, as batched generation needs it; a tokenizer without a padding token pads with its end
    token, so masks must come from lengths and never from `ids != pad`.

    Args:
        name: an embedded model, a folder, a GGUF file or a hub name.

    Returns:
        A fast tokenizer of transformers.

    Raises:
        UsageError: there is no such model, or it has no end token.
    """
    where = locate(name)
    if where.kind == "tiny":
        return tiny_tokenizer()
    if where.kind == "table":
        return table_tokenizer(where.path)
    transformers = require("transformers", "language")
    tokenizer = _from_pretrained(transformers.AutoTokenizer, where)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"the tokenizer of {str(name)!r} has no end token; an utterance could not end. Set eos_token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    reads = getattr(_from_pretrained(transformers.AutoConfig, where), "max_position_embeddings", None)
    if reads is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, reads)
    return tokenizer


def load_model(
    name: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    lora: int | None = None,
    attn: str | None = None,
) -> Any:
    """Load a causal language model, in evaluation mode.

    Args:
        name: an embedded model, a folder, a GGUF file or a hub name.
        dtype: floating-point type of the weights.
        device: where the weights go.
        lora: rank of low-rank adapters on every linear layer (peft); only these are trained then. None: no adapters.
        attn: attention implementation of transformers ("eager", "sdpa", ...); None takes the model's default.

    Returns:
        A `PreTrainedModel`, or a `PeftModel` around one when `lora` is given.

    Raises:
        UsageError: there is no such model, `lora` is not a positive integer, or the model is a table, which has no adapters.
    """
    if lora is not None and (not isinstance(lora, int) or isinstance(lora, bool) or lora < 1):
        raise UsageError(f"lora is the rank of the adapters, a positive integer or None; got {lora!r}")
    where = locate(name)
    if where.kind == "tiny":
        model = tiny_model(attn)
    elif where.kind == "table":
        if lora is not None:
            raise UsageError(f"the table {where.path!r} has no layers for adapters: leave lora out")
        model = TableModel(where.path)
    else:
        transformers = require("transformers", "language")
        more = {} if attn is None else {"attn_implementation": attn}
        model = _from_pretrained(transformers.AutoModelForCausalLM, where, dtype=dtype, **more)
        if where.kind == "gguf":
            model = model_files.without_quantisation(model)
    if getattr(model.config, "rescale_every", 0):
        model.config.rescale_every = 0  # RWKV would halve weights in place whenever it does not train, and save them so
    model = model.to(dtype=dtype)
    if lora is not None:
        model = _with_adapters(model, lora)
    return model.to(device).eval()


def load_scorer(name: str | Path, of_tokens: bool = False) -> Any:
    """Load a model whose head gives one number, to a whole text or to each of its tokens, in evaluation mode.

    Args:
        name: a folder or a hub name of a sequence (token) classification model with one label, such as a reward model.
        of_tokens: whether the number is that of a token.

    Raises:
        UsageError: there is no such model, its head is missing, or it has several labels.
    """
    where = locate(name)
    if where.kind not in ("folder", "hub"):
        raise UsageError(
            f"the model {str(name)!r} has no head that scores: give a folder or a hub name of a reward model"
        )
    transformers = require("transformers", "language")
    labels = _labels(where)
    if labels not in (None, 1):
        raise UsageError(
            f"the model {str(name)!r} has {labels} labels, a reward model has one: train it with num_labels=1"
        )
    loader = (
        transformers.AutoModelForTokenClassification if of_tokens else transformers.AutoModelForSequenceClassification
    )
    model, report = _from_pretrained(loader, where, num_labels=1, dtype=torch.float32, output_loading_info=True)
    missing = sorted(key for key in report["missing_keys"] if key.startswith("score"))
    if missing or not hasattr(model, "score"):
        raise UsageError(
            f"the model {str(name)!r} has no trained head of one number ({', '.join(missing) or 'no score'})"
        )
    return model.eval()


def scores_answers(name: str | Path) -> bool:
    """Return whether a folder holds a sequence classification model, such as a reward model."""
    where = locate(name)
    return where.kind == "folder" and _labels(where, "ForSequenceClassification") is not None


def _labels(where: Location, ending: str = "Classification") -> int | None:
    """Return the number of labels of a classification model; None of other models, whose settings name a number too."""
    config = _from_pretrained(require("transformers", "language").AutoConfig, where)
    is_one = any(str(each).endswith(ending) for each in config.architectures or ())
    return int(config.num_labels) if is_one else None


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers draw no progress bars for a while; reading or writing a model is no news."""
    logging = require("transformers", "language").utils.logging
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _from_pretrained(loader: Any, where: Location, **options: Any) -> Any:
    try:
        with without_bars() if where.kind != "hub" else contextlib.nullcontext():  # a download may take long
            return loader.from_pretrained(where.path, **where.options, **options)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{where.path!r} could not be loaded as a causal language model: {error}. {model_files.ALLOWED}"
        ) from error


def _with_adapters(model: Any, rank: int) -> Any:
    peft = require("peft", "language")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.random.default_generator.manual_seed(0)
        # peft asks for it under the name that transformers 5.23 has given up
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return peft.get_peft_model(model, config)


def context_length(tokenizer: Any) -> int | None:
    """Return the number of tokens that the tokenizer's model can read, or None when the tokenizer does not say."""
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length is not None and length < 10**9 else None


def load_end_ids(name: str | Path) -> tuple[int, ...]:
    """Return the ids that end a turn of a model, as `generate` of transformers stops at them.

    Args:
        name: an embedded model, a folder, a GGUF file or a hub name.

    Returns:
        The tokenizer's end token, then those that the model's generation config names, or where it has none, its config.
    """
    where = locate(name)
    if where.kind == "table":
        return table_end_ids(where.path)
    tokenizer = load_tokenizer(name)
    if where.kind == "tiny":
        return end_ids(tokenizer)
    transformers = require("transformers", "language")
    try:
        named = transformers.GenerationConfig.from_pretrained(where.path, **where.options).eos_token_id
    except (OSError, ValueError):
        named = _from_pretrained(transformers.AutoConfig, where).eos_token_id
    return end_ids(tokenizer, named)


def render_prompt(
    tokenizer: Any, messages: Sequence[Message], template_options: Mapping[str, Any] | None = None
) -> list[int]:
    """Turn a conversation into the ids that the model reads before it answers.

    With a chat template, the template decides, ending in its prompt for the assistant; where it knows no system message,
    the system's text stands before the user's first one. Without a template, the plain rule holds: the begin token if
    there is one, then every message in turn, a message of the user or the system as its content and a line feed, one of
    the assistant as its content and the end token. No begin token is ever doubled.

    Args:
        tokenizer: a tokenizer from `load_tokenizer`.
        messages: the conversation, each with "role" (system, user or assistant) and "content".
        template_options: variables of the chat template.

    Returns:
        Token ids.

    Raises:
        UsageError: the chat template refuses the conversation, or there is none and it was given variables.
    """
    bos = tokenizer.bos_token_id
    if getattr(tokenizer, "chat_template", None):
        ids = _encode(tokenizer, _by_template(tokenizer, messages, template_options))
    else:
        if template_options:
            raise UsageError(f"the tokenizer has no chat template that could take {dict(template_options)!r}")
        ids = [] if bos is None else [bos]
        for message in messages:
            if message["role"] == "assistant":
                ids += [*_encode(tokenizer, message["content"]), tokenizer.eos_token_id]
            else:
                ids += _encode(tokenizer, message["content"] + "\n")
    while bos is not None and ids[:2] == [bos, bos]:
        del ids[0]
    return ids


def _by_template(tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Any] | None) -> str:
    """Render a conversation; where the template refuses or leaves out a system message, with it in the user's first."""
    from jinja2 import TemplateError

    refused: Exception | None = None
    for given in (list(messages), _without_system(messages)):
        try:
            text: str = tokenizer.apply_chat_template(
                given, add_generation_prompt=True, tokenize=False, **(options or {})
            )
        except (TemplateError, TypeError) as error:
            refused = error
            continue
        if all(m["content"].strip() in text for m in given if m["role"] == "system"):
            return text
    roles = ", ".join(message["role"] for message in messages)
    raise UsageError(f"the chat template of the model refuses a conversation of the roles {roles}: {refused}")


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """Fold every system message into the next message of the user."""
    waiting, found = [], []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            found.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            found.append(message)
    return [*found, *({"role": "user", "content": text} for text in waiting)]


def continue_prompt(
    tokenizer: Any,
    content: str,
    closed: bool,
    ends: Sequence[int] = (),
    template_options: Mapping[str, Any] | None = None,
) -> list[int]:
    """Return the ids that stand between an utterance of the policy and its next one.

    The ids that the policy chose stay as they are; this is what the environment writes after them: the end token if
    the policy did not write it, the next message of the user, and the prompt for the assistant.

    Args:
        tokenizer: a tokenizer from `load_tokenizer`.
        content: what the environment says next.
        closed: whether the policy's utterance ended with an end token.
        ends: ids of the end tokens; the tokenizer's own is one of them.
        template_options: variables of the chat template.

    Returns:
        Token ids.
    """
    eos = tokenizer.eos_token_id
    if not getattr(tokenizer, "chat_template", None):
        return ([] if closed else [eos]) + _encode(tokenizer, content + "\n")
    ids = _after_answer(tokenizer, content, template_options)
    if ids[:1] == [eos] or (ids and ids[0] in ends):
        return ids[1:] if closed else ids
    return ids if closed else [eos, *ids]


def closing_id(tokenizer: Any, ends: Sequence[int], template_options: Mapping[str, Any] | None = None) -> int:
    """Return the end token that an answer closes with: the one that the chat template writes, else the tokenizer's own."""
    if getattr(tokenizer, "chat_template", None):
        try:
            ids = _after_answer(tokenizer, "-", template_options)
        except UsageError:  # a template for a single turn
            ids = []
        if ids and ids[0] in ends:
            return ids[0]
    return int(tokenizer.eos_token_id)


def _after_answer(tokenizer: Any, content: str, options: Mapping[str, Any] | None) -> list[int]:
    """Return the ids that the chat template writes from the end of an answer to the prompt for the next one."""
    conversation = [
        {"role": "user", "content": "-"},
        {"role": "assistant", "content": MARK},
        {"role": "user", "content": content},
    ]
    text = _by_template(tokenizer, conversation, options)
    if MARK not in text:
        raise UsageError("the chat template leaves out what the assistant said, so it cannot hold several turns")
    return _encode(tokenizer, text.split(MARK, 1)[1])


def _encode(tokenizer: Any, text: str) -> list[int]:
    return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)]
