"""Any causal model without a cache: contexts read anew for every token, and what a model must do to be read at all."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

Contexts = Sequence[Sequence[int]]


def known_arguments(model: Any) -> frozenset[str]:
    """Return the arguments that the forward pass of a model knows by name."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(plain.forward).parameters)


def known_alone(model: Any, **given: Any) -> dict[str, Any]:
    """Return those of the given arguments that the forward pass of a model knows."""
    known = known_arguments(model)
    return {name: value for name, value in given.items() if name in known}


class PlainDecoder:
    """Any causal model, without a cache: every token reads its whole context again, rows of one length together.

    Slow, and right for every model whose cache cannot be picked by rows or does not exist (state-space models, hybrids).
    Nothing is padded, since a state would run through it.

    Args:
        model: a causal language model of transformers.
        contexts: ids of each row.
        device: where the rows are.

    Attributes:
        logits: [n, V] of the token after each context.
    """

    def __init__(self, model: Any, contexts: Contexts, device: torch.device) -> None:
        self.model, self.device = model, device
        self.contexts = [list(context) for context in contexts]
        self.logits = self._read()

    def _read(self) -> Tensor:
        places_of: dict[tuple[int, ...], list[int]] = {}
        for i, context in enumerate(self.contexts):
            places_of.setdefault(tuple(context), []).append(i)
        by_length: dict[int, list[tuple[int, ...]]] = {}
        for unique in places_of:
            by_length.setdefault(len(unique), []).append(unique)
        options = {"use_cache": False, **known_alone(self.model, logits_to_keep=1)}
        places: list[int] = []
        found = []
        for contexts in by_length.values():
            logits = self.model(input_ids=torch.tensor(contexts, device=self.device), **options).logits[:, -1]
            owners = [places_of[unique] for unique in contexts]
            places += [i for rows in owners for i in rows]
            counts = torch.tensor([len(rows) for rows in owners], device=self.device)
            found.append(logits.repeat_interleave(counts, 0))
        ordered = torch.cat(found)
        return torch.empty_like(ordered).index_copy_(0, torch.tensor(places, device=self.device), ordered)

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, V] of the next."""
        for context, token in zip(self.contexts, tokens.tolist(), strict=True):
            context.append(token)
        return self._read()

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        self.contexts = [self.contexts[i] for i in index.tolist()]


@torch.no_grad()
def refuse_no_decoder(model: Any, name: str) -> None:
    """Refuse a model that is no causal language model: what it says of a token would depend on those that follow.

    Args:
        model: the model, in evaluation mode.
        name: its name, for the message.

    Raises:
        UsageError: it reads what follows, or cannot be asked for logits of ids alone.
    """
    device = next(model.parameters()).device
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 0]], device=device)
    allowed = "LanguageAgent takes decoders, which transformers loads by AutoModelForCausalLM"
    try:
        logits = model(input_ids=ids, use_cache=False).logits[:, :3]
    except Exception as error:  # encoder-decoders and others fail in many ways, all of which mean the same
        raise UsageError(
            f"the model {name!r} ({type(model).__name__}) gives no logits for ids alone "
            f"({type(error).__name__}: {str(error)[:120]}); {allowed}"
        ) from error
    # equal sums of equal shapes: a decoder's differ by rounding alone
    gap = float((logits[0].float() - logits[1].float()).abs().max())
    if not gap <= (1e-5 if _is_precise(logits) else 1e-2) * max(1.0, float(logits.abs().max())):
        raise UsageError(
            f"the model {name!r} ({type(model).__name__}) is no decoder: what it says after a token depends on the "
            f"tokens that follow; {allowed}"
        )


_CACHES: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def remembers(model: Any, decoder: Any, device: torch.device) -> bool:
    """Tell whether a decoder with a cache says of a model what reading everything anew says; asked once of each model.

    Contexts of different lengths, of which one is dropped after a token, go through both. Where the cached one fails, or
    says something else (a state that ran through padding), the model has no cache of use here.

    Args:
        model: a causal language model of transformers.
        decoder: makes the decoder of (model, contexts, device).
        device: where the model is.
    """
    if model not in _CACHES:
        _CACHES[model] = _agree(model, decoder, device)
    return _CACHES[model]


@torch.no_grad()
def _agree(model: Any, decoder: Any, device: torch.device) -> bool:
    contexts = [[1, 2, 3, 4, 5, 6, 7], [3, 4], [1, 2, 3, 4, 5, 6, 7], [5, 6, 7, 8, 9]]
    plain = PlainDecoder(model, contexts, device)
    try:
        cached = decoder(model, contexts, device)
        pairs = [(cached.logits, plain.logits)]
        for token in (2, 5):
            left = torch.tensor([1, 2]) if token == 5 else torch.arange(4)
            plain.keep(left)
            cached.keep(left)
            tokens = torch.full((len(left),), token, device=device)
            pairs.append((cached.advance(tokens), plain.advance(tokens)))
    except Exception:  # whatever a cache of another kind fails with, the model is read without it
        return False
    # float32 rounds at 1e-7 of the logits, bfloat16 at 4e-3; a state that is lost or mixed up changes them by far more
    largest = 1e-3 if _is_precise(plain.logits) else 0.25
    gaps = [(mine.float().log_softmax(-1) - theirs.float().log_softmax(-1)).abs().max() for mine, theirs in pairs]
    return all(float(gap) <= largest for gap in gaps)


def _is_precise(logits: Tensor) -> bool:
    return logits.dtype in (torch.float32, torch.float64)
