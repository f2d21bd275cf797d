"""A choice among the rows of an observed table, as a point in the space of their features."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError

from .continuous_action import ContinuousAction, Floats


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
    width, and so the allowed row that is nearest, argmin_i |p - x_i|, the first one where several are (Dulac-Arnold et al.
    2015, "Deep reinforcement learning in large discrete action spaces"). Rows that are alike are taken for alike, whatever
    their numbers; a point beyond the bounds prefers what has most, or least, of a feature.

    The mask is removed from the infos; `info["choice"]` holds the row. Observations and rewards pass unchanged.

    Args:
        env: an environment with Discrete(n) actions that observes a Dict with `nodes` (n, F), the rows that the actions mean.

    Raises:
        UsageError: it has another form.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        if not is_table(env.observation_space, env.action_space):
            raise UsageError(
                f"NodeAction wraps Discrete(n) actions that are rows of an observed table, a Dict with nodes (n, F), but {env} takes "
                f"{env.action_space}: polyathlon.wrappers.ContinuousAction is for other choices"
            )
        gym.utils.RecordConstructorArgs.__init__(self)
        ContinuousAction.__init__(self, env)
        nodes = env.observation_space["nodes"]  # type: ignore[index]
        self._middle, self._width = (nodes.low[0] + nodes.high[0]) / 2, nodes.high[0] - nodes.low[0]
        self._ends = np.array([nodes.shape[1]])
        self.action_space = spaces.Box(-1.0, 1.0, (nodes.shape[1],), np.float32)
        self._see({"nodes": np.zeros(nodes.shape, np.float32)})

    def _see(self, observation: Any) -> None:
        self._parts = [np.asarray(observation["nodes"], np.float32)]
        self.codes = self._parts[0]
        self._half_squares = [0.5 * np.square(self.codes).sum(1)]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        observation, info = super().reset(seed=seed, options=options)
        self._see(observation)
        return observation, info

    def step(self, action: Floats) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the allowed row that is nearest to the point of `action` [F]; see `ContinuousAction.step` for errors."""
        observation, reward, terminated, truncated, info = super().step(action)
        self._see(observation)
        return observation, reward, terminated, truncated, info

    def _nearest(self, d: int, point: Any, mask: Any) -> int:
        return super()._nearest(d, self._middle + self._width * point, mask)

    def point_of(self, choice: Any) -> Floats:
        """Return an action [F] that means the row `choice` now, as long as it is allowed and no earlier row is the same."""
        point = (self.codes[int(choice)] - self._middle) / np.where(self._width > 0, self._width, 1.0)
        return np.asarray(point, np.float32)
