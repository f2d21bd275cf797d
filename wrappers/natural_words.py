"""Tasks in words of their own, where plain rows of numbers would be hard to read."""

from __future__ import annotations

import math
import re
from typing import Any

import gymnasium as gym
import numpy as np

from .words import Describe

_NEAREST = 10
_ORIGIN, _DESTINATION, _OPEN = 1, 2, 3


def describe_tsp(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the open points of a travelling salesman problem by their distance from the current one.

    Each is written as `row: dx dy`, in hundredths of the square's side; the row is the action that goes there.
    """
    nodes, kind = np.asarray(observation["nodes"], dtype=np.float64), np.asarray(observation["kind"])
    here = nodes[np.flatnonzero(kind == _ORIGIN)[0]]
    ends = np.flatnonzero(kind == _DESTINATION)
    offset = np.rint(100.0 * (nodes - here)).astype(int)
    home = offset[ends[0]] if len(ends) else np.zeros(2, int)
    rows = np.flatnonzero(kind == _OPEN)
    if not len(rows):
        return "The tour is complete."
    rows = rows[np.argsort(np.linalg.norm(nodes[rows] - here, axis=1), kind="stable")]
    lines = [f"{row}: {offset[row][0]:+d} {offset[row][1]:+d}" for row in rows[:_NEAREST]]
    if len(rows) > _NEAREST:
        lines.append(f"({len(rows) - _NEAREST} more, farther away)")
    return (
        f"{len(rows)} cities left, home at {home[0]:+d} {home[1]:+d}. Nearest first:\n" + "\n".join(lines) + "\nGo to:"
    )


def describe_pendulum(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Say where the pendulum stands, how it turns, and what may be answered."""
    cosine, sine, speed = (float(x) for x in np.asarray(observation).reshape(-1))
    angle = math.degrees(math.atan2(sine, cosine))
    stands = (
        "upright" if abs(angle) < 0.5 else f"{abs(angle):.0f} degrees {'left' if angle > 0 else 'right'} of upright"
    )
    turns = (
        "does not turn" if abs(speed) < 0.005 else f"turns {'left' if speed > 0 else 'right'} at {abs(speed):.2f} rad/s"
    )
    limit = float(np.max(env.action_space.high))  # type: ignore[attr-defined]
    return f"The pendulum is {stands} and {turns}.\nTorque from {-limit:g} (right) to {limit:g} (left):"


# the name of an id, without namespace and version
NATURAL: dict[str, Describe] = {"TSP": describe_tsp, "Pendulum": describe_pendulum}


def natural_description(env: gym.Env[Any, Any]) -> Describe | None:
    """Return the description written for a task, found by the name in its id.

    None when there is none, or when a wrapper changes what is observed or the kind of the actions.
    """
    bare = env.unwrapped
    if env.observation_space != bare.observation_space or type(env.action_space) is not type(bare.action_space):
        return None
    match = re.fullmatch(r"(?:.*/)?(\w+?)(?:-v\d+)?", env.spec.id) if env.spec is not None else None
    name = match[1] if match else type(getattr(bare, "task", bare)).__name__
    return NATURAL.get(name)
