"""Whole utterances of a causal language model: one prefill for each different prompt, then a cache for every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polyathlon.envs.random import uniform
from polyathlon.wrappers.tokens.token_rules import TokenRules

from .decoders import Decoder, make_decoder


class Completion(NamedTuple):
    """One utterance: its ids, the log-probability of each under the model that sampled it, and why it ended.

    Attributes:
        ids: of what was written after its prefix.
        logps: of each of them.
        end: "eos", "stop", "limit" or "context" (`TokenRules.end`); "window" where it may go on.
    """

    ids: list[int]
    logps: list[float]
    end: str = "limit"


class Conversation:
    """A sampler for the turns of conversations: what it has read is not read again where its decoder can go on (`follow`).

    The weights must be the same at every turn, so it is made anew for each batch of episodes.

    Args:
        model: a model or a sampler, see `generate`.
        fast: see `generate`.
    """

    def __init__(self, model: Any, fast: bool = True) -> None:
        self.start = sampler_of(model, fast)
        self.decoder: Decoder | None = None

    def __call__(self, contexts: Sequence[Sequence[int]], max_new_tokens: int, device: torch.device) -> Decoder:
        """Return a decoder of contexts."""
        follow = getattr(self.decoder, "follow", None)
        if self.decoder is not None and follow is not None and follow(contexts, max_new_tokens):
            return self.decoder
        self.decoder = follow = None  # its memory is free for the next one
        self.decoder = self.start(contexts, max_new_tokens, device)
        return self.decoder


def sampler_of(model: Any, fast: bool) -> Callable[..., Decoder]:
    """Return what makes a decoder of contexts; a sampler is one."""
    return partial(make_decoder, model, fast=fast) if isinstance(model, nn.Module) else model


def sample_tokens(logps: Tensor, noise: Tensor) -> Tensor:
    """Draw from distributions by inverting their cumulative sums.

    Args:
        logps: [n, V] log-probabilities.
        noise: [n] float64 in [0, 1).

    Returns:
        [n] int64; a token of probability zero is never drawn.
    """
    sums = logps.double().exp().cumsum(-1)
    return torch.searchsorted(sums, (noise * sums[:, -1])[:, None], right=True)[:, 0].clamp_(max=logps.shape[1] - 1)


@torch.no_grad()
def generate(
    model: Any,
    contexts: Sequence[Sequence[int]],
    rules: TokenRules,
    keys: Tensor,
    stream: int = 0,
    temperature: float = 1.0,
    greedy: bool = False,
    fast: bool = True,
    max_new_tokens: int | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[Completion]:
    """Write one utterance after each context, or a window of one.

    Equal contexts are read once. What a row draws depends on its key alone, not on its neighbours.

    Args:
        model: a causal language model of transformers, in evaluation mode; or a sampler, a function (contexts,
            max_new_tokens, device) -> `Decoder`.
        contexts: ids of each row so far.
        rules: where utterances end.
        keys: [n, 2] int64 random keys of the rows.
        stream: number of the utterance within its episode.
        temperature: divides the logits.
        greedy: take the likeliest token instead of sampling.
        fast: where the model is a plain Llama, decode with `LlamaDecoder` instead of the model's own forward pass.
        max_new_tokens: size of a window: no more is written now; None writes to the end.
        prefixes: ids that each utterance begins with, in windows before; what is drawn at a place of an utterance is the
            same in whatever windows it is written.

    Returns:
        The utterances; their log-probabilities are those of `temperature`.
    """
    limits = [rules.limit(len(context)) for context in contexts]
    begun = [list(prefix) for prefix in prefixes] if prefixes is not None else [[] for _ in contexts]
    left = [limit - len(context) - len(own) for limit, context, own in zip(limits, contexts, begun)]
    window = max(left) if max_new_tokens is None else max_new_tokens
    rooms = torch.tensor([min(each, window) for each in left])
    room = int(rooms.max())
    starts = [[*context, *own] for context, own in zip(contexts, begun)] if prefixes is not None else contexts
    decoder = sampler_of(model, fast)(starts, room, keys.device)
    noise = noise_of(keys, room, stream, begun)
    ends = ["window"] * len(contexts)
    # what decides about ends is on the host: a token of each row is copied there, once a step
    ids, here = torch.zeros(len(contexts), room, dtype=torch.int64), torch.arange(len(contexts))
    written = torch.zeros(len(contexts), room, device=keys.device)
    lengths = [room] * len(contexts)
    logits, owners = decoder.logits, torch.arange(len(contexts), device=keys.device)
    for step in range(room):
        logps = (logits[:, : rules.vocabulary].float() / temperature).log_softmax(-1)
        tokens = logps.argmax(-1) if greedy else sample_tokens(logps, noise[:, step])
        written[owners, step] = logps.gather(1, tokens[:, None])[:, 0]
        seen = tokens.cpu()
        ids[here, step] = seen
        may_end = rules.may_end(seen) | (rooms[here] == step + 1)
        if bool(may_end.any()):
            over = set()
            for i in may_end.nonzero()[:, 0].tolist():
                owner = int(here[i])
                own = begun[owner] + ids[owner, : step + 1].tolist()
                reason = rules.end(own, len(contexts[owner]) + len(own), limits[owner])
                if reason is not None or int(rooms[owner]) == step + 1:
                    over.add(i)
                    lengths[owner], ends[owner] = step + 1, reason or "window"
            if len(over) == len(owners):
                break
            if over:
                kept = torch.tensor([i for i in range(len(owners)) if i not in over])
                decoder.keep(kept)
                index, here = kept.to(keys.device), here[kept]
                tokens, noise, owners = tokens[index], noise[index], owners[index]
        logits = decoder.advance(tokens)
    rows = zip(ids.tolist(), written.tolist(), lengths, ends, strict=True)
    return [Completion(own[:length], logps[:length], end) for own, logps, length, end in rows]


def noise_of(keys: Tensor, room: int, stream: int, begun: Sequence[Sequence[int]] = ()) -> Tensor:
    """Return the numbers [n, room] that rows draw their tokens with: functions of key and place in the utterance alone."""
    steps = torch.arange(room, device=keys.device).repeat(len(keys))
    if any(begun):
        steps += torch.tensor([len(own) for own in begun], device=keys.device).repeat_interleave(room)
    each = keys.repeat_interleave(room, 0)
    return uniform(each, steps, (), torch.float64, stream).view(len(keys), room)


def answers(
    model: Any,
    rules: TokenRules,
    texts: Sequence[str],
    keys: Tensor,
    temperature: float = 1.0,
    greedy: bool = False,
    fast: bool = True,
) -> list[str]:
    """Answer texts, each as the first message of a conversation; see `generate` for the arguments."""
    contexts = [rules.prompt([{"role": "user", "content": text}]) for text in texts]
    found = []
    for context, completion in zip(contexts, generate(model, contexts, rules, keys, 0, temperature, greedy, fast)):
        end = rules.first_end(completion.ids, len(context))
        found.append(rules.text(completion.ids, "" if end is None else end[1]))
    return found
