"""A choice among the rows of an observed table, as a point in the space of their features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_positive

from .continuous_action import ContinuousAction, Floats

ROWS = ("nodes", "kind")  # what is hidden of a table whose rows are not observed


def is_table(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> bool:
    """Tell whether actions are the rows of a table that is observed: Discrete(n), and `nodes` (n, F) with finite bounds."""
    if not isinstance(observation_space, spaces.Dict) or type(action_space) is not spaces.Discrete:
        return False
    nodes = observation_space.spaces.get("nodes")
    if not isinstance(nodes, spaces.Box) or len(nodes.shape) != 2 or action_space.start != 0:
        return False
    return nodes.shape[0] == action_space.n and bool(np.isfinite(nodes.low).all() and np.isfinite(nodes.high).all())


class NodeAction(ContinuousAction):
    """Lets an agent that acts in a Box choose among the rows of a table by where they lie: cities, elements of a page, candidate answers.

    The action a in Box(-1, 1, (F,)) means the point p = m + w a of the rows' features, m the middle of their bounds and w the whole
    width times `reach`, and so the allowed row that is nearest, argmin_i |p - x_i|, the first one where several are (Dulac-Arnold et al.
    2015, "Deep reinforcement learning in large discrete action spaces"). Rows that are alike are taken for alike, whatever
    their numbers; a point beyond the bounds prefers what has most, or least, of a feature. With `columns` the point has these features
    alone, F of them, so that what has nothing to do with the choice does not blur it: the number in an answer, the words of a button.

    The mask is removed from the infos; `info["choice"]` holds the row. Observations and rewards pass unchanged.

    Args:
        env: an environment with Discrete(n) actions that observes a Dict with `nodes` (n, F), the rows that the actions mean.
        columns: numbers of the features by which rows are chosen, negative ones counted from the last; None means all.
        sees_rows: whether the agent observes the rows and their kinds. A request that names what it wants can be answered without:
            then a network that reads vectors is not asked to tell many rows apart, and the action alone picks among them.
        reach: how far from the middle the ends of the Box are, in whole widths of the bounds; less tells near rows better apart where
            those that are wanted lie about the middle.

    Raises:
        UsageError: it has another form, there is no such column, the reach is not positive, or nothing but the rows is observed and they are hidden.
    """

    def __init__(
        self, env: gym.Env[Any, Any], columns: Sequence[int] | None = None, sees_rows: bool = True, reach: float = 1.0
    ) -> None:
        if not is_table(env.observation_space, env.action_space):
            raise UsageError(
                f"NodeAction wraps Discrete(n) actions that are rows of an observed table, a Dict with nodes (n, F), but {env} takes "
                f"{env.action_space}: polyathlon.wrappers.ContinuousAction is for other choices"
            )
        gym.utils.RecordConstructorArgs.__init__(self, columns=columns, sees_rows=sees_rows, reach=reach)
        ContinuousAction.__init__(self, env)
        nodes = env.observation_space["nodes"]  # type: ignore[index]
        self._columns = _checked_columns(columns, nodes.shape[1])
        low, high = nodes.low[0, self._columns], nodes.high[0, self._columns]
        check_positive(reach=reach)
        self._middle, self._width = (low + high) / 2, np.float32(reach) * (high - low)
        self._ends = np.array([len(self._columns)])
        self.action_space = spaces.Box(-1.0, 1.0, (len(self._columns),), np.float32)
        self.sees_rows = bool(sees_rows)
        if not self.sees_rows:
            rest = {key: space for key, space in env.observation_space.items() if key not in ROWS}  # type: ignore[attr-defined]
            if not rest:
                raise UsageError(
                    f"sees_rows=False hides {' and '.join(ROWS)}, and nothing else is observed: leave it out, or let the task show "
                    "something of the request (CandidateAction: numbers=n)"
                )
            self.observation_space = spaces.Dict(rest)
        self._see({"nodes": np.zeros(nodes.shape, np.float32)})

    def _see(self, observation: Any) -> None:
        self._take(np.asarray(observation["nodes"], np.float32)[:, self._columns])

    def _take(self, rows: Floats) -> None:
        self._parts, self.codes = [rows], rows
        self._half_squares = [0.5 * np.square(self.codes).sum(1)]

    def _shown(self, observation: Any) -> Any:
        return observation if self.sees_rows else {key: observation[key] for key in self.observation_space.spaces}  # type: ignore[attr-defined]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        observation, info = super().reset(seed=seed, options=options)
        self._see(observation)
        return self._shown(observation), info

    def step(self, action: Floats) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the allowed row that is nearest to the point of `action` [F]; see `ContinuousAction.step` for errors."""
        observation, reward, terminated, truncated, info = super().step(action)
        self._see(observation)
        return self._shown(observation), reward, terminated, truncated, info

    def rows(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any]:
        """Return rows of a tensor task (torch output) behind this wrapper."""
        from .rows import NodeRows

        space: Any = self.action_space
        return NodeRows(env, space, self._columns, self._middle, self._width, self.observation_space)

    def _scores(self, d: int, point: Any) -> Any:
        # a product with a matrix adds the numbers of equal rows in different orders, and then the first is not the nearest
        return (self.codes * (self._middle + self._width * point)).sum(1) - self._half_squares[0]

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, with the rows of the next choice; see `ContinuousAction.get_state`."""
        return {**super().get_state(), "rows": self.codes.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        super().set_state(state)
        self._take(np.array(state["rows"], np.float32))

    def point_of(self, choice: Any) -> Floats:
        """Return an action [F] that means the row `choice` now, as long as it is allowed and no earlier row is the same."""
        point = (self.codes[int(choice)] - self._middle) / np.where(self._width > 0, self._width, 1.0)
        return np.asarray(point, np.float32)


def _checked_columns(columns: Sequence[int] | None, size: int) -> NDArray[np.int64]:
    """Return the numbers of the columns, counted from the first.

    Raises:
        UsageError: there are none, one is named twice, or there is no such column.
    """
    if columns is None:
        return np.arange(size)
    given = list(columns) if isinstance(columns, Sequence) and not isinstance(columns, str) else [None]
    whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in given)
    if (
        not given
        or not whole
        or not all(-size <= one < size for one in given)
        or len({i % size for i in given}) < len(given)
    ):
        raise UsageError(
            f"columns are different numbers of features, -{size} to {size - 1}, got {columns!r}: the rows have {size} features"
        )
    return np.array([one % size for one in given], np.int64)
