"""Sampling from and reading a table: the exact distributions, without a forward pass over what no one may write."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polyathlon.envs.errors import UsageError
from polyathlon.envs.models.table_model import FORBIDDEN, States, TableModel


class TableDecoder:
    """A sampler of tables: where each row stands, moved on by its tokens.

    Args:
        model: the table.
        contexts: ids of each row.
        device: where the rows are.

    Attributes:
        logits: [n, vocabulary] of the token after each context.

    Raises:
        UsageError: a context names no prompt of the table.
    """

    def __init__(self, model: TableModel, contexts: Sequence[Sequence[int]], device: torch.device) -> None:
        self.model = model
        longest = max(len(context) for context in contexts)
        # on the left, where padding with any token changes nothing
        tokens = torch.tensor([[0] * (longest - len(c)) + list(c) for c in contexts], device=device)
        self.states = model.states(tokens).at((slice(None), -1))
        if bool((self.states.prompt < 0).any()):
            number = model.shape.prompts
            raise UsageError(
                f"the table knows the prompts 'p0' to 'p{number - 1}' alone, and a text names none of them: take a task in "
                "such words, as polyathlon.envs.probes.TableTask, or another model"
            )
        self.logits = model.logits(self.states)

    def advance(self, tokens: Tensor) -> Tensor:
        """Read tokens [n] and return the logits [n, vocabulary] of the next."""
        prev = torch.where(tokens < self.model.shape.tokens, tokens, 0)
        self.states = States(self.states.prompt, self.states.place + 1, prev)
        return self.model.logits(self.states)

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` [k] alone."""
        self.states = self.states.at(index.to(self.states.place.device))


def read_table(
    model: TableModel,
    value_net: nn.Module | None,
    tokens: Tensor,
    vocabulary: int,
    temperature: float,
    starts: Tensor,
    with_full: bool,
    with_entropy_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Read whole episodes; see `polyathlon.agents.language.reading.read_episodes`.

    An id that the table cannot write has the log-probability `FORBIDDEN`; the name of a prompt, which no policy writes, 0.

    Returns:
        Log-probabilities, entropies, values [N, L - 1], and all log-probabilities where they were asked for.
    """
    shape, states, following = model.shape, model.states(tokens[:, :-1]), tokens[:, 1:]
    place = torch.arange(following.shape[1], device=tokens.device)
    is_read, is_full = place >= (starts - 1)[:, None], states.place >= shape.places
    logps = (model.own_logits(states).float() / temperature).log_softmax(-1)
    said = logps.gather(2, following.clamp(max=shape.tokens - 1)[..., None])[..., 0]
    is_own, is_end = following < shape.tokens, following == shape.end
    other = torch.where(is_full == is_end, 0.0, FORBIDDEN).masked_fill(following > shape.end, 0.0)
    logp = torch.where(is_own & ~is_full, said, other) * is_read
    with contextlib.nullcontext() if with_entropy_gradient else torch.no_grad():
        entropy = -(logps.exp() * logps).sum(-1) * (is_read & ~is_full)
    value = torch.zeros_like(logp)
    if value_net is not None:
        value = value_net(model.index(states)[..., None]).squeeze(-1) * is_read
    if not with_full:
        return logp, entropy, value, None
    full = F.pad(logps.masked_fill(is_full[..., None], FORBIDDEN), (0, vocabulary - shape.tokens), value=FORBIDDEN)
    end = torch.arange(vocabulary, device=tokens.device) == shape.end
    full = torch.where(is_full[..., None] & end, 0.0, full)
    return logp, entropy, value, full * is_read[..., None]


def is_table(model: Any) -> bool:
    """Return whether a model is a table."""
    return isinstance(model, TableModel)
