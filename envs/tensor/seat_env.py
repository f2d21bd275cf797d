"""One seat of one game as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError

from .base import TensorEnv
from .engine import Engine
from .joined_seats import Prepared
from .opponents import PlayerFault
from .output import row_of
from .seats import SeatVectorEnv


class SeatEnv(gym.Env[Any, Any]):
    """One seat of one game; see `SeatVectorEnv` for what a step is, and for the arguments.

    Args:
        task: the game.
        opponent: who plays the other seats.
        seat: "random" or a number.
        render_mode: a render mode of the task.
        max_episode_steps: the seat's own moves after which a game is cut; None for the task's own limit of ticks alone.
        time_limit: seconds that an answer of an opponent may take.

    Raises:
        UsageError: an argument is outside what is allowed.
    """

    num_players = 1

    def __init__(
        self,
        task: TensorEnv,
        opponent: Any = "random",
        seat: str | int = "random",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        mode = AutoresetMode.DISABLED
        self.rows = SeatVectorEnv(task, 1, opponent, seat, "numpy", mode, max_episode_steps, render_mode, time_limit)
        self.task, self.render_mode, self.metadata = task, render_mode, dict(task.metadata)
        self.observation_space, self.action_space = task.observation_space, task.action_space
        self.prepared: Prepared | None = None

    def _foreseen(self, call: Any) -> tuple[Any, ...] | None:
        """Return what the next call returns, where it was prepared with others; see `joined_seats`."""
        found, self.prepared = self.prepared, None
        return found.put(self.rows) if found is not None and found.is_for(call) else None

    @property
    def engine(self) -> Engine:
        """The row behind it."""
        return self.rows.engine

    @property
    def faults(self) -> list[PlayerFault]:
        """What opponents did wrong, in order."""
        return self.rows.faults

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the first game of `seed`, or without one the next, and play until the seat is to move."""
        super().reset(seed=seed)
        found = None if options or seed is None else self._foreseen(seed)
        observation, info = found or self.rows.reset(seed=seed, options=options)
        return row_of(observation, 0), self._facts(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move, and let the others play until it is the seat's turn again."""
        found = self._foreseen(action) or self.rows.step(np.asarray(action)[None])
        observation, reward, terminated, truncated, info = found
        ends = bool(terminated[0]), bool(truncated[0])
        return row_of(observation, 0), float(reward[0]), *ends, self._facts(info)

    @staticmethod
    def _facts(info: dict[str, Any]) -> dict[str, Any]:
        facts = {name: value[0] for name, value in info.items() if not name.startswith("_")}
        return {name: value.item() if np.ndim(value) == 0 else np.array(value) for name, value in facts.items()}

    def action_masks(self) -> np.ndarray:
        """Return what the seat may do, (A,) bool."""
        return np.array(self.rows.action_masks()[0])

    def render(self) -> Any:
        """Draw the game, by `render_mode`; None without one."""
        if self.render_mode is None:
            return None
        if self.rows.state is None:
            raise UsageError("render() was called before reset(); call reset() first")
        drawn = self.rows.render()
        return None if drawn is None else drawn[0]

    def tensor_task(self) -> TensorEnv:
        """Return the game, for who plays all of its seats."""
        return self.task

    def close(self) -> None:
        """End the thread of a time limit."""
        self.rows.opponents.close()

    def get_state(self) -> dict[str, Any]:
        """Return a dict of tensors from which `set_state` continues exactly."""
        return self.rows.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""
        self.prepared = None
        self.rows.set_state(state)
