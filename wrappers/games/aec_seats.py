"""One seat of PettingZoo games that are not ours: the others act inside the step, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from polyathlon.envs.errors import UsageError, check_positive_int
from polyathlon.envs.random import choice
from polyathlon.envs.tensor.opponents import Guarded, PlayerFault
from polyathlon.envs.tensor.rules import check_seed, entropy_seed

from .aec_rows import DRAW, AECRows, Opponents, random_seats


class AECSeats(gym.vector.VectorEnv[Any, Any, Any]):
    """One seat in each of several games of PettingZoo's turn-based form, SAME_STEP.

    A step is a move of the seat with all that follows until it moves again; opponents of all rows are asked together. A game that ends
    before the seat has ever moved is left out.

    Args:
        env_fn: makes one game, `() -> AECEnv`, with Discrete actions that are the same for every player.
        num_envs: rows.
        opponents: "random", or a callable `(obs [k, ...], mask [k, A], player [k], env_index [k], key [k, 2]) -> action [k]`. What it does
            wrong is named in `faults`; an action that the mask forbids is played for it then, which ends most games of PettingZoo to its
            loss, or where everything is allowed one that is drawn.
        seats: "random" or the number of a seat, in the order of `possible_agents`.
        max_episode_steps: the seat's own moves after which a game is cut; None for no limit.
        device: where opponents are asked.
        time_limit: seconds that an answer of opponents may take; None for no limit.

    Attributes:
        seat: [N] the seat of each row.
        faults: what opponents did wrong, in order.
        skipped: games that ended before the seat had moved.

    Raises:
        UsageError: a number is impossible, or the spaces differ from player to player.
    """

    num_players = 1
    single_action_space: Any

    def __init__(
        self,
        env_fn: Callable[[], Any],
        num_envs: int,
        opponents: str | Opponents = "random",
        seats: str | int = "random",
        max_episode_steps: int | None = None,
        device: torch.device | str = "cpu",
        time_limit: float | None = None,
    ) -> None:
        if max_episode_steps is not None:
            check_positive_int(max_episode_steps=max_episode_steps)
        if not callable(opponents) and opponents != "random":
            raise UsageError(f"opponents are 'random' or a callable for games of others, got {opponents!r}")
        asked: Opponents = random_seats if opponents == "random" else opponents  # type: ignore[assignment]
        self.rows = AECRows(env_fn, num_envs, asked, device)
        choices = SimpleNamespace(action_space=gym.spaces.Discrete(self.rows.number), dtype=torch.float32)
        name = opponents if isinstance(opponents, str) else getattr(opponents, "__name__", type(opponents).__name__)
        self.opponents = self.rows.opponents = Guarded(choices, asked, name, time_limit)
        self.num_envs, self.output = int(num_envs), "numpy"
        self.single_observation_space = self.rows.space
        self.single_action_space = gym.spaces.Discrete(self.rows.number)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        last = len(self.rows.players) - 1
        if seats != "random" and not (type(seats) is int and 0 <= seats <= last):
            raise UsageError(f"a seat is 'random' or a number from 0 to {last}, got {seats!r}")
        self.seats, self.max_episode_steps = seats, max_episode_steps or 2**62
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.moves, self.skipped = [0] * self.num_envs, 0
        self._started = False

    @property
    def seat(self) -> list[int]:
        """The seat of each row."""
        return self.rows.seat

    @property
    def faults(self) -> list[PlayerFault]:
        """What opponents did wrong, in order."""
        return self.opponents.faults

    # ---- games

    def _begin(self, i: int) -> None:
        """Start the next game of a row, and let opponents know."""
        key = self.rows.key(i)
        if self.seats == "random":
            seat = int(choice(key, 0, torch.ones(1, len(self.rows.players), dtype=torch.bool), DRAW + 1)[0])
        else:
            seat = int(self.seats)
        self.rows.begin(i, seat)
        self.moves[i] = 0
        start = getattr(self.opponents.player, "start", None)
        if start is not None:
            start(torch.tensor([i], device=self.rows.device), key.to(self.rows.device))

    # ---- Gymnasium

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a game in every row; row i gets `seed + i`, or its next game without a seed."""
        rows = self.rows
        if seed is not None or not self._started:
            first = entropy_seed() if seed is None else check_seed(seed)
            rows.seeds, rows.episodes = [first + i for i in range(self.num_envs)], [0] * self.num_envs
        else:
            rows.episodes = [episode + 1 for episode in rows.episodes]
        self._started = True
        for i in range(self.num_envs):
            self._begin(i)
        self._to_seats(range(self.num_envs))
        return self._observations(), self._info()

    def _to_seats(self, rows: Sequence[int]) -> None:
        """Let the others play in games that start; a game that ends before its seat has moved is followed by the next."""
        rows = list(rows)
        for _ in range(1000):
            self.rows.play_others(rows)
            rows = [i for i in rows if self.rows.is_over(i)]
            if not rows:
                return
            self.skipped += len(rows)
            for i in rows:
                self.rows.episodes[i] += 1
                self._begin(i)
        raise UsageError("1000 games in a row ended before the seat had moved")

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Move in every row, and let the others play until it is the seat's turn again.

        Raises:
            UsageError: there was no reset, or an action is outside the space.
        """
        chosen = self._read(actions)
        rows, every = self.rows, range(self.num_envs)
        rows.paid[:] = 0.0
        for i in every:
            rows.act(i, int(chosen[i]))
            self.moves[i] += 1
        rows.play_others(every)
        over = [rows.is_over(i) for i in every]
        cut = [not over[i] and self.moves[i] >= self.max_episode_steps for i in every]
        terminated, truncated = np.array(over), np.array(cut)
        for i in np.flatnonzero(terminated).tolist():
            game, me = rows.games[i], rows.players[self.seat[i]]
            if game.truncations.get(me) and not game.terminations.get(me):
                terminated[i], truncated[i] = False, True
        rewards = rows.paid[np.arange(self.num_envs), self.seat].astype(np.float32)
        info = self._restarts(terminated | truncated)
        return self._observations(), rewards, terminated, truncated, {**self._info(), **info}

    def _read(self, actions: Any) -> np.ndarray:
        """Check the actions of all rows, [N] integers."""
        if not self._started:
            raise UsageError("step() was called before reset(); call reset() first")
        chosen, number = np.asarray(actions), self.rows.number
        if (
            chosen.shape != (self.num_envs,)
            or chosen.dtype.kind not in "iu"
            or (chosen < 0).any()
            or (chosen >= number).any()
        ):
            raise UsageError(f"actions are {self.num_envs} integers from 0 to {number - 1}, got {actions!r}")
        return chosen

    def _restarts(self, ended: np.ndarray) -> dict[str, Any]:
        """Start the next games of rows that are over, [N] bool; return what they saw last."""
        if not ended.any():
            return {}
        finals = np.full(self.num_envs, None, object)
        over = np.flatnonzero(ended).tolist()
        for i in over:
            finals[i] = self.rows.view(i, self.rows.players[self.seat[i]])[0]
            self.rows.episodes[i] += 1
            self._begin(i)
        self._to_seats(over)
        return {"final_obs": finals, "_final_obs": ended}

    def _observations(self) -> Any:
        space = self.single_observation_space
        seen = [self.rows.view(i, self.rows.players[self.seat[i]])[0] for i in range(self.num_envs)]
        return concatenate(space, seen, create_empty_array(space, self.num_envs))

    def _info(self) -> dict[str, Any]:
        every = np.ones(self.num_envs, bool)
        info = {"seat": np.array(self.seat), "_seat": every}
        if not self.rows.has_masks:
            return info
        return {**info, "action_mask": self.action_masks(), "_action_mask": every}

    def action_masks(self) -> np.ndarray:
        """Return what the seats may do, (N, A) bool."""
        return np.stack([self.rows.view(i, self.rows.players[self.seat[i]])[1] for i in range(self.num_envs)])

    def close_extras(self, **kwargs: Any) -> None:
        """Close the games."""
        if hasattr(self, "rows"):  # Gymnasium closes what was never made
            self.rows.close()
        if hasattr(self, "opponents"):
            self.opponents.close()

    # ---- keeping and continuing

    def get_state(self) -> dict[str, Any]:
        """Return the seed, the episode and the actions of each row, from which `set_state` plays again."""
        rows = self.rows
        own = {"_seeds": list(rows.seeds), "_episodes": list(rows.episodes)}
        keep = getattr(self.opponents.player, "get_state", None)
        return {
            **own,
            "seat": list(rows.seat),
            "moves": list(self.moves),
            "played": [list(actions) for actions in rows.played],
            "skipped": self.skipped,
            "opponents": None if keep is None else keep(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Play again what `get_state` told.

        Raises:
            UsageError: the state has another number of rows.
        """
        if len(state["seat"]) != self.num_envs:
            raise UsageError(f"the state holds {len(state['seat'])} rows, this environment has {self.num_envs}")
        rows = self.rows
        rows.seeds, rows.episodes = list(state["_seeds"]), list(state["_episodes"])
        self._started, self.skipped = True, state["skipped"]
        for i in range(self.num_envs):
            rows.begin(i, state["seat"][i])
            for action in state["played"][i]:
                rows.act(i, None if action < 0 else action)
        self.moves = list(state["moves"])
        if state.get("opponents") is not None:
            self.opponents.player.set_state(state["opponents"])  # type: ignore[attr-defined]
