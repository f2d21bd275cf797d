"""One token more of many rows at once: any model through its own cache or anew, Llama's in few operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .llama import Llama, Past, is_plain_llama
from .plain import PlainDecoder, known_alone, remembers
from .table import TableDecoder, is_table

Contexts = Sequence[Sequence[int]]
BLOCK = 8


class Decoder(Protocol):
    """Reads one token more of each row.

    Attributes:
        logits: [n, V] of the token after each context.
    """

    logits: Tensor

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone; the index is on the processor."""


def make_decoder(model: Any, contexts: Contexts, room: int, device: torch.device, fast: bool = True) -> Decoder:
    """Read contexts, each different one once, and return what goes on from there.

    Args:
        model: a causal language model of transformers.
        contexts: ids of each row.
        room: number of tokens that follow at most.
        device: where the rows are.
        fast: take `LlamaDecoder` or `TableDecoder` where it knows the model.
    """
    if fast and is_table(model):
        return TableDecoder(model, contexts, device)
    if fast and is_plain_llama(model):
        return LlamaDecoder(model, contexts, room, device)
    return (CacheDecoder if remembers(model, CacheDecoder, device) else PlainDecoder)(model, contexts, device)


def unique_prefixes(contexts: Contexts, device: torch.device) -> tuple[list[tuple[int, ...]], Tensor]:
    """Return the different contexts in the order in which they come, and for each row [n] the number of its own."""
    numbers: dict[tuple[int, ...], int] = {}
    index = [numbers.setdefault(tuple(context), len(numbers)) for context in contexts]
    return list(numbers), torch.tensor(index, device=device)


def keeps_last(model: Any) -> dict[str, int]:
    """Return the argument that makes a model compute the last position's logits alone, where it knows one."""
    return known_alone(model, logits_to_keep=1)


class CacheDecoder:
    """Any model of transformers whose cache `remembers`, through its own forward pass, contexts padded on the left."""

    def __init__(self, model: Any, contexts: Contexts, device: torch.device) -> None:
        self.model, self.options = model, keeps_last(model)
        unique, index = unique_prefixes(contexts, device)
        longest = max(len(c) for c in unique)
        tokens = torch.tensor([[c[0]] * (longest - len(c)) + list(c) for c in unique], device=device)
        lengths = torch.tensor([len(c) for c in unique], device=device)
        positions = torch.arange(longest, device=device) - (longest - lengths[:, None])
        mask = (positions >= 0).long()
        self.knows_places = bool(known_alone(model, position_ids=None))
        places = {"position_ids": positions.clamp_min(0)} if self.knows_places else {}
        # transformers 5.24 has renamed it
        self.cache_word = "cache" if known_alone(model, cache=None) else "past_key_values"
        out = model(input_ids=tokens, attention_mask=mask, use_cache=True, **places, **self.options)
        self.cache = getattr(out, self.cache_word)
        self.cache.batch_select_indices(index)
        self.mask, self.places, self.logits = mask[index], lengths[index], out.logits[:, -1][index]

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        places = {"position_ids": self.places[:, None]} if self.knows_places else {}
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            use_cache=True,
            **{self.cache_word: self.cache},
            **places,
            **self.options,
        )
        self.places = self.places + 1
        logits: Tensor = out.logits[:, -1]
        return logits

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        index = index.to(self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.places = self.mask[index], self.places[index]


class LlamaDecoder:
    """Llama's forward pass for one token of each row, on a cache that is allocated once.

    Up to `BLOCK` rows with the same context are a block. Its keys are one matrix, those of the context followed by those
    of its rows step by step, and all its rows are scored against all of them in one product, in which what belongs to
    another row is masked: this reads a context once for its rows, and a few products of good shape cost less than many
    of one row each.

    What was read of the contexts is kept beside the cache, so that later turns read what is new in theirs alone (`follow`):
    of an utterance once more, which costs little beside writing it.

    Args:
        model: a model that `is_plain_llama` accepts.
        contexts: ids of each row.
        room: number of tokens that follow at most.
        device: where the rows are.
    """

    def __init__(self, model: Any, contexts: Contexts, room: int, device: torch.device) -> None:
        self.llama, self.device = Llama(model), device
        self.read: dict[tuple[int, ...], int] = {}
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.follow(contexts, room)

    def follow(self, contexts: Contexts, room: int) -> bool:
        """Go on with other contexts, with the weights of before; see `Conversation`.

        Of each one, what follows the longest context of the last call that it begins with is read; all of it where there is
        none. What that call kept is given up.

        Returns:
            True: it always can.
        """
        llama, device = self.llama, self.device
        unique, inverse = unique_prefixes(contexts, torch.device("cpu"))
        begun = self._begun(unique)
        new = [c[n:] for c, (_, n) in zip(unique, begun)]
        width = max(map(len, new))
        tokens = torch.tensor([list(c) + [c[-1]] * (width - len(c)) for c in new], device=device)
        self.cache = []
        if any(n for _, n in begun):
            last, kept = llama.read_on(tokens, Past(self.kept, *torch.tensor(begun, device=device).unbind(1)))
        else:
            last, kept = llama.read_prefixes(tokens)
        ends = torch.tensor([len(c) - 1 for c in new], device=device)
        hidden = llama.hidden(last[torch.arange(len(unique), device=device), ends])
        self.logits = torch.mm(hidden, llama.head.t())[inverse.to(device)]
        self.known_lengths = torch.tensor([len(c) for c in unique])
        self.longest, self.room, self.step = int(self.known_lengths.max()), room, 0
        self.read = {c: i for i, c in enumerate(unique)}
        self.kept = [(key[:, :, : self.longest], value[:, :, : self.longest]) for key, value in kept]
        context = self._arrange(inverse)
        self.cache = [torch.stack([self._with_room(part[context]) for part in pair]) for pair in self.kept]
        self._prepare()
        return True

    def _begun(self, contexts: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
        """Return for each context the number of the longest one that was read and that it goes on from, and its length; 0, 0: none."""
        lengths = sorted({len(c) for c in self.read}, reverse=True)
        found = []
        for context in contexts:
            begun = next((n for n in lengths if n < len(context) and context[:n] in self.read), 0)
            found.append((self.read[context[:begun]] if begun else 0, begun))
        return found

    def _arrange(self, inverse: Tensor) -> Tensor:
        """Form blocks of rows with equal owners [n], and set how many rows a block has at most, and each row's slot and length.

        The slot is block * width + place in the block. All of this is reckoned on the processor, so that a device need not be
        asked for sizes.

        Args:
            inverse: on the processor.

        Returns:
            The owner of each block, on the device.
        """
        counts = inverse.bincount()
        self.width = int(counts.max().clamp(max=BLOCK))
        blocks = (counts + self.width - 1) // self.width
        order = inverse.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=inverse.device) - (counts.cumsum(0) - counts)[inverse[order]]
        slot = (blocks.cumsum(0) - blocks)[inverse] * self.width + rank
        context = torch.arange(len(counts)).repeat_interleave(blocks)
        self.known_slot, self.slot = slot, slot.to(self.device)
        self.known_lengths = self.known_lengths[context]
        self.lengths = self.known_lengths.to(self.device)
        return context.to(self.device)

    def _with_room(self, part: Tensor) -> Tensor:
        """Lay keys or values [blocks, kv heads, A, size] out with room for the tokens to come."""
        return F.pad(part, (0, 0, 0, self.room * self.width))

    def _prepare(self) -> None:
        """Make what depends on the blocks: rotations [room, slots, 1, size / 2], and masks of what others wrote."""
        device = self.lengths.device
        places = self.lengths.repeat_interleave(self.width)[:, None] + torch.arange(self.room, device=device)
        self.rotary = self.llama.rotary(places).transpose(0, 1).contiguous()
        self.is_full = len(self.slot) == len(self.lengths) * self.width and bool(
            (self.known_slot == torch.arange(len(self.slot))).all()
        )
        foreign = ~torch.eye(self.width, dtype=torch.bool, device=device)
        foreign = foreign.repeat_interleave(self.llama.heads // self.llama.kv_heads, 0).repeat(1, self.room)
        beyond = torch.arange(self.longest, device=device) >= self.lengths[:, None]
        if not bool((self.known_lengths < self.longest).any()):
            beyond = beyond[:1]
        shape = (len(beyond), len(foreign))
        masked = torch.cat([beyond[:, None].expand(*shape, -1), foreign.expand(*shape, -1)], 2)
        bias = self.llama.head.new_zeros(masked.shape).masked_fill_(masked, float("-inf"))
        self.bias = bias.repeat_interleave(self.llama.kv_heads, 0) if len(bias) > 1 else bias

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""
        llama, begin = self.llama, self.longest + self.step * self.width
        if not self.is_full:
            tokens = tokens.new_zeros(self.rotary.shape[1]).index_copy_(0, self.slot, tokens)
        x, rotary = llama.embed(tokens), self.rotary[self.step]
        blocks, end = (-1, self.width), begin + self.width
        bias = self.bias[:, :, :end]
        for layer, cache in zip(llama.layers, self.cache, strict=True):
            turned, value = llama.project(x, layer, rotary)
            cache[0, :, :, begin:end] = turned[:, llama.heads :].unflatten(0, blocks).transpose(1, 2)
            cache[1, :, :, begin:end] = value.unflatten(0, blocks).transpose(1, 2)
            keys, values = cache.flatten(1, 2)[:, :, :end]
            query = turned[:, : llama.heads].reshape(*rotary.shape[:1], llama.kv_heads, -1, llama.size)
            query = query.unflatten(0, blocks).transpose(1, 2).reshape(len(keys), -1, llama.size)
            mixed = torch.bmm(torch.baddbmm(bias, query, keys.transpose(1, 2)).softmax(2), values)
            mixed = mixed.view(-1, llama.kv_heads, self.width, query.shape[1] // self.width * llama.size)
            x = llama.finish(x, mixed.transpose(1, 2).reshape(len(x), -1), layer)
        self.step += 1
        logits = torch.mm(llama.hidden(x), llama.head.t())
        return logits if self.is_full else logits[self.slot]

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone; their caches move together when half of the slots are empty."""
        self.known_slot, self.is_full = self.known_slot[index], False
        self.slot = self.known_slot.to(self.device)
        if 2 * len(self.slot) > self.rotary.shape[1]:
            return
        block, place, before = self.slot // self.width, self.slot % self.width, self.width
        context = self._arrange(self.known_slot // before)
        for i, cache in enumerate(self.cache):
            far, near = cache.split([self.longest, self.room * before], 3)
            near = near.unflatten(3, (self.room, before))[:, block, :, :, place].movedim(1, 0)
            laid = near.new_zeros(2, len(context) * self.width, *near.shape[2:]).index_copy_(1, self.slot, near)
            laid = laid.unflatten(1, (-1, self.width)).movedim(2, 4).flatten(3, 4)
            self.cache[i] = torch.cat([far[:, context], laid], 3)
        self._prepare()
