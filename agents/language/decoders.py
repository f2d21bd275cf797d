"""One token more of many rows at once: any model through its own cache, Llama's through a forward pass of few operations."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .llama import Llama, is_plain_llama

Contexts = Sequence[Sequence[int]]


class Decoder(Protocol):
    """Reads one token more of each row.

    Attributes:
        logits: [n, V] of the token after each context.
    """

    logits: Tensor

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""


def make_decoder(model: Any, contexts: Contexts, room: int, device: torch.device, fast: bool = True) -> Decoder:
    """Read contexts, each different one once, and return what goes on from there.

    Args:
        model: a causal language model of transformers.
        contexts: ids of each row.
        room: number of tokens that follow at most.
        device: where the rows are.
        fast: take `LlamaDecoder` where it knows the model.
    """
    if fast and is_plain_llama(model):
        return LlamaDecoder(model, contexts, room, device)
    return CacheDecoder(model, contexts, device)


def different_ones(contexts: Contexts, device: torch.device) -> tuple[list[tuple[int, ...]], Tensor]:
    """Return the different contexts in the order in which they come, and for each row [n] the number of its own."""
    numbers: dict[tuple[int, ...], int] = {}
    index = [numbers.setdefault(tuple(context), len(numbers)) for context in contexts]
    return list(numbers), torch.tensor(index, device=device)


def keeps_last(model: Any) -> dict[str, int]:
    """Return the argument that makes a model compute the last position's logits alone, where it knows one."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(plain.forward).parameters else {}


class CacheDecoder:
    """Any model of transformers, through its own forward pass and cache, contexts padded on the left."""

    def __init__(self, model: Any, contexts: Contexts, device: torch.device) -> None:
        self.model, self.options = model, keeps_last(model)
        different, index = different_ones(contexts, device)
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
            **self.options,
        )
        self.cache = out.past_key_values
        self.cache.batch_select_indices(index)
        self.mask, self.places, self.logits = mask[index], lengths[index], out.logits[:, -1][index]

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.places[:, None],
            past_key_values=self.cache,
            use_cache=True,
            **self.options,
        )
        self.places = self.places + 1
        logits: Tensor = out.logits[:, -1]
        return logits

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        self.cache.batch_select_indices(index)
        self.mask, self.places = self.mask[index], self.places[index]


class LlamaDecoder:
    """Llama's forward pass for one token of each row, on a cache that is allocated once.

    The keys and values of a context are kept once for all rows that share it, and are read for all of them together:
    with few long rows a step would otherwise be bound by the memory that it reads.

    Args:
        model: a model that `is_plain_llama` accepts.
        contexts: ids of each row.
        room: number of tokens that follow at most.
        device: where the rows are.
    """

    def __init__(self, model: Any, contexts: Contexts, room: int, device: torch.device) -> None:
        self.llama = llama = Llama(model)
        different, self.owner = different_ones(contexts, device)
        lengths = torch.tensor([len(c) for c in different], device=device)
        longest = max(len(c) for c in different)
        tokens = torch.tensor([list(c) + [c[-1]] * (longest - len(c)) for c in different], device=device)
        last, kept = llama.read_prefixes(tokens)
        hidden = llama.hidden(last[torch.arange(len(different), device=device), lengths - 1])
        self.logits = torch.mm(hidden, llama.head.t())[self.owner]
        self.shared = [torch.stack([key, value]) for key, value in kept]
        beyond = torch.arange(longest, device=device) >= lengths[:, None]
        self.bias: Tensor | None = None
        if bool(beyond.any()):
            self.bias = llama.head.new_zeros(len(different), 1, longest).masked_fill_(beyond[:, None], float("-inf"))
        rows = len(contexts)
        self.own = [llama.head.new_zeros(2, rows, llama.kv_heads, room, llama.size) for _ in llama.layers]
        places = lengths[self.owner][:, None] + torch.arange(room, device=device)
        self.turns = llama.turns(places)
        self.step = 0
        self._lay_out()

    def _lay_out(self) -> None:
        """Give each row its slot beside the others of its context: row i is number `slot[i]` of [contexts, most]."""
        present = self.owner.unique()
        if len(present) < self.shared[0].shape[1]:
            self.shared = [pair[:, present] for pair in self.shared]
            self.bias = None if self.bias is None else self.bias[present]
            self.owner = torch.searchsorted(present, self.owner)
        counts = self.owner.bincount()
        order = self.owner.argsort(stable=True)
        rank = torch.empty_like(order)
        starts = counts.cumsum(0) - counts
        rank[order] = torch.arange(len(order), device=order.device) - starts[self.owner[order]]
        self.most = int(counts.max())
        self.slot = self.owner * self.most + rank
        full = self.most * len(counts) == len(order)
        self.is_in_order = full and bool((self.slot == torch.arange(len(order), device=order.device)).all())

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""
        llama, step = self.llama, self.step
        x, turns = llama.embedding[tokens], self.turns[:, step]
        for layer, shared, own in zip(llama.layers, self.shared, self.own, strict=True):
            turned, value = llama.project(x, layer, turns)
            own[0, :, :, step], own[1, :, :, step] = turned[:, llama.heads :], value
            x = llama.finish(x, self._attend(turned[:, : llama.heads], shared, own), layer)
        self.step += 1
        return torch.mm(llama.hidden(x), llama.head.t())

    def _attend(self, query: Tensor, shared: Tensor, own: Tensor) -> Tensor:
        """Mix values for queries [n, heads, size]: those of the contexts and of the rows' own tokens, [n, heads * size]."""
        n, kv, size, end = len(query), self.llama.kv_heads, self.llama.size, self.step + 1
        query = query.reshape(n, kv, -1, size)
        keys, values = shared.flatten(1, 2)
        scores = torch.bmm(self._to_slots(query), keys.transpose(1, 2))
        if self.bias is not None:
            scores = (scores.unflatten(0, (-1, kv)) + self.bias[:, None]).flatten(0, 1)
        own_keys, own_values = own.flatten(1, 2)[:, :, :end]
        own_scores = torch.bmm(query.flatten(0, 1), own_keys.transpose(1, 2))
        both = torch.cat([self._to_rows(scores, n), own_scores.view(n, kv, -1, end)], 3).softmax(3)
        far, near = both.split([keys.shape[1], end], 3)
        mixed = self._to_rows(torch.bmm(self._to_slots(far), values), n)
        return mixed.reshape(n * kv, -1, size).baddbmm(near.flatten(0, 1), own_values).view(n, -1)

    def _to_slots(self, rows: Tensor) -> Tensor:
        """Lay rows [n, kv, rep, k] out as [contexts * kv, most * rep, k], so that those of a context are one matrix."""
        if not self.is_in_order:
            laid = rows.new_zeros(self.shared[0].shape[1] * self.most, *rows.shape[1:])
            rows = laid.index_copy_(0, self.slot, rows)
        grouped = rows.unflatten(0, (-1, self.most)).transpose(1, 2)
        return grouped.reshape(-1, self.most * rows.shape[2], rows.shape[3])

    def _to_rows(self, laid: Tensor, n: int) -> Tensor:
        """Take rows [n, kv, rep, k] out of the layout of `_to_slots`."""
        grouped = laid.unflatten(1, (self.most, -1)).unflatten(0, (-1, self.llama.kv_heads)).transpose(1, 2)
        rows = grouped.flatten(0, 1)
        return rows if self.is_in_order else rows[self.slot]

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        self.own = [own[:, index] for own in self.own]
        self.turns, self.owner = self.turns[index], self.owner[index]
        self._lay_out()
