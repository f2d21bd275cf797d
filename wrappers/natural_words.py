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


def _split(observation: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the features [R, F] float64 and the open rows, and where a route stands and must end (empty without one)."""
    nodes, kind = np.asarray(observation["nodes"], dtype=np.float64), np.asarray(observation["kind"])
    here = np.flatnonzero(kind == _ORIGIN)
    # in the formulation with all nodes, the route starts where it must end
    home = np.flatnonzero(kind == _DESTINATION)
    return nodes, np.flatnonzero(kind == _OPEN), here, home if len(home) else here


def _shortened(lines: list[str], what: str) -> str:
    """Join the first lines and say how many are left out."""
    more = [f"({len(lines) - _NEAREST} more, {what})"] if len(lines) > _NEAREST else []
    return "\n".join(lines[:_NEAREST] + more)


def _hundredths(offset: np.ndarray) -> str:
    x, y = np.rint(100.0 * offset).astype(int)
    return f"{x:+d} {y:+d}"


def _allowed(info: dict[str, Any], count: int) -> np.ndarray:
    mask = info.get("action_mask")
    return np.ones(count, bool) if mask is None else np.asarray(mask, dtype=bool)


def describe_atsp(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the open nodes by the distance there, each as `row: there, then home`, in hundredths of the largest."""
    nodes, rows, _, _ = _split(observation)
    if not len(rows):
        return "The tour is complete."
    rows = rows[np.argsort(nodes[rows, 0], kind="stable")]
    lines = [f"{row}: {100 * nodes[row, 0]:.0f}, from there home {100 * nodes[row, 1]:.0f}" for row in rows]
    return f"{len(rows)} cities left. Distances, nearest first:\n{_shortened(lines, 'farther away')}\nGo to:"


def describe_cvrp(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the open customers by their distance, each as `action: dx dy, demand`, with the action that goes there.

    Offsets are hundredths of the square's side, demands percent of the capacity. Where a customer can be reached both
    ways, the action by the depot follows.
    """
    nodes, rows, here, home = _split(observation)
    if not len(rows):
        return "All customers are served."
    at, allowed = nodes[here[0]], _allowed(info, 2 * len(nodes))
    rows = rows[np.argsort(np.linalg.norm(nodes[rows, :2] - at[:2], axis=1), kind="stable")]
    lines = []
    for row in rows:
        ways = [f"{2 * row}"] if allowed[2 * row] else []
        ways.append(f"by the depot {2 * row + 1}")
        lines.append(f"{', '.join(ways)}: {_hundredths(nodes[row, :2] - at[:2])}, demand {100 * nodes[row, 2]:.0f}")
    left = 100 * float(np.asarray(observation["globals"])[1])
    return (
        f"{len(rows)} customers left, load left {left:.0f} of 100, depot at {_hundredths(nodes[home[0], :2] - at[:2])}. "
        f"Nearest first:\n{_shortened(lines, 'farther away')}\nGo to:"
    )


def describe_op(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the nodes within reach by their prize, each as `row: dx dy, prize`, in hundredths."""
    nodes, _, here, home = _split(observation)
    allowed, kind = _allowed(info, len(nodes)), np.asarray(observation["kind"])
    rows = np.flatnonzero(allowed & (kind == _OPEN))
    if not len(rows):
        return "Nothing is within reach any more."
    at = nodes[here[0]]
    rows = rows[np.argsort(-nodes[rows, 2], kind="stable")]
    lines = [f"{row}: {_hundredths(nodes[row, :2] - at[:2])}, prize {100 * nodes[row, 2]:.0f}" for row in rows]
    left = 100 * float(np.asarray(observation["globals"])[1])
    return (
        f"Length left {left:.0f}, home at {_hundredths(nodes[home[0], :2] - at[:2])}. {len(rows)} places within reach, "
        f"highest prize first:\n{_shortened(lines, 'worth less')}\nGo to:"
    )


def describe_knapsack(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the items that fit by their value for weight, each as `row: value, weight`, in hundredths."""
    nodes, _, _, _ = _split(observation)
    allowed, kind = _allowed(info, len(nodes)), np.asarray(observation["kind"])
    rows = np.flatnonzero(allowed & (kind == _OPEN))
    if not len(rows):
        return "Nothing fits any more."
    rows = rows[np.argsort(-nodes[rows, 0] / np.maximum(nodes[rows, 1], 1e-9), kind="stable")]
    lines = [f"{row}: value {100 * nodes[row, 0]:.0f}, weight {100 * nodes[row, 1]:.0f}" for row in rows]
    left = 100 * float(np.asarray(observation["globals"])[1])
    return (
        f"Capacity left {left:.0f}. {len(rows)} items fit, most value for weight first:\n"
        f"{_shortened(lines, 'worth less')}\nPack:"
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
NATURAL: dict[str, Describe] = {
    "TSP": describe_tsp,
    "ATSP": describe_atsp,
    "CVRP": describe_cvrp,
    "OP": describe_op,
    "Knapsack": describe_knapsack,
    "Pendulum": describe_pendulum,
}


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
