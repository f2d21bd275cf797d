"""What a language model says about the tokens of whole episodes: any model row by row, Llama with shared beginnings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoders import keeps_last, unique_prefixes
from .llama import Layer, Llama, is_plain_llama
from .plain import known_alone
from .table import is_table, read_table

Known = tuple[Sequence[Sequence[int]], Sequence[int]]  # ids of each row, and its start: what the processor knows


class Reading(NamedTuple):
    """What a model says about the tokens of episodes, at the place before each: [N, L - 1] each.

    Places before the first token that the policy wrote hold zeros.

    Attributes:
        logp: log-probability of the token that follows.
        entropy: entropy of its distribution.
        value: value of the prefix.
        full_logp: [N, L - 1, V] log-probabilities of the whole vocabulary, where they were asked for.
        score: [N] what the head of a reward model says of whole rows; None of other models.
    """

    logp: Tensor
    entropy: Tensor
    value: Tensor
    full_logp: Tensor | None = None
    score: Tensor | None = None


def read_episodes(
    model: Any,
    value_net: nn.Module | None,
    tokens: Tensor,
    attention: Tensor,
    vocabulary: int,
    temperature: float = 1.0,
    starts: Tensor | None = None,
    fast: bool = True,
    with_full: bool = False,
    with_entropy_gradient: bool = False,
    known: Known | None = None,
    is_checkpointed: bool = False,
) -> Reading:
    """Read whole episodes.

    Args:
        model: the language model.
        value_net: the head that values hidden states; None gives zeros.
        tokens: [N, L] int64, padded on the right.
        attention: [N, L].
        vocabulary: number of tokens that can be chosen; further logits are dropped.
        temperature: divides the logits, as in sampling.
        starts: [N] int64, at least 1: index of the first token of interest in each row, where a reading begins; None: 1.
        fast: read plain Llamas with this package's own forward pass, in which rows share the computation of what they
            have in common before their starts; False always takes the model's own.
        with_full: keep the log-probabilities of the whole vocabulary.
        with_entropy_gradient: let a gradient flow through the entropies.
        known: the ids of each row and its start, where the processor knows them; a device is asked otherwise.
        is_checkpointed: keep the input of each layer of a plain Llama alone for the backward pass.
    """
    judge = partial(
        _judge, value_net=value_net, vocabulary=vocabulary, temperature=temperature, entropy_grad=with_entropy_gradient
    )
    if starts is None:
        starts = torch.ones(len(tokens), dtype=torch.int64, device=tokens.device)
    if fast and is_table(model):
        return Reading(
            *read_table(model, value_net, tokens, vocabulary, temperature, starts, with_full, with_entropy_gradient)
        )
    if fast and is_plain_llama(model):
        if known is None:
            known = _asked(tokens, attention, starts)
        return _read_llama(model, judge, tokens, attention, starts, with_full, known, is_checkpointed)
    first = (int(starts.min()) if known is None else min(known[1])) - 1
    kept = {"logits_to_keep": tokens.shape[1] - first} if keeps_last(model) else {}
    out = model(
        input_ids=tokens,
        use_cache=False,
        output_hidden_states=value_net is not None,
        **known_alone(model, attention_mask=attention),
        **kept,
    )
    last = out.logits[:, -(tokens.shape[1] - first) :]
    hidden = None if value_net is None else out.hidden_states[-1][:, first:-1]
    logp, entropy, value, full = judge(last[:, :-1], hidden, tokens[:, first + 1 :])
    place = torch.arange(first, tokens.shape[1] - 1, device=tokens.device)
    is_read = place >= (starts - 1)[:, None]
    whole = F.pad(full * is_read[..., None], (0, 0, first, 0)) if with_full else None
    logp, entropy, value = (F.pad(x * is_read, (first, 0)) for x in (logp, entropy, value))
    return Reading(logp, entropy, value, whole)


def _judge(
    logits: Tensor,
    hidden: Tensor | None,
    following: Tensor,
    value_net: nn.Module | None,
    vocabulary: int,
    temperature: float,
    entropy_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return log-probabilities of the tokens that follow, entropies and values in their shape, and all log-probabilities."""
    logps = (logits[..., :vocabulary].float() / temperature).log_softmax(-1)
    # the backward pass of `nll_loss` writes one number a row; that of `gather` would add them up
    logp = -F.nll_loss(logps.flatten(0, 1), following.flatten(), reduction="none").view(following.shape)
    with contextlib.nullcontext() if entropy_grad else torch.no_grad():
        # p log p is 0 where p is 0, and not 0 times infinity
        entropy = -(logps.exp() * logps.clamp(min=torch.finfo(logps.dtype).min)).sum(-1)
    if value_net is None or hidden is None:
        return logp, entropy, torch.zeros_like(logp), logps
    with torch.autocast(hidden.device.type, enabled=False):
        return logp, entropy, value_net(hidden.float()).squeeze(-1), logps


def _read_llama(
    model: Any,
    judge: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]],
    tokens: Tensor,
    attention: Tensor,
    starts: Tensor,
    with_full: bool,
    known: Known,
    is_checkpointed: bool,
) -> Reading:
    """Read each different beginning once, and the rest of each row after it.

    The rest of a row begins with the last token before its start, since what the model says there is of interest.
    """
    length = tokens.shape[1]
    llama, hidden, places, rest = _llama_hidden(model, tokens, starts, known, is_checkpointed)
    hidden, following = hidden[:, :-1], rest[:, 1:]

    def said(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return judge(F.linear(hidden, llama.head), hidden, following)

    *judged, full = llama.run(said, hidden)
    # a row's places beyond its own length go into a column that is cut off
    is_own = attention.gather(1, places[:, 1:].clamp(max=length - 1)).bool() & (places[:, 1:] < length)
    target = torch.where(is_own, places[:, :-1], length - 1)
    whole = None
    if with_full:
        index = target[..., None].expand(-1, -1, full.shape[2])
        whole = full.new_zeros(len(tokens), length, full.shape[2]).scatter(1, index, full)[:, :-1]
    logp, entropy, value = (x.new_zeros(len(tokens), length).scatter(1, target, x)[:, :-1] for x in judged)
    return Reading(logp, entropy, value, whole)


def _llama_hidden(
    model: Any, tokens: Tensor, starts: Tensor, known: Known, is_checkpointed: bool = False
) -> tuple[Llama, Tensor, Tensor, Tensor]:
    """Return the last hidden states [N, R, width] from the token before each row's start on, with their places and tokens [N, R]."""
    sizes = starts - 1
    ids, own_sizes = known[0], [start - 1 for start in known[1]]
    texts = [row[:size] for row, size in zip(ids, own_sizes, strict=True)]
    unique, inverse = unique_prefixes(texts, tokens.device)
    longest = max(len(text) for text in unique)
    beginnings = torch.tensor([list(text) + [0] * (longest - len(text)) for text in unique], device=tokens.device)
    llama = Llama(model, is_checkpointed)
    kept = llama.read_prefixes(beginnings.reshape(len(unique), longest).long(), False)[1] if longest else None
    width = max(len(row) - size for row, size in zip(ids, own_sizes))
    places = sizes[:, None] + torch.arange(width, device=tokens.device)
    rest = tokens.gather(1, places.clamp(max=tokens.shape[1] - 1))
    is_even = all(size == longest for size in own_sizes)
    return llama, _read_rest(llama, rest, places, kept, inverse, sizes, is_even), places, rest


def _asked(tokens: Tensor, attention: Tensor, starts: Tensor) -> Known:
    """Ask the device for the ids of each row and its start."""
    lengths = attention.sum(1).tolist()
    return [row[:n] for row, n in zip(tokens.tolist(), lengths, strict=True)], starts.tolist()


def read_scores(
    model: Any,
    head: nn.Module,
    tokens: Tensor,
    attention: Tensor,
    starts: Tensor,
    fast: bool = True,
    is_checkpointed: bool = False,
) -> Tensor:
    """Return what a head says of whole rows, [N] float32: a linear map of the last hidden state at each row's last token.

    The last token is found by lengths, so that neither padding nor what its id is matters.

    Args:
        model: the causal language model under the head.
        head: from hidden states to one number.
        tokens: [N, L] int64, padded on the right.
        attention: [N, L].
        starts: [N] int64, at least 1: where answers begin; rows share the computation of what they have in common before.
        fast: see `read_episodes`.
        is_checkpointed: likewise.
    """
    last = attention.sum(1) - 1
    rows = torch.arange(len(tokens), device=tokens.device)
    if fast and is_plain_llama(model):
        known = _asked(tokens, attention, starts)
        hidden = _llama_hidden(model, tokens, starts, known, is_checkpointed)[1][rows, last - (starts - 1)]
    else:
        kept = {"logits_to_keep": 1} if keeps_last(model) else {}
        alone = known_alone(model, attention_mask=attention)
        out = model(input_ids=tokens, use_cache=False, output_hidden_states=True, **alone, **kept)
        hidden = out.hidden_states[-1][rows, last]
    with torch.autocast(hidden.device.type, enabled=False):
        scores: Tensor = head(hidden.float()).squeeze(-1)
    return scores


def _read_rest(
    llama: Llama,
    rest: Tensor,
    places: Tensor,
    kept: list[tuple[Tensor, Tensor]] | None,
    inverse: Tensor,
    sizes: Tensor,
    is_even: bool,
) -> Tensor:
    """Return the last hidden states [N, R, width] of tokens [N, R] that follow beginnings; `is_even`: all of one length."""
    shape = rest.shape
    longest = 0 if kept is None else kept[0][0].shape[2]
    rotary = llama.rotary(places).flatten(0, 1)
    own = torch.ones(shape[1], shape[1], dtype=torch.bool, device=rest.device).tril()
    far = torch.arange(longest, device=rest.device) < sizes[:, None]
    if is_even:
        mask = F.pad(own, (longest, 0), value=True)[None, None]
    else:
        mask = torch.cat([far[:, None, None].expand(-1, 1, shape[1], -1), own.expand(shape[0], 1, -1, -1)], 3)
    x = llama.embed(rest.reshape(-1))

    def read_layer(x: Tensor, layer: Layer, *before: Tensor) -> Tensor:
        turned, value = llama.project(x, layer, rotary)
        query = llama.by_head(turned[:, : llama.heads], shape)
        key, value = llama.by_head(turned[:, llama.heads :], shape), llama.by_head(value, shape)
        if before:
            key = torch.cat([before[0].index_select(0, inverse), key], 2)
            value = torch.cat([before[1].index_select(0, inverse), value], 2)
        mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=1.0, enable_gqa=llama.is_grouped)
        return llama.finish(x, mixed.transpose(1, 2).reshape(len(x), -1), layer)

    for i, layer in enumerate(llama.layers):
        x = llama.run(read_layer, x, layer, *(() if kept is None else kept[i]))
    return llama.hidden(x).unflatten(0, shape)
