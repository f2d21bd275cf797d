"""Games of separate environments, played together: one batch moves them all, and each environment has its own row again.

A game of one row costs almost what sixty-four rows cost. Who holds many environments of one game (a language model that plays in
words) tells them with `prepare_resets` and `prepare_steps` what is to come, and then resets or steps each one as ever. An episode
depends on its key alone, so the games are the same ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError

from .settings import layers
from .turn_engine import TurnEngine

if TYPE_CHECKING:
    from .seat_env import SeatEnv
    from .seats import SeatVectorEnv

# these hand actions on as they are
_TRANSPARENT = (
    gym.wrappers.OrderEnforcing,
    gym.wrappers.PassiveEnvChecker,
    gym.wrappers.RecordEpisodeStatistics,
    gym.wrappers.TimeLimit,
)


@dataclass(frozen=True)
class Prepared:
    """What one call of `reset` or `step` of a `SeatEnv` will do.

    Attributes:
        call: the seed of a reset, or the action of a step.
        games: all games after it, in one batch.
        row: which of them.
        outcome: what the batch returned.
    """

    call: Any
    games: SeatVectorEnv
    row: int
    outcome: tuple[Any, ...]

    def is_for(self, call: Any) -> bool:
        """Return whether it is the call that was foreseen."""
        return bool(np.array_equal(call, self.call))

    def put(self, target: SeatVectorEnv) -> tuple[Any, ...]:
        """Put the game into a batch of one, and return what that batch would have returned."""
        one = slice(self.row, self.row + 1)
        self.games.put_row(self.row, target)
        return tuple(_rows_of(item, one) for item in self.outcome)


def _rows_of(tree: Any, rows: slice) -> Any:
    if isinstance(tree, dict):
        return {name: _rows_of(item, rows) for name, item in tree.items()}
    return tree[rows]


def joinable_seat(env: gym.Env[Any, Any]) -> SeatEnv | None:
    """Return the seat of a game within wrappers that hand on actions as they are, against players by name; None for all else."""
    from .seat_env import SeatEnv

    *wrappers, seat = layers(env)
    is_plain = all(isinstance(layer, _TRANSPARENT) for layer in wrappers)
    return seat if is_plain and isinstance(seat, SeatEnv) and seat.rows.has_named_players else None


def prepare_resets(envs: Sequence[gym.Env[Any, Any]], seeds: Sequence[int]) -> bool:
    """Start games of several environments at once; each is then to be reset with its seed, without options.

    Args:
        envs: different environments with the same settings.
        seeds: one for each.

    Returns:
        Whether anything was prepared: these environments can be joined, and there is more than one.
    """
    return _prepare(envs, list(seeds), lambda rows: _blank(rows), lambda games: games.reset(seed=list(seeds)))


def prepare_steps(envs: Sequence[gym.Env[Any, Any]], actions: Sequence[Any]) -> bool:
    """Move in the games of several environments at once; each is then to be stepped with its action.

    Args:
        envs: different environments with the same settings, none of them over.
        actions: one for each.

    Returns:
        See `prepare_resets`.
    """
    return _prepare(envs, list(actions), _joined, lambda games: games.step(np.stack(list(actions))))


def _prepare(
    envs: Sequence[gym.Env[Any, Any]],
    calls: list[Any],
    join: Callable[[list[SeatVectorEnv]], SeatVectorEnv],
    play: Callable[[SeatVectorEnv], tuple[Any, ...]],
) -> bool:
    seats = [seat for seat in map(joinable_seat, envs) if seat is not None]
    if len(seats) < 2 or len(seats) < len(envs):
        return False
    games = join([seat.rows for seat in seats])
    try:
        outcome = play(games)
    except (UsageError, TypeError, ValueError):  # of one of them: each says so when it is called
        return False
    for row, (seat, call) in enumerate(zip(seats, calls)):
        seat.prepared = Prepared(call, games, row, outcome)
    return True


def _blank(rows: list[SeatVectorEnv]) -> SeatVectorEnv:
    """Return as many rows as there are, none of which has begun."""
    games = copy.copy(rows[0])
    games.num_envs = len(rows)
    games.engine = TurnEngine(games.task, len(rows), games.engine.limit, AutoresetMode.DISABLED)
    for name in games.own:
        setattr(games, name, torch.cat([getattr(one, name) for one in rows]))
    return games


def _joined(rows: list[SeatVectorEnv]) -> SeatVectorEnv:
    """Return the games of all rows in one batch."""
    games = _blank(rows)
    if all(one.engine.state is not None for one in rows):
        games.engine = TurnEngine.joined([one.engine for one in rows])
    return games
