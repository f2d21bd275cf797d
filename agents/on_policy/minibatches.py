"""The transitions of a rollout by the names that losses read."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from polyathlon.agents.streams.rollout import tree_map


class Minibatches(NamedTuple):
    """The transitions of a rollout, M in all, and what is learnt from them; the fields that a loss may read.

    Attributes:
        obs: [M, ...] tensor or dict of them.
        action: [M, ...] as distributions have them (see `coded`).
        action_mask: [M, A] bool or None.
        old_value: [M] values under the behaviour.
        old_logp: [M] log-probabilities under the behaviour.
        adv: [M].
        returns: [M] targets of the values.
    """

    obs: Any
    action: Tensor
    action_mask: Tensor | None
    old_value: Tensor
    old_logp: Tensor
    adv: Tensor
    returns: Tensor

    def rows(self, index: Tensor) -> Minibatches:
        """Return the transitions number `index` [B]."""
        return Minibatches(
            *[None if x is None else tree_map(x, lambda y: y.index_select(0, index)) for x in self]  # type: ignore[arg-type]
        )

    def part(self, start: int, stop: int) -> Minibatches:
        """Return views of the transitions from `start` to `stop`."""
        return Minibatches(*[None if x is None else tree_map(x, lambda y: y[start:stop]) for x in self])  # type: ignore[arg-type]
