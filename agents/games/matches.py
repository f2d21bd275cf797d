"""Games between players that answer in batches, from fixed starts to their ends, and what they say of who is better."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import check_positive_int
from polyathlon.envs.random import make_keys
from polyathlon.envs.tensor import TensorEnv
from polyathlon.envs.tensor.opponents import Guarded, PlayerFault, seat_keys
from polyathlon.envs.tensor.rules import advance, allowed
from polyathlon.envs.tensor.trees import take

from .foreign import ForeignGame, play_foreign_games
from .game_rows import Groups

NO_LIMIT = 2**62


def play_games(
    task: TensorEnv, players: Sequence[Any], seats: Tensor, seed: int = 0, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Play one game from each of n starts, each to its end: the first to finish would be short ones too often.

    Args:
        task: the game.
        players: callables (obs, mask, player, env_index, key) -> action.
        seats: [n, P] int64, which of the players has each seat.
        seed: of the first game; the others follow it.
        limit: ticks after which a game is cut; None for the task's own limit.

    Returns:
        The sum of each seat's rewards, [n, P], and the length of each game, [n].
    """
    n, count = seats.shape
    rows = torch.arange(n, device=task.device)
    state = task.reset(make_keys(rows + seed, torch.zeros_like(rows)))
    totals, lengths = torch.zeros(n, count, device=task.device), torch.zeros_like(rows)
    most = limit or task.max_episode_steps or NO_LIMIT
    while len(rows):
        mask = allowed(task, state, None)
        action = _answers(task, state, mask, players, seats[rows], rows)
        turn = advance(task, most, state, action, mask, True)
        totals[rows] += turn.reward
        lengths[rows] += 1
        ended = turn.terminated | turn.truncated
        state = turn.state
        if bool(ended.any()):
            left = (~ended).nonzero()[:, 0]
            state, rows = take(state, left), rows[left]
    return totals, lengths


def _answers(
    task: TensorEnv, state: Any, mask: Tensor | None, players: Sequence[Any], seats: Tensor, rows: Tensor
) -> Tensor:
    if not task.simultaneous:
        player = task.player(state)
        who = seats.gather(1, player[:, None])[:, 0]
        return _asked(task, state, mask, players, who, player, torch.arange(len(rows), device=rows.device), rows)
    acts = task.acting(state).flatten()
    games = torch.arange(len(rows), device=rows.device).repeat_interleave(task.num_players)
    player = torch.arange(task.num_players, device=rows.device).repeat(len(rows))
    who = torch.where(acts, seats.flatten(), -1)
    flat = None if mask is None else mask.flatten(0, 1)
    found = _asked(task, state, flat, players, who, player, games, rows)
    return found.view(len(rows), task.num_players, *found.shape[1:])


def _asked(
    task: TensorEnv,
    state: Any,
    mask: Tensor | None,
    players: Sequence[Any],
    who: Tensor,
    player: Tensor,
    games: Tensor,
    rows: Tensor,
) -> Tensor:
    """Let each player answer for its seats; `who`, `player` and `games` are [k]."""
    shape = task.action_space.shape or ()
    dtype = torch.int64 if not shape else task.dtype
    action = torch.full((len(who), *shape), task.pass_action or 0, dtype=dtype, device=who.device)
    for number, one in enumerate(players):
        index = (who == number).nonzero()[:, 0]
        if len(index):
            own, seat = take(state, games[index]), player[index]
            own_mask = None if mask is None else mask.index_select(0, index)
            answer = one(task.observe(own, seat), own_mask, seat, rows[games[index]], seat_keys(task, own, seat))
            action.index_copy_(0, index, answer.to(dtype))
    return action


@dataclass(frozen=True)
class Match:
    """What came of a match, for the first player.

    Attributes:
        players: the two names.
        games: games played.
        wins, draws, losses: games in which the first player's seats got more, as much, or less than the other's on average.
        reward: mean reward of the first player's seats.
        other_reward: mean reward of the second player's.
        by_group: mean score of the first player for each group of seats that it had.
        length: mean number of ticks.
        faults: what players did wrong.
    """

    players: tuple[str, str]
    games: int
    wins: int
    draws: int
    losses: int
    reward: float
    other_reward: float
    by_group: tuple[float, ...]
    length: float
    faults: tuple[PlayerFault, ...] = field(default=(), repr=False)

    @property
    def score(self) -> float:
        """Share of points: a win counts 1, a draw 1/2."""
        return (self.wins + 0.5 * self.draws) / self.games

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the score (Wilson 1927, on points)."""
        z, n, p = 1.96, self.games, self.score
        centre, half = (p + z * z / (2 * n)) / (1 + z * z / n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        half /= 1 + z * z / n
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        a, b = self.players
        groups = ", ".join(f"{score:.3f}" for score in self.by_group)
        return (
            f"{a} against {b}, {self.games} games: {self.wins} won, {self.draws} drawn, {self.losses} lost, score "
            f"{self.score:.3f} [{low:.3f}, {high:.3f}]; by seat {groups}"
        )


def play_match(
    task: TensorEnv | ForeignGame,
    players: Sequence[Any],
    names: Sequence[str],
    games: int,
    groups: Groups,
    seed: int = 0,
    limit: int | None = None,
    time_limit: float | None = None,
) -> Match:
    """Let two players meet, the first with each group of seats in as equal a number of games as possible.

    Args:
        task: the game.
        players: two callables, see `play_games`.
        names: their names.
        games: how many.
        groups: which seats are played by one policy, see `find_groups`.
        seed: of the first game.
        limit: ticks after which a game is cut.
        time_limit: seconds that an answer may take.

    Raises:
        UsageError: `games` is not positive.
    """
    check_positive_int(games=games)
    rows = torch.arange(games, device=task.device)
    group = groups(task.reset(make_keys(rows + seed, torch.zeros_like(rows))))
    number = int(group.max()) + 1
    is_first = group == (rows % number)[:, None]
    guarded = [Guarded(task, one, name, time_limit) for one, name in zip(players, names)]
    seats = (~is_first).long()
    if isinstance(task, ForeignGame):
        totals, lengths = play_foreign_games(task, guarded, seats, seed, limit)
    else:
        totals, lengths = play_games(task, guarded, seats, seed, limit)
    faults = _faults(guarded, names)
    mine = (totals * is_first).sum(1) / is_first.sum(1)
    theirs = (totals * ~is_first).sum(1) / (~is_first).sum(1).clamp(min=1)
    wins, losses = mine > theirs, mine < theirs
    points = wins.double() + 0.5 * (~wins & ~losses).double()
    by_group = [float(points[rows % number == g].mean()) for g in range(min(number, games))]
    return Match(
        (names[0], names[1]),
        games,
        int(wins.sum()),
        games - int(wins.sum()) - int(losses.sum()),
        int(losses.sum()),
        float(mine.mean()),
        float(theirs.mean()),
        tuple(by_group),
        float(lengths.double().mean()),
        faults,
    )


def _faults(guarded: Sequence[Guarded], names: Sequence[str]) -> tuple[PlayerFault, ...]:
    """Close players and return what they did wrong, with a warning where that is something."""
    for one in guarded:
        one.close()
    faults = tuple(fault for one in guarded for fault in one.faults)
    if faults:
        warnings.warn(
            f"{len(faults)} faults in a match of {' and '.join(names)}, which lose the game or have another move played; the first: "
            f"{faults[0].message}",
            stacklevel=3,
        )
    return faults
