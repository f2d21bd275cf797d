"""What a tokenizer and its model say about single tokens: which ids there are, which end a turn, which frame a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

MARK = "\u2e28mark\u2e29"


def vocabulary_size(tokenizer: Any) -> int:
    """Return one more than the largest id of a tokenizer; more than `len(tokenizer)` where its ids have gaps."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))


def end_ids(tokenizer: Any, *named: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the ids that end a turn: the tokenizer's end token first, then others that its model's configs name.

    Args:
        tokenizer: the tokenizer.
        *named: `eos_token_id` of a config: an id, several, or None.
    """
    found = [int(tokenizer.eos_token_id)]
    for given in named:
        found += [int(i) for i in ([] if given is None else [given] if isinstance(given, int) else given)]
    size = vocabulary_size(tokenizer)
    return tuple(dict.fromkeys(i for i in found if 0 <= i < size))


def frame_ids(tokenizer: Any, ends: Iterable[int]) -> frozenset[int]:
    """Return the special tokens that frame a text rather than belong to it.

    These are the tokens with a role (begin, end, padding, unknown, separator, mask), `ends`, and what the chat template
    writes around messages. Other special tokens, such as tags that were added for training, are part of a text.
    """
    roles = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
    found = {getattr(tokenizer, f"{role}_token_id", None) for role in roles} | set(ends)
    if getattr(tokenizer, "chat_template", None):
        from jinja2 import TemplateError

        messages = [{"role": role, "content": MARK} for role in ("user", "assistant", "user")]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError:  # a template of other roles, which rendering a prompt will tell of
            text = ""
        found |= special_ids(tokenizer) & set(tokenizer.encode(text, add_special_tokens=False))
    return frozenset(i for i in found if i is not None)


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of all tokens that `skip_special_tokens` leaves out."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {int(i) for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)


def single_id(tokenizer: Any, text: str) -> int | None:
    """Return the id of the special token that a text is, or None."""
    ids = {tokenizer.convert_ids_to_tokens(i): i for i in special_ids(tokenizer)}
    return ids.get(text)


def without_reasoning(text: str) -> str:
    """Take the reasoning off a text: what stands in `<think>...</think>`.

    What comes before a closing tag that was not opened is reasoning too, since some chat templates open it; so is what
    comes after an opening tag that is not closed.
    """
    begin, end = "<think>", "</think>"
    place = text.find(end)
    place = place + len(end) if place >= 0 and text.find(begin, 0, place) < 0 else 0
    kept = []
    while place >= 0:
        opened = text.find(begin, place)
        kept.append(text[place : opened if opened >= 0 else len(text)])
        closed = text.find(end, opened) if opened >= 0 else -1
        place = closed + len(end) if closed >= 0 else -1
    return "".join(kept).strip()
