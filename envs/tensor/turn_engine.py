"""Rows of a game in which players look when they are asked, some rows moving while others wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from polyathlon.envs.errors import UsageError

from . import trees
from .engine import Engine
from .rules import StepResult, advance, allowed


class TurnEngine(Engine):
    """A batch of games without autoreset, whose steps compute no observations; see `Engine` for the arguments."""

    def move(self, action: Tensor, rows: Tensor | None = None, is_allowed: bool = False) -> StepResult:
        """Act in every row or in some without looking, for interfaces in which players look when they are asked (DISABLED).

        Args:
            action: [N, ...] of the right type and shape, inside the action space; [k, ...] with `rows`.
            rows: [k] int64, the rows that act; the others stay as they are. None: all.
            is_allowed: the mask was asked already, and allows all of it.

        Raises:
            UsageError: no reset yet, or a row that acts is over.
        """
        if self.state is None:
            raise UsageError("step() was called before reset(); call reset() first")
        if rows is None:
            self._refuse_ended()
            mask = None if is_allowed else self.mask
            turn = advance(self.task, self.limit, self.state, action, mask, True)
            self.state = turn.state
            # one row is asked before anything is computed: `ended` is False until its last move
            if self.num_envs > 1 or turn.terminated or turn.truncated:
                self.ended = turn.terminated | turn.truncated
                self.has_ended = bool(self.ended.any())
            self.mask = allowed(self.task, self.state, self.ended if self.has_ended else None)
            return turn
        mask = None if self.mask is None else self.mask.index_select(0, rows)
        turn = advance(self.task, self.limit, trees.take(self.state, rows), action, mask, True)
        ended = turn.terminated | turn.truncated
        self.state = trees.put(self.state, rows, turn.state)
        self.ended = self.ended.index_copy(0, rows, ended)
        self.has_ended = self.has_ended or bool(ended.any())
        fresh = allowed(self.task, turn.state, ended)
        if self.mask is not None and fresh is not None:
            self.mask = self.mask.index_copy(0, rows, fresh)
        return turn

    def restart(self, rows: Tensor) -> None:
        """Start the next episodes of rows, [k] int64, without looking."""
        fresh = self._starts_of(rows)
        self.state = trees.put(self.state, rows, fresh)
        self.ended = self.ended.index_fill(0, rows, False)
        mask = allowed(self.task, fresh, None)
        if self.mask is not None and mask is not None:
            self.mask = self.mask.index_copy(0, rows, mask)

    @classmethod
    def joined(cls, engines: Sequence[TurnEngine]) -> TurnEngine:
        """Return one batch with the rows of several of the same game, all of which have begun."""
        first = engines[0]
        found = cls(first.task, sum(engine.num_envs for engine in engines), first.limit, AutoresetMode.DISABLED)
        found.state = trees.map_tree(lambda *leaves: torch.cat(leaves), *[engine.state for engine in engines])
        if first.mask is not None:
            found.mask = torch.cat([engine.mask for engine in engines if engine.mask is not None])
        found.ended = torch.cat([engine.ended for engine in engines])
        found.has_ended = any(engine.has_ended for engine in engines)
        found.seeds = torch.cat([engine.seeds for engine in engines])
        found._episodes = torch.cat([engine.episodes for engine in engines])
        return found

    def put_row(self, row: int, target: TurnEngine) -> None:
        """Make a batch of one row go on as a row of this one does."""
        one = slice(row, row + 1)
        target.state = trees.map_tree(lambda leaf: leaf[one], self.state)
        target.mask = None if self.mask is None else self.mask[one]
        target.ended, target.seeds = self.ended[one], self.seeds[one]
        target.has_ended = bool(target.ended)
        target._episodes, target._pool, target._lasting = self.episodes[one], None, {}
        target._depth = target._choose_depth()
