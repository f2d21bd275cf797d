"""A choice among numbered actions, or several at once, as a point in a box."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from polyathlon.envs.errors import UsageError, check_int

from .action_kinds import mask_of
from .words import choice_counts

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


class ContinuousAction(gym.Wrapper[Any, Floats, Any, Any], gym.utils.RecordConstructorArgs):
    """Lets an agent that acts in a Box take the Discrete actions of a task, tokens among them, or several choices at once.

    Every choice i has a fixed point c_i; the action a in Box(-1, 1, (k,)) means the allowed choice whose point is nearest,
    argmin_i |a - c_i|, the first one where several are. Choices that the task forbids at the moment
    (`info["action_mask"]`, or else the method `action_masks()`) are left out, so the agent cannot take them.

    | choices | points | so the action means |
    |---|---|---|
    | 1 or 2 | 1; or -1 and 1 | the sign |
    | up to `dimensions` | the axes, k = n | the largest component |
    | more | fixed random directions of length 1, k = `dimensions` | the nearest direction |
    | any | `codes` | the nearest row |

    Of MultiDiscrete and MultiBinary actions each choice has its own components, side by side, and so have their masks.

    The mask is removed from the infos, since it says nothing about a point in a box; `info["choice"]` holds the action that
    the task took. Observations and rewards pass unchanged.

    Args:
        env: an environment with Discrete, MultiDiscrete or MultiBinary actions.
        dimensions: largest k of a choice.
        codes: [n, k] points of the choices within [-1, 1], where some choices are alike (cities by their place, tokens
            by their embedding); Discrete actions only.

    Attributes:
        codes: points of the only choice, or of the first one.

    Raises:
        UsageError: the actions are no choices, `dimensions` is less than 2, or the codes have the wrong shape.
    """

    def __init__(self, env: gym.Env[Any, Any], dimensions: int = 32, codes: ArrayLike | None = None) -> None:
        space = env.action_space
        if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise UsageError(
                f"ContinuousAction wraps Discrete, MultiDiscrete and MultiBinary actions, but this environment takes {space}; "
                "a text task needs polyathlon.wrappers.TokenAction first, a Box needs no wrapper"
            )
        check_int(2, dimensions=dimensions)
        gym.utils.RecordConstructorArgs.__init__(self, dimensions=dimensions, codes=codes)
        gym.Wrapper.__init__(self, env)
        self._is_single = isinstance(space, spaces.Discrete)
        if codes is not None and not self._is_single:
            raise UsageError(f"codes are points of the choices of a Discrete space, got {space}: leave codes out")
        counts, self._first = choice_counts(space)
        usual = [choice_codes(n, int(dimensions)) for n in counts]
        self._parts = usual if codes is None else [_checked(codes, counts[0])]
        self.codes = self._parts[0]
        self._ends = np.cumsum([part.shape[1] for part in self._parts])
        self._mask_ends = np.cumsum(counts)
        self.action_space = spaces.Box(-1.0, 1.0, (int(self._ends[-1]),), np.float32)
        self._half_squares = [0.5 * np.square(part).sum(1) for part in self._parts]
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
        taken = np.int64(chosen) if self._is_single else chosen
        observation, reward, terminated, truncated, info = self.env.step(taken)
        return observation, reward, terminated, truncated, {**self._without_mask(info), "choice": chosen}

    def choice(self, action: ArrayLike) -> Any:
        """Return the action of the task that the point `action` [k] means at the moment; see `step` for errors."""
        point, size = np.asarray(action), int(self._ends[-1])
        if point.dtype.kind not in "fiu":
            raise TypeError(f"the action must be an array of {size} numbers between -1 and 1, got {action!r}")
        if point.shape != (size,):
            raise UsageError(f"the action must have shape ({size},), got {point.shape}")
        if not np.isfinite(point).all():
            raise UsageError(f"the action is not finite: {point.tolist()}")
        points = np.split(point, self._ends[:-1])
        masks = [None] * len(points) if self._mask is None else np.split(self._mask, self._mask_ends[:-1])
        chosen = [self._nearest(d, part, mask) for d, (part, mask) in enumerate(zip(points, masks))]
        if self._is_single:
            return chosen[0] + int(self._first[0])
        space = self.env.action_space
        return (np.asarray(chosen) + self._first).astype(space.dtype).reshape(space.shape)

    def _nearest(self, d: int, point: NDArray[Any], mask: NDArray[np.bool_] | None) -> int:
        """Return the allowed choice, counted from 0, whose point is nearest."""
        score = self._scores(d, point)
        if mask is not None:
            if not mask.any():
                raise UsageError("the task allows no action at all: its action mask holds no True")
            score = np.where(mask, score, -np.inf)
        return int(score.argmax())

    def _scores(self, d: int, point: NDArray[Any]) -> NDArray[Any]:
        """Return [n] of each choice what is largest where |a - c|^2 is smallest."""
        return self._parts[d] @ point - self._half_squares[d]

    def point_of(self, choice: Any) -> Floats:
        """Return an action [k] that means the choice `choice` of the task, as long as that is allowed."""
        places = np.reshape(choice, -1) - self._first
        return np.concatenate([part[int(place)] for part, place in zip(self._parts, places)])

    def rows(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> gym.vector.VectorEnv[Any, Any, Any] | None:
        """Return rows of a tensor task (torch output) behind this wrapper; None where each takes several choices at once."""
        from .rows import ChoiceRows

        return ChoiceRows(env, self.action_space, self.codes) if self._is_single else None  # type: ignore[arg-type]

    def get_state(self) -> dict[str, Any]:
        """Return where the environment is, with the mask of the next choice, as a plain dict for `set_state`."""
        inner = self.env.get_wrapper_attr("get_state")()
        return {"task": inner, "mask": None if self._mask is None else self._mask.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave."""
        self.env.get_wrapper_attr("set_state")(state["task"])
        self._mask = None if state["mask"] is None else np.array(state["mask"], bool)

    def _without_mask(self, info: dict[str, Any]) -> dict[str, Any]:
        """Keep the mask of the next choice, and return the info without it."""
        self._mask = mask_of(self.env, info)
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
