"""A choice among numbered actions as a point in a box."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from polyathlon.envs.errors import UsageError, check_int

Floats = NDArray[np.float32]


def choice_codes(n: int, most: int = 32) -> Floats:
    """Return the points [n, k] of n choices, all of length 1, the same in every process.

    Two choices lie at the ends of a line, -1 and 1 (k = 1). Up to `most` choices each have an axis (k = n), so that the
    nearest is the largest component. More choices, such as the tokens of a vocabulary, get fixed random directions in
    k = `most` dimensions.

    Args:
        n: number of choices.
        most: largest number of dimensions.
    """
    if n <= 2:
        return np.array([[-1.0], [1.0]] if n == 2 else [[1.0]], np.float32)
    if n <= most:
        return np.eye(n, dtype=np.float32)
    directions = np.random.default_rng([n, most]).standard_normal((n, most))
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)


class ContinuousAction(gym.Wrapper[Any, Floats, Any, np.int64], gym.utils.RecordConstructorArgs):
    """Lets an agent that acts in a Box take the Discrete actions of a task, tokens among them.

    Every choice i has a fixed point c_i; the action a in Box(-1, 1, (k,)) means the allowed choice whose point is nearest,
    argmin_i |a - c_i|, the first one where several are. Choices that the task forbids at the moment
    (`info["action_mask"]`, or else the method `action_masks()`) are left out, so the agent cannot take them.

    | choices | points | so the action means |
    |---|---|---|
    | 1 or 2 | 1; or -1 and 1 | the sign |
    | up to `dimensions` | the axes, k = n | the largest component |
    | more | fixed random directions of length 1, k = `dimensions` | the nearest direction |
    | any | `codes` | the nearest row |

    The mask is removed from the infos, since it says nothing about a point in a box; `info["choice"]` holds the action that
    the task took. Observations and rewards pass unchanged.

    Args:
        env: an environment with Discrete actions.
        dimensions: largest k.
        codes: [n, k] points of the choices within [-1, 1], where some choices are alike (cities by their place, tokens
            by their embedding).

    Raises:
        UsageError: the actions are not Discrete, `dimensions` is less than 2, or the codes have the wrong shape.
    """

    def __init__(self, env: gym.Env[Any, Any], dimensions: int = 32, codes: ArrayLike | None = None) -> None:
        if not isinstance(env.action_space, spaces.Discrete):
            raise UsageError(
                f"ContinuousAction wraps Discrete actions, but this environment takes {env.action_space}; "
                "a text task needs polyathlon.wrappers.TokenAction first, a Box needs no wrapper"
            )
        check_int(2, dimensions=dimensions)
        gym.utils.RecordConstructorArgs.__init__(self, dimensions=dimensions, codes=codes)
        gym.Wrapper.__init__(self, env)
        n = int(env.action_space.n)
        self._first = int(env.action_space.start)
        self.codes = choice_codes(n, int(dimensions)) if codes is None else _checked(codes, n)
        self.action_space = spaces.Box(-1.0, 1.0, (self.codes.shape[1],), np.float32)
        self._half_squares = 0.5 * np.square(self.codes).sum(1)
        self._mask: NDArray[np.bool_] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._without_mask(info)

    def step(self, action: Floats) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take the allowed choice that is nearest to `action` [k].

        Raises:
            TypeError: the action is not made of numbers.
            UsageError: it has another shape, is not finite, or the task allows no choice at all.
        """
        chosen = self.choice(action)
        observation, reward, terminated, truncated, info = self.env.step(np.int64(chosen))
        return observation, reward, terminated, truncated, {**self._without_mask(info), "choice": chosen}

    def choice(self, action: ArrayLike) -> int:
        """Return the action of the task that the point `action` [k] means at the moment; see `step` for errors."""
        point = np.asarray(action)
        if point.dtype.kind not in "fiu":
            raise TypeError(
                f"the action must be an array of {self.codes.shape[1]} numbers between -1 and 1, got {action!r}"
            )
        if point.shape != (self.codes.shape[1],):
            raise UsageError(f"the action must have shape ({self.codes.shape[1]},), got {point.shape}")
        if not np.isfinite(point).all():
            raise UsageError(f"the action is not finite: {point.tolist()}")
        score = self.codes @ point - self._half_squares  # largest where |a - c|^2 is smallest
        if self._mask is not None:
            if not self._mask.any():
                raise UsageError("the task allows no action at all: its action mask holds no True")
            score = np.where(self._mask, score, -np.inf)
        return int(score.argmax()) + self._first

    def point_of(self, choice: int) -> Floats:
        """Return an action [k] that means the choice `choice` of the task, as long as that is allowed."""
        return self.codes[choice - self._first].copy()

    def _without_mask(self, info: dict[str, Any]) -> dict[str, Any]:
        """Keep the mask of the next choice, and return the info without it."""
        mask = info.get("action_mask")
        if mask is None:
            try:
                mask = self.env.get_wrapper_attr("action_masks")()
            except (AttributeError, UsageError):  # no such method, or the task answers that it has no masks
                self._mask = None
                return info
        self._mask = np.asarray(mask, bool).reshape(-1)
        return {key: value for key, value in info.items() if key != "action_mask"}


def _checked(codes: ArrayLike, n: int) -> Floats:
    """Return the codes as an array [n, k].

    Raises:
        UsageError: they have another shape, are not within [-1, 1], or two choices share a point.
    """
    points = np.asarray(codes, np.float32)
    if points.ndim != 2 or points.shape[0] != n or points.shape[1] == 0:
        raise UsageError(f"codes must have a row for each of the {n} choices, got an array of shape {points.shape}")
    if not (np.abs(points) <= 1).all():
        raise UsageError("codes must lie between -1 and 1")
    if len(np.unique(points, axis=0)) < n:
        raise UsageError("codes must differ: two choices share a point, so the second could never be taken")
    return points
