"""Whole utterances of a causal language model: one prefill for each different prompt, then a cache for every row."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.random import uniform
from polyathlon.wrappers.token_rules import TokenRules


class Completion(NamedTuple):
    """One utterance: its ids, and the log-probability of each under the model that sampled it."""

    ids: list[int]
    logps: list[float]


class _Rows:
    """Rows that still write: their cache, their lengths, and which utterance each belongs to."""

    def __init__(self, cache: Any, mask: Tensor, lengths: Tensor, keys: Tensor) -> None:
        self.cache, self.mask, self.lengths, self.keys = cache, mask, lengths, keys
        self.owner = list(range(len(lengths)))

    def keep(self, chosen: list[int]) -> None:
        index = torch.tensor(chosen, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.lengths, self.keys = self.mask[index], self.lengths[index], self.keys[index]
        self.owner = [self.owner[i] for i in chosen]


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
) -> list[Completion]:
    """Write one utterance after each context.

    Equal contexts are read once. What a row draws depends on its key alone, not on its neighbours.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        contexts: ids of each row so far.
        rules: where utterances end.
        keys: [n, 2] int64 random keys of the rows.
        stream: number of the utterance within its episode.
        temperature: divides the logits.
        greedy: take the likeliest token instead of sampling.

    Returns:
        The utterances; their log-probabilities are those of `temperature`.
    """
    rows, logits = _prefill(model, contexts, keys)
    limits = [rules.limit(len(context)) for context in contexts]
    found = [Completion([], []) for _ in contexts]
    for step in range(max(limit - len(context) for limit, context in zip(limits, contexts))):
        logps = (logits[:, : rules.vocabulary].float() / temperature).log_softmax(-1)
        if greedy:
            tokens = logps.argmax(-1)
        else:
            tokens = sample_tokens(logps, uniform(rows.keys, step, (), torch.float64, stream))
        chosen = logps.gather(1, tokens[:, None])[:, 0].tolist()
        going = []
        for i, (owner, token) in enumerate(zip(rows.owner, tokens.tolist())):
            own = found[owner]
            own.ids.append(token)
            own.logps.append(chosen[i])
            if rules.end(own.ids, len(contexts[owner]) + len(own.ids), limits[owner]) is None:
                going.append(i)
        if not going:
            break
        if len(going) < len(rows.owner):
            rows.keep(going)
            tokens = tokens[torch.tensor(going, device=tokens.device)]
        logits = _advance(model, rows, tokens, step)
    return found


def _prefill(model: Any, contexts: Sequence[Sequence[int]], keys: Tensor) -> tuple[_Rows, Tensor]:
    """Read every different context once, padded on the left, and give each row its copy of the cache."""
    device = keys.device
    different: dict[tuple[int, ...], int] = {}
    index = torch.tensor([different.setdefault(tuple(c), len(different)) for c in contexts], device=device)
    longest = max(len(c) for c in different)
    tokens = torch.tensor([[c[0]] * (longest - len(c)) + list(c) for c in different], device=device)
    lengths = torch.tensor([len(c) for c in different], device=device)
    positions = torch.arange(longest, device=device) - (longest - lengths[:, None])
    mask = (positions >= 0).long()
    out = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions.clamp_min(0),
        use_cache=True,
        **keeps_last(model),
    )
    cache = out.past_key_values
    cache.batch_select_indices(index)
    return _Rows(cache, mask[index], lengths[index], keys), out.logits[:, -1][index]


def _advance(model: Any, rows: _Rows, tokens: Tensor, step: int) -> Tensor:
    """Read one more token of each row and return the logits of the next, [n, V]."""
    rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(tokens), 1)], 1)
    out = model(
        input_ids=tokens[:, None],
        attention_mask=rows.mask,
        position_ids=(rows.lengths + step)[:, None],
        past_key_values=rows.cache,
        use_cache=True,
        **keeps_last(model),
    )
    logits: Tensor = out.logits[:, -1]
    return logits


def keeps_last(model: Any) -> dict[str, int]:
    """Return the argument that makes a model compute the last position's logits alone, where it knows one."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(plain.forward).parameters else {}


def answers(
    model: Any, rules: TokenRules, texts: Sequence[str], keys: Tensor, temperature: float = 1.0, greedy: bool = False
) -> list[str]:
    """Answer texts, each as the first message of a conversation; see `generate` for the arguments."""
    contexts = [rules.prompt([{"role": "user", "content": text}]) for text in texts]
    found = []
    for context, completion in zip(contexts, generate(model, contexts, rules, keys, 0, temperature, greedy)):
        end = rules.first_end(completion.ids, len(context))
        found.append(rules.text(completion.ids, "" if end is None else end[1]))
    return found
