"""Observations in words, and actions read from words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Describe = Callable[[Any, dict[str, Any], gym.Env[Any, Any]], str]
Parse = Callable[[str, dict[str, Any], gym.Env[Any, Any]], Any]

MAX_NUMBERS = 64
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_ANSWER = re.compile(r"action\s*[:=]", re.IGNORECASE)
_DECIMALS = 3


class UnreadableAction(ValueError):
    """A text that names no action; its message says why."""


def number(value: Any) -> str:
    """Write one number: integers as they are, others rounded to three decimals (six digits when large)."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(int(value))
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1e6:
        return f"{value:.6g}"
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def numbers(values: Any) -> str:
    """Write an array row by row, or its first 64 numbers when it has more."""
    array = np.asarray(values)
    if array.size > MAX_NUMBERS:
        return f"{numbers(array.reshape(-1)[:MAX_NUMBERS])} ... ({array.size} numbers)"
    if array.ndim == 0:
        return number(array[()])
    if array.ndim == 1:
        return " ".join(number(x) for x in array)
    return "; ".join(numbers(row) for row in array)


def describe_observation(space: spaces.Space[Any], observation: Any, name: str = "observation") -> str:
    """Write an observation as lines of `name: numbers`, one line for each field.

    Args:
        space: the space of the observation.
        observation: an element of it.
        name: what the observation is called.
    """
    if isinstance(space, spaces.Dict):
        return "\n".join(describe_observation(part, observation[key], key) for key, part in space.spaces.items())
    if isinstance(space, spaces.Tuple):
        pairs = zip(space.spaces, observation)
        return "\n".join(describe_observation(part, value, f"{name} {i}") for i, (part, value) in enumerate(pairs))
    if isinstance(observation, str):
        return f"{name}: {observation}"
    return f"{name}: {numbers(observation)}"


def describe_actions(space: spaces.Space[Any], mask: NDArray[np.bool_] | None) -> str:
    """Write what may be answered.

    Args:
        space: the space of the actions.
        mask: bool mask of the allowed actions, of several choices side by side; None where all are.
    """
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary) and mask is not None:
        counts, firsts = choice_counts(space)
        allowed = np.split(mask, np.cumsum(counts)[:-1])
        each = [_ranges([int(start) + int(i) for i in np.flatnonzero(one)]) for start, one in zip(firsts, allowed)]
        return "action: one integer from each of " + "; ".join(each)
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        if mask is not None:
            return "allowed actions: " + _ranges([first + int(i) for i in np.flatnonzero(mask)])
        return f"actions: {_ranges(list(range(first, first + int(space.n))))}"
    if isinstance(space, spaces.Box):
        count = int(np.prod(space.shape))
        return f"action: {count} number{'s' * (count != 1)} {_bounds(space)}"
    if isinstance(space, spaces.MultiDiscrete):
        return "action: one integer from each of " + ", ".join(
            f"{start}..{start + n - 1}" for start, n in zip(space.start.reshape(-1), space.nvec.reshape(-1))
        )
    return f"action: {int(np.prod(space.shape or (1,)))} numbers, each 0 or 1"


def choice_counts(space: spaces.Space[Any]) -> tuple[list[int], NDArray[Any]]:
    """Return how many actions each choice of a Discrete, MultiDiscrete or MultiBinary space has, and the first of each."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)], np.asarray([space.start])
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)], space.start.reshape(-1)
    size = int(np.prod(space.shape or ()))
    return [2] * size, np.zeros(size, np.int64)


def mask_places(space: spaces.Space[Any], action: Any) -> NDArray[Any]:
    """Return where an action stands in a mask [sum of counts], one place for each of its choices."""
    counts, first = choice_counts(space)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return starts + np.asarray(action).reshape(-1).astype(np.int64) - first


def forbidden_action(space: spaces.Space[Any], mask: NDArray[np.bool_]) -> Any:
    """Return the first action that a mask forbids: of several choices the first that is not free, the others at their default."""
    action = np.asarray(default_action(space))
    place = int(np.flatnonzero(~mask)[0])
    counts, first = choice_counts(space)
    choice = int(np.searchsorted(np.cumsum(counts), place, side="right"))
    value = first[choice] + place - sum(counts[:choice])
    if isinstance(space, spaces.Discrete):
        return np.int64(value)
    flat = action.reshape(-1).copy()
    flat[choice] = value
    return flat.reshape(action.shape)


def _ranges(values: list[int]) -> str:
    """Write integers, runs of three and more as first..last."""
    parts: list[str] = []
    i = 0
    while i < len(values):
        j = i
        while j + 1 < len(values) and values[j + 1] == values[j] + 1:
            j += 1
        parts += [f"{values[i]}..{values[j]}"] if j - i >= 2 else [str(v) for v in values[i : j + 1]]
        i = j + 1
    return ", ".join(parts)


def _bounds(space: spaces.Box) -> str:
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    if len(set(low.tolist())) == 1 and len(set(high.tolist())) == 1:
        return f"from {number(low[0])} to {number(high[0])}"
    return "from " + ", ".join(f"{number(a)}..{number(b)}" for a, b in zip(low[:MAX_NUMBERS], high[:MAX_NUMBERS]))


def read_numbers(text: str) -> list[float]:
    """Return the numbers of an answer: those behind the last `action:`, or all of them where there is no such word."""
    marks = list(_ANSWER.finditer(text))
    return [float(match) for match in _NUMBER.findall(text[marks[-1].end() :] if marks else text)]


def read_action(space: spaces.Space[Any], text: str) -> Any:
    """Read an action: `3`, `action: 3`, `[0.5, -1.2]`, `I take 3`.

    Numbers beyond the bounds of a `Box` are moved to the bound.

    Args:
        space: the space of the actions: Discrete, Box, MultiDiscrete or MultiBinary.
        text: the answer.

    Returns:
        An element of `space`.

    Raises:
        UnreadableAction: the text does not hold exactly the numbers of one action.
    """
    found = read_numbers(text)
    count = 1 if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or (1,)))
    if len(found) != count:
        raise UnreadableAction(f"an action has {count} number{'s' * (count != 1)}, the answer has {len(found)}")
    if not all(map(math.isfinite, found)):
        raise UnreadableAction("a number of the answer is too large")
    if isinstance(space, spaces.Box):
        return np.clip(np.array(found).reshape(space.shape), space.low, space.high).astype(space.dtype)
    if not all(value.is_integer() for value in found):
        raise UnreadableAction(f"the action is an integer, the answer says {number(found[0])}")
    if isinstance(space, spaces.Discrete):
        action: Any = np.int64(found[0]) if abs(found[0]) < 2**62 else None
        legal = action is not None and space.contains(action)
    else:
        small = all(abs(value) < 2**31 for value in found)
        action = np.array(found).reshape(space.shape).astype(space.dtype) if small else None
        legal = small and np.array_equal(action.reshape(-1), found) and space.contains(action)
    if not legal:
        raise UnreadableAction(f"{' '.join(map(number, found))} is no action ({describe_actions(space, None)})")
    return action


def default_action(space: spaces.Space[Any]) -> Any:
    """Return the action that stands for an unreadable one: the first, or the one nearest to zero."""
    if isinstance(space, spaces.Discrete):
        return np.int64(space.start)
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape), space.low, space.high).astype(space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.astype(space.dtype)
    return np.zeros(space.shape or (1,), dtype=space.dtype)
