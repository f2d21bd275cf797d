"""One seat of a PettingZoo game as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.opponents import PlayerFault

from .games.aec_rows import as_turns
from .games.aec_seats import AECSeats


class SingleAgent(gym.Env[Any, Any]):
    """One seat of a game in PettingZoo's form; see `AECSeats` for what a step is.

    Args:
        env: an `AECEnv`, or a `ParallelEnv`, which is played in turns.
        seat: "random" or the number of the seat.
        opponents: "random", or a callable as in `AECSeats`.
        max_episode_steps: the seat's own moves after which a game is cut; None for no limit.
        time_limit: seconds that an answer of the opponents may take; None for no limit.

    Raises:
        UsageError: the players' spaces differ or are not Discrete, or a word is wrong.
    """

    num_players = 1

    def __init__(
        self,
        env: Any,
        seat: str | int = "random",
        opponents: Any = "random",
        max_episode_steps: int | None = None,
        time_limit: float | None = None,
    ) -> None:
        game = self.game = as_turns(env)
        self.rows = AECSeats(lambda: game, 1, opponents, seat, max_episode_steps, time_limit=time_limit)
        self.observation_space = self.rows.single_observation_space
        self.action_space = self.rows.single_action_space
        self.render_mode = getattr(game, "render_mode", None)
        self.metadata = dict(getattr(game, "metadata", {}))
        self._is_next = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the game of a seed, or the next one."""
        super().reset(seed=seed)
        if seed is None and self._is_next:  # the step that ended the last game has begun this one
            observations, info = self.rows._observations(), self.rows._info()
        else:
            observations, info = self.rows.reset(seed=seed)
        self._is_next = False
        return _first(observations), _first_info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move, and let the others play until it is the seat's turn again.

        Raises:
            UsageError: the game is over.
        """
        if self._is_next:
            raise UsageError("the game is over: call reset()")
        observations, rewards, terminated, truncated, info = self.rows.step([action])
        self._is_next = bool(terminated[0] or truncated[0])
        seen = info["final_obs"][0] if self._is_next else _first(observations)
        facts = _first_info(info)
        if self._is_next and "action_mask" in facts:
            facts["action_mask"][:] = True
        return seen, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), facts

    @property
    def faults(self) -> list[PlayerFault]:
        """What the opponents did wrong, in order."""
        return self.rows.faults

    def action_masks(self) -> Any:
        """Return what the seat may do, (A,) bool."""
        return self.rows.action_masks()[0]

    def render(self) -> Any:
        """Draw the game as it draws itself."""
        return self.game.render()

    def close(self) -> None:
        """Close the game."""
        self.game.close()

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` plays again."""
        return {"rows": self.rows.get_state(), "is_next": self._is_next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where `get_state` was called."""
        self.rows.set_state(state["rows"])
        self._is_next = bool(state["is_next"])


def _first(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {name: _first(value) for name, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_first(value) for value in observations)
    return observations[0]


def _first_info(info: dict[str, Any]) -> dict[str, Any]:
    return {key: info[key][0] for key in ("seat", "action_mask") if key in info}
