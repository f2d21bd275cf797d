"""Games of PettingZoo that have no form on tensors, as leagues see them: one seat learns, the pool has the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.trees import take
from polyathlon.wrappers.games.aec_rows import AECRows, as_turns, player_spaces
from polyathlon.wrappers.games.aec_seats import AECSeats

TABLES = 64  # games at once in a match


class ForeignGame:
    """A game of PettingZoo: how it is made, and the spaces of its players.

    Args:
        env_fn: makes one game, an `AECEnv` or a `ParallelEnv`, which is played in turns.
        env_kwargs: its options.
        device: of agents that play it.

    Attributes:
        num_players: seats.
        observation_space, action_space: of a player, without the mask.

    Raises:
        UsageError: it makes no game of PettingZoo, its players' spaces differ, or actions are not Discrete.
    """

    simultaneous = False
    dtype = torch.float32

    def __init__(self, env_fn: Callable[..., Any], env_kwargs: dict[str, Any], device: torch.device) -> None:
        self.env_fn, self.env_kwargs, self.device = env_fn, dict(env_kwargs), device
        game = self.make()
        if not hasattr(game, "possible_agents"):
            raise UsageError(f"a game has players (PettingZoo's possible_agents), which {game} has not")
        self.num_players = len(game.possible_agents)
        self.observation_space, self.action_space, _ = player_spaces(game)
        self.metadata: dict[str, Any] = {"render_modes": [], **getattr(game, "metadata", {})}
        self.name = str(self.metadata.get("name", game))
        game.close()

    def make(self, **more: Any) -> Any:
        """Return a new game in the turn-based form; `more` are options beside its own."""
        return as_turns(self.env_fn(**{**self.env_kwargs, **more}))

    def reset(self, keys: Tensor) -> Tensor:
        """Return what tells how many games start, [k, 2]; a `TensorEnv` returns their state here."""
        return keys

    def groups(self, state: Tensor) -> Tensor:
        """Return the number of each seat's group, [k, P] int64: each seat is one of its own."""
        return torch.arange(self.num_players, device=self.device).expand(len(state), -1)


class ForeignSeats(AECSeats):
    """One seat in each of many games against the pool; of choices, as points in a box where an agent needs one.

    Args:
        game: the game.
        num_envs: rows.
        opponents: the pool.
        points: of an agent that acts in a box; None acts in the game's own space.
        max_episode_steps: the seat's own moves after which a game is cut.
    """

    def __init__(
        self, game: ForeignGame, num_envs: int, opponents: Any, points: Any, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(game.make, num_envs, opponents, "random", max_episode_steps, game.device)
        self.points, self.pool_opponents = points, opponents
        self.totals = np.zeros((num_envs, game.num_players))
        if points is not None:
            self.single_action_space = points.space
            self.action_space = batch_space(points.space, self.num_envs)

    def _read(self, actions: Any) -> np.ndarray:
        if self.points is None or not self._started:
            return super()._read(actions)
        device = self.rows.device
        mask = torch.from_numpy(self.action_masks()).to(device)
        chosen: np.ndarray = self.points.choices(torch.as_tensor(actions, device=device), mask).cpu().numpy()
        return super()._read(chosen)

    def _restarts(self, ended: np.ndarray) -> dict[str, Any]:
        self.totals += self.rows.paid
        if ended.any():
            over = torch.from_numpy(np.flatnonzero(ended)).to(self.rows.device)
            totals = torch.from_numpy(self.totals[ended]).to(over.device)
            self.pool_opponents.note(over, totals, torch.tensor(self.seat, device=over.device)[over])
            self.totals[ended] = 0.0
        return super()._restarts(ended)

    def _info(self) -> dict[str, Any]:
        info = super()._info()
        if self.points is None:
            return info
        return {name: value for name, value in info.items() if "action_mask" not in name}

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` plays again."""
        return {**super().get_state(), "totals": self.totals.tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called."""
        super().set_state(state)
        self.totals = np.array(state["totals"])


def play_foreign_games(
    game: ForeignGame, players: Sequence[Any], seats: Tensor, seed: int = 0, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Play one game from each of n starts; see `matches.play_games`.

    Args:
        game: the game.
        players: callables (obs, mask, player, env_index, key) -> action.
        seats: [n, P] int64, which of the players has each seat.
        seed: of the first game; the others follow it.
        limit: moves after which a game is cut.

    Returns:
        The sum of each seat's rewards, [n, P], and the length of each game, [n].
    """
    n, device = len(seats), seats.device
    totals = torch.zeros(n, game.num_players, device=device)
    lengths = torch.zeros(n, dtype=torch.int64, device=device)
    dispatch = _Dispatch(players, seats)
    rows = AECRows(game.make, min(n, TABLES), dispatch, device)
    for first in range(0, n, TABLES):
        count = min(TABLES, n - first)
        dispatch.first = first
        rows.paid[:] = 0.0
        for i in range(count):
            rows.seeds[i] = seed + first + i
            rows.begin(i, -1)
        rows.play_others(range(count), limit)
        totals[first : first + count] = torch.from_numpy(rows.paid[:count]).to(totals)
        lengths[first : first + count] = torch.tensor([len(rows.played[i]) for i in range(count)], device=device)
    rows.close()
    return totals, lengths


class _Recorder(AECRows):
    """A game that keeps what is seen of it: pictures, or its moves in words."""

    def __init__(self, game: ForeignGame, dispatch: Any, is_text: bool) -> None:
        super().__init__(
            partial(game.make, **({} if is_text else {"render_mode": "rgb_array"})), 1, dispatch, game.device
        )
        self.is_text, self.shown = is_text, list[Any]()

    def begin(self, i: int, seat: int) -> None:
        super().begin(i, seat)
        self.shown = [", ".join(self.players) if self.is_text else self.games[i].render()]

    def act(self, i: int, action: int | None) -> None:
        said = f"{self.games[i].agent_selection}: {action}"
        super().act(i, action)
        if action is not None:
            self.shown.append(said if self.is_text else self.games[i].render())


def record_foreign_game(
    game: ForeignGame, players: Sequence[Any], owners: Sequence[int], seed: int, limit: int | None, is_text: bool
) -> tuple[list[Any], list[float]]:
    """Play one game and keep what is seen of it.

    Args:
        game: the game.
        players: callables (obs, mask, player, env_index, key) -> action.
        owners: which of them has each seat.
        seed: of the game.
        limit: moves after which it is cut.
        is_text: keep moves in words, else pictures (height, width, 3) uint8.

    Returns:
        Pictures or lines, and the sum of each seat's rewards.
    """
    rows = _Recorder(game, _Dispatch(players, torch.tensor([list(owners)], device=game.device)), is_text)
    rows.seeds[0] = seed
    rows.begin(0, -1)
    rows.play_others([0], limit)
    rows.close()
    return rows.shown, rows.paid[0].tolist()


class _Dispatch:
    """Asks the player who has the seat."""

    def __init__(self, players: Sequence[Any], seats: Tensor) -> None:
        self.players, self.seats, self.first = players, seats, 0

    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        who = self.seats[env_index + self.first, player]
        action = torch.zeros(len(who), dtype=torch.int64, device=who.device)
        for number in who.unique().tolist():
            index = (who == number).nonzero()[:, 0]
            own_mask = None if mask is None else mask[index]
            asked = (player[index], env_index[index] + self.first, key[index])
            action[index] = self.players[number](take(obs, index), own_mask, *asked).to(torch.int64)
        return action
