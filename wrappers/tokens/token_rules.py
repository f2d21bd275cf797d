"""What a text task looks like to a model that writes tokens: prompts, ends of utterances, texts."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.models import Message, context_length, continue_prompt, load_tokenizer, render_prompt

_CACHED_PROMPTS = 4096
_BOUNDARY = 4


@functools.lru_cache(maxsize=4)
def shared_tokenizer(model: str) -> Any:
    """Load a tokenizer once for all the wrappers that use it; it is only read."""
    return load_tokenizer(model)


class TokenRules:
    """The rules by which a text task becomes a task of tokens, the same in the scalar, batched and vector form.

    Args:
        model: name of the model whose tokens are meant.
        max_new_tokens: the longest utterance, in tokens.
        max_length: number of tokens that the context holds.
        stop: texts that end an utterance; the task reads what comes before.

    Raises:
        UsageError: an unknown model, a size that is not positive, a context longer than the model reads, an empty stop.
    """

    def __init__(self, model: str, max_new_tokens: int, max_length: int, stop: Sequence[str]) -> None:
        check_positive_int(max_new_tokens=max_new_tokens, max_length=max_length)
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise UsageError(f"stop must be a sequence of texts that are not empty, such as ('\\n',); got {stop!r}")
        self.model, self.stop = model, tuple(stop)
        self.max_new_tokens, self.max_length = int(max_new_tokens), int(max_length)
        self._load()
        limit = context_length(self.tokenizer)
        if limit is not None and max_length > limit:
            raise UsageError(f"max_length is {max_length} tokens, but the model {model!r} reads at most {limit}")

    def _load(self) -> None:
        self.tokenizer = shared_tokenizer(self.model)
        self.eos = int(self.tokenizer.eos_token_id)
        self.pad = int(self.tokenizer.pad_token_id)
        self.vocabulary = len(self.tokenizer)
        self.may_stop: torch.Tensor | None = _stop_table(self.tokenizer, self.vocabulary, self.stop)
        self._stop_span = max((len(text.encode()) for text in self.stop), default=0) + _BOUNDARY
        # the tokenizer's own `decode` spends more on checking its argument than on the text
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        plain = partial(self.tokenizer.decode, clean_up_tokenization_spaces=False)
        self._plain_decode = plain if backend is None else backend.decode
        self._prompts: OrderedDict[str, list[int]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("model", "stop", "max_new_tokens", "max_length")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def observation_space(self) -> spaces.Dict:
        """Return the space of one row: `tokens` (L,) int64, padded on the right, and `length`."""
        return spaces.Dict(
            tokens=spaces.Box(0, self.vocabulary - 1, (self.max_length,), np.int64),
            length=spaces.Discrete(self.max_length + 1),
        )

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation at the start of an episode.

        Raises:
            UsageError: they leave no room for an answer.
        """
        single = messages[0]["content"] if len(messages) == 1 and messages[0]["role"] == "user" else None
        ids = self._prompts.get(single) if single is not None else None
        if ids is None:
            ids = render_prompt(self.tokenizer, messages)
            if single is not None:
                self._prompts[single] = ids
                if len(self._prompts) > _CACHED_PROMPTS:
                    self._prompts.popitem(last=False)
        if len(ids) >= self.max_length:
            limit = context_length(self.tokenizer)
            raise UsageError(
                f"the prompt has {len(ids)} tokens, but max_length={self.max_length} leaves room for at most "
                f"{self.max_length - 1}. Raise max_length (the model reads {limit or 'any number of'} tokens) or make "
                "the task's text shorter"
            )
        return list(ids)

    def continuation(self, content: str, closed: bool) -> list[int]:
        """Return the ids that the environment writes between two utterances; `closed`: the policy wrote the end token."""
        return continue_prompt(self.tokenizer, content, closed)

    def limit(self, start: int) -> int:
        """Return the length of the context at which an utterance that starts at position `start` must end."""
        return min(start + self.max_new_tokens, self.max_length)

    def end(self, utterance: Sequence[int], length: int, limit: int) -> str | None:
        """Say why an utterance has ended with its last token: "eos", "stop", "context", "limit"; None: it goes on.

        Args:
            utterance: ids of the utterance so far.
            length: length of the whole context with them.
            limit: `limit(start)` of the utterance.
        """
        last = utterance[-1]
        if last == self.eos:
            return "eos"
        if self.may_stop is not None and bool(self.may_stop[last]):
            tail = self.decode(utterance[-self._stop_span :])
            if any(text in tail for text in self.stop):
                return "stop"
        if length >= limit:
            return "context" if length >= self.max_length else "limit"
        return None

    def may_end(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return where an utterance may have ended with its last token, other than by its length, in the shape of `tokens`."""
        is_end = tokens == self.eos
        if self.may_stop is None:
            return is_end
        return is_end | self.may_stop.to(tokens.device)[tokens]

    def first_end(self, utterance: Sequence[int], start: int) -> tuple[int, str] | None:
        """Find where an utterance ends.

        Args:
            utterance: ids of the utterance, which starts at position `start` of the context.

        Returns:
            The number of ids up to its end and why it ends there, or None when it goes on.
        """
        limit = self.limit(start)
        if self.may_stop is None:
            room = limit - start
            count = utterance.index(self.eos) + 1 if self.eos in utterance else len(utterance)
            reason = self.end(utterance[: min(count, room)], start + min(count, room), limit)
            return None if reason is None else (min(count, room), reason)
        for count in range(1, len(utterance) + 1):
            reason = self.end(utterance[:count], start + count, limit)
            if reason is not None:
                return count, reason
        return None

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids without special tokens; bytes that are not UTF-8 become U+FFFD."""
        text: str = self._plain_decode(list(ids), skip_special_tokens=True)
        return text

    def text(self, utterance: Sequence[int], reason: str) -> str:
        """Return what the task reads of a finished utterance: up to its stop text, without special tokens."""
        text = self.decode(utterance)
        if reason == "stop":
            text = text[: min(text.find(stop) for stop in self.stop if stop in text)]
        return text

    def check(self, utterance: Sequence[int], start: int, row: str = "") -> list[int]:
        """Check the ids of an utterance, or of a part of one.

        Raises:
            TypeError: they are not integers.
            UsageError: there is none, one is not in the vocabulary, or some follow the end of the utterance.
        """
        if isinstance(utterance, str | bytes):
            raise TypeError(f"{row}an utterance is a sequence of token ids, got {type(utterance).__name__}")
        ids = [int(i) for i in utterance]
        if not ids:
            raise UsageError(f"{row}an utterance has at least one token, got none")
        if min(ids) < 0 or max(ids) >= self.vocabulary:
            wrong = min(ids) if min(ids) < 0 else max(ids)
            raise UsageError(f"{row}token ids go from 0 to {self.vocabulary - 1}, got {wrong}")
        found = self.first_end(ids, start)
        if found is not None and found[0] < len(ids):
            raise UsageError(
                f"{row}the utterance ends ({found[1]}) after {found[0]} of its {len(ids)} tokens; pass the tokens up to there"
            )
        return ids


def _stop_table(tokenizer: Any, vocabulary: int, stop: Sequence[str]) -> torch.Tensor | None:
    """Mark the tokens that can complete a stop text: those whose text holds its last character, or part of one."""
    if not stop:
        return None
    last = {text[-1] for text in stop}
    pieces = tokenizer.batch_decode([[i] for i in range(vocabulary)], clean_up_tokenization_spaces=False)
    return torch.tensor([any(c in piece for c in last) or "\ufffd" in piece for piece in pieces])
