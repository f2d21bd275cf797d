"""What a text task looks like to a model that writes tokens: prompts, ends of utterances, texts."""

from __future__ import annotations

import functools
import operator
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, check_positive_int, nearest
from polyathlon.envs.models import (
    Message,
    closing_id,
    context_length,
    continue_prompt,
    load_end_ids,
    load_tokenizer,
    render_prompt,
)
from polyathlon.envs.models.model_tokens import frame_ids, single_id, special_ids, vocabulary_size, without_reasoning

_CACHED_PROMPTS = 4096
_BOUNDARY = 4
_ARGUMENTS = (
    "model",
    "max_new_tokens",
    "max_length",
    "stop",
    "system",
    "instruction",
    "chat_template_kwargs",
    "strip_reasoning",
)
_RENDERING = (
    "add_generation_prompt",
    "chat_template",
    "conversation",
    "continue_final_message",
    "messages",
    "tokenize",
)


@functools.lru_cache(maxsize=4)
def shared_tokenizer(model: str) -> Any:
    """Load a tokenizer once for all the wrappers that use it; it is only read."""
    return load_tokenizer(model)


@functools.lru_cache(maxsize=4)
def shared_end_ids(model: str) -> tuple[int, ...]:
    """Return the ids that end a turn of a model, read from its files once."""
    return load_end_ids(model)


class TokenRules:
    """The rules by which a text task becomes a task of tokens, the same in the scalar, batched and vector form.

    Args:
        model: name of the model whose tokens are meant.
        max_new_tokens: the longest utterance, in tokens.
        max_length: number of tokens that the context holds.
        stop: texts that end an utterance; the task reads what comes before.
        system: what a system message says before everything else; None says nothing.
        instruction: what follows the first message of the user; None says nothing.
        chat_template_kwargs: variables of the model's chat template.
        strip_reasoning: take `<think>...</think>` off what the task reads.

    Attributes:
        eos: the end token that an answer closes with.
        ends: all end tokens.
        vocabulary: one more than the largest id.

    Raises:
        UsageError: an unknown model, a size that is not positive, a context longer than the model reads, an empty stop, a
            text that is none, a variable that the chat template does not read.
    """

    def __init__(
        self,
        model: str,
        max_new_tokens: int,
        max_length: int,
        stop: Sequence[str],
        system: str | None = None,
        instruction: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        strip_reasoning: bool = False,
    ) -> None:
        check_positive_int(max_new_tokens=max_new_tokens, max_length=max_length)
        if isinstance(stop, str) or not all(isinstance(text, str) and text for text in stop):
            raise UsageError(f"stop must be a sequence of texts that are not empty, such as ('\\n',); got {stop!r}")
        for name, text in (("system", system), ("instruction", instruction)):
            if text is not None and (not isinstance(text, str) or not text):
                raise UsageError(f"{name} must be a text that is not empty, or None, got {text!r}")
        if not isinstance(strip_reasoning, bool):
            raise UsageError(f"strip_reasoning must be True or False, got {strip_reasoning!r}")
        if not isinstance(chat_template_kwargs, Mapping | None):
            raise UsageError(f"chat_template_kwargs must be a dict of variables, got {chat_template_kwargs!r}")
        self.model, self.stop = model, tuple(stop)
        self.system, self.instruction, self.strip_reasoning = system, instruction, strip_reasoning
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self.max_new_tokens, self.max_length = int(max_new_tokens), int(max_length)
        self._load()
        limit = context_length(self.tokenizer)
        if limit is not None and max_length > limit:
            raise UsageError(f"max_length is {max_length} tokens, but the model {model!r} reads at most {limit}")

    def _check_variables(self) -> None:
        template = str(getattr(self.tokenizer, "chat_template", None) or "")
        words = set(re.findall(r"[A-Za-z_]\w*", template))
        for name in self.chat_template_kwargs:
            if name in _RENDERING:
                raise UsageError(
                    f"chat_template_kwargs sets variables of the template; {name!r} is given by TokenAction"
                )
            if name not in words:
                close = nearest(name, words) if template else None
                hint = f" Did you mean {close!r}?" if close else ""
                raise UsageError(f"the chat template of {self.model!r} does not read the variable {name!r}.{hint}")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that make equal rules."""
        return {key: getattr(self, key) for key in _ARGUMENTS}

    def _load(self) -> None:
        self.tokenizer = shared_tokenizer(self.model)
        self._check_variables()
        self.ends = shared_end_ids(self.model)
        self._is_end = frozenset(self.ends)
        self.eos = closing_id(self.tokenizer, self.ends, self.chat_template_kwargs)
        self.pad = int(self.tokenizer.pad_token_id)
        self.vocabulary = vocabulary_size(self.tokenizer)
        self.may_stop: torch.Tensor | None = _stop_table(self.tokenizer, self.vocabulary, self.stop)
        special = {text: single_id(self.tokenizer, text) for text in self.stop}
        self._stop_ids = frozenset(i for i in special.values() if i is not None)
        self._end_table = torch.zeros(self.vocabulary, dtype=torch.bool)
        self._end_table[list(self.ends)] = True
        self._frame = frame_ids(self.tokenizer, self.ends) | self._stop_ids
        self._keeps_special = bool(special_ids(self.tokenizer) - self._frame)
        self._stop_span = max((len(text.encode()) for text in self.stop), default=0) + _BOUNDARY
        # the tokenizer's own `decode` spends more on checking its argument than on the text
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        plain = partial(self.tokenizer.decode, clean_up_tokenization_spaces=False)
        self._plain_decode = plain if backend is None else backend.decode
        self._prompts: OrderedDict[str, list[int]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.options

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
        ids = self.render(messages)
        if len(ids) >= self.max_length:
            limit = context_length(self.tokenizer)
            raise UsageError(
                f"the prompt has {len(ids)} tokens, but max_length={self.max_length} leaves room for at most "
                f"{self.max_length - 1}. Raise max_length (the model reads {limit or 'any number of'} tokens) or make "
                "the task's text shorter"
            )
        return ids

    def render(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """Return the ids of a conversation, however many they are; `tools` go to the chat template."""
        single = messages[0]["content"] if len(messages) == 1 and messages[0]["role"] == "user" and not tools else None
        ids = self._prompts.get(single) if single is not None else None
        if ids is None:
            variables = {**self.chat_template_kwargs, **({"tools": list(tools)} if tools else {})}
            ids = render_prompt(self.tokenizer, self._introduced(messages), variables)
            if single is not None:
                self._prompts[single] = ids
                if len(self._prompts) > _CACHED_PROMPTS:
                    self._prompts.popitem(last=False)
        return list(ids)

    def continuation(self, content: str, closed: bool) -> list[int]:
        """Return the ids that the environment writes between two utterances; `closed`: the policy wrote the end token."""
        return continue_prompt(self.tokenizer, content, closed, self.ends, self.chat_template_kwargs)

    def _introduced(self, messages: Sequence[Message]) -> list[Message]:
        """Put the system's text and the instruction into a conversation."""
        found = [dict(message) for message in messages]
        if self.instruction is not None:
            first = next((message for message in found if message["role"] == "user"), None)
            if first is None:
                found.append({"role": "user", "content": self.instruction})
            else:
                first["content"] = f"{first['content']}\n{self.instruction}"
        if self.system is not None:
            if found and found[0]["role"] == "system":
                found[0]["content"] = f"{self.system}\n\n{found[0]['content']}"
            else:
                found.insert(0, {"role": "system", "content": self.system})
        return found

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
        if last in self._is_end:
            return "eos"
        if last in self._stop_ids:
            return "stop"
        if self.may_stop is not None and bool(self.may_stop[last]):
            tail = self.decode(utterance[-self._stop_span :])
            if any(text in tail for text in self.stop):
                return "stop"
        if length >= limit:
            return "context" if length >= self.max_length else "limit"
        return None

    def may_end(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return where an utterance may have ended with its last token, other than by its length, in the shape of `tokens`."""
        if self._end_table.device != tokens.device:
            self._end_table = self._end_table.to(tokens.device)
        is_end = tokens == self.ends[0] if len(self.ends) == 1 else self._end_table[tokens]
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
            count = min([utterance.index(i) + 1 for i in self.ends if i in utterance], default=len(utterance))
            reason = self.end(utterance[: min(count, room)], start + min(count, room), limit)
            return None if reason is None else (min(count, room), reason)
        for count in range(1, len(utterance) + 1):
            reason = self.end(utterance[:count], start + count, limit)
            if reason is not None:
                return count, reason
        return None

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids without the tokens that frame a text; bytes that are not UTF-8 become U+FFFD."""
        if self._keeps_special:
            kept: str = self._plain_decode([i for i in ids if i not in self._frame], skip_special_tokens=False)
            return kept
        text: str = self._plain_decode(list(ids), skip_special_tokens=True)
        return text

    def text(self, utterance: Sequence[int], reason: str) -> str:
        """Return what the task reads of a finished utterance: up to its stop text, without the tokens that frame it."""
        text = self.decode(utterance)
        if reason == "stop":
            text = text[: min((text.find(stop) for stop in self.stop if stop in text), default=len(text))]
        return without_reasoning(text) if self.strip_reasoning else text

    def check(self, utterance: Sequence[int], start: int, row: str = "") -> list[int]:
        """Check the ids of an utterance, or of a part of one.

        Raises:
            TypeError: they are not integers.
            UsageError: there is none, one is not in the vocabulary, or some follow the end of the utterance.
        """
        if isinstance(utterance, str | bytes):
            raise TypeError(f"{row}an utterance is a sequence of token ids, got {type(utterance).__name__}")
        try:
            ids = [operator.index(i) for i in utterance]
        except TypeError as error:
            raise TypeError(f"{row}an utterance is a sequence of token ids, which are integers: {error}") from None
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
