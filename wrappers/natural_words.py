"""Tasks in words of their own, where plain rows of numbers would be hard to read."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.control.swing_up import swing_up
from polyathlon.envs.errors import UsageError

from .action_kinds import task_name
from .words import Describe, Parse

_NEAREST = 10
_ORIGIN, _DESTINATION, _OPEN = 1, 2, 3


def _around(observation: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
    """Return the nodes, their kinds, the node where one stands, and the ways from there to all and home, in hundredths."""
    nodes, kind = np.asarray(observation["nodes"], dtype=np.float64), np.asarray(observation["kind"])
    here = nodes[np.flatnonzero(kind == _ORIGIN)[0]]
    ends = np.flatnonzero(kind == _DESTINATION)
    offset = np.rint(100.0 * (nodes - here)).astype(int)
    return nodes, kind, here, offset, offset[ends[0]] if len(ends) else np.zeros(2, int)


def describe_tsp(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the open points of a travelling salesman problem by their distance from the current one.

    Each is written as `row: dx dy`, in hundredths of the square's side; the row is the action that goes there.
    """
    nodes, kind, here, offset, home = _around(observation)
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


def _allowed_rows(observation: dict[str, Any], info: dict[str, Any]) -> Any:
    """Return the open rows that may be chosen, by the mask where there is one action a row."""
    kind = np.asarray(observation["kind"])
    is_open = kind == _OPEN
    mask = info.get("action_mask")
    if mask is not None and len(mask) == len(kind):
        is_open &= np.asarray(mask, dtype=bool)
    return np.flatnonzero(is_open)


def _listed(rows: Any, lines: list[str], what: str) -> str:
    """Join the first lines of a list, and say how many more there are."""
    more = [f"({len(rows) - _NEAREST} more, {what})"] if len(rows) > _NEAREST else []
    return "\n".join([*lines, *more])


def describe_tsp_briefly(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the three nearest open points of a travelling salesman problem, the nearest last, each as `+dx+dy row` in hundredths."""
    nodes, kind, here, offset, _ = _around(observation)
    rows = np.flatnonzero(kind == _OPEN)
    rows = rows[np.argsort(np.linalg.norm(nodes[rows] - here, axis=1), kind="stable")]
    return "; ".join(f"{offset[row][0]:+d}{offset[row][1]:+d} {row}" for row in rows[2::-1]) or "done"


def describe_atsp(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the open nodes of a tour with one-way distances, nearest first, in hundredths of the largest distance.

    Each is written as `row: there home`: how far it is to go there, and from there to where the tour ends.
    """
    nodes = np.asarray(observation["nodes"], dtype=np.float64)
    rows = _allowed_rows(observation, info)
    if not len(rows):
        return "The tour is complete."
    rows = rows[np.argsort(nodes[rows, 0], kind="stable")]
    hundredths = np.rint(100.0 * nodes).astype(int)
    lines = [f"{row}: {hundredths[row, 0]} {hundredths[row, 1]}" for row in rows[:_NEAREST]]
    return f"{len(rows)} nodes left. Way there, way home from there, nearest first:\n{_listed(rows, lines, 'farther away')}\nGo to:"


def describe_cvrp(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the open customers by their distance, with their demands and what is left in the vehicle, in per cent.

    Each is written as `straight/by the depot: dx dy demand`; the two numbers are the actions that go there.
    """
    nodes, kind, here, offset, home = _around(observation)
    rows = np.flatnonzero(kind == _OPEN)
    if not len(rows):
        return "All customers are served."
    rows = rows[np.argsort(np.linalg.norm(nodes[rows, :2] - here[:2], axis=1), kind="stable")]
    left = float(np.asarray(observation["globals"])[1])
    lines, mask = [], info.get("action_mask")
    for row in rows[:_NEAREST]:
        # the mask rounds as the task does
        fits = bool(mask[2 * row]) if mask is not None else nodes[row, 2] <= left + 1e-6
        straight = str(2 * row) if fits else "-"
        demand = f"{100.0 * nodes[row, 2]:.0f}%"
        lines.append(f"{straight}/{2 * row + 1}: {offset[row][0]:+d} {offset[row][1]:+d} {demand}")
    return (
        f"{len(rows)} customers left, {100.0 * left:.0f}% of the vehicle free, depot at {home[0]:+d} {home[1]:+d}. "
        f"Straight/by the depot, nearest first:\n{_listed(rows, lines, 'farther away')}\nGo to:"
    )


def describe_op(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the nodes within reach by their distance, with their prizes, and the length that is left, in hundredths.

    Each is written as `row: dx dy prize`.
    """
    nodes, _, here, offset, home = _around(observation)
    rows = _allowed_rows(observation, info)
    if not len(rows):
        return "Nothing is within reach."
    rows = rows[np.argsort(np.linalg.norm(nodes[rows, :2] - here[:2], axis=1), kind="stable")]
    left = 100.0 * float(np.asarray(observation["globals"])[1])
    lines = [f"{row}: {offset[row][0]:+d} {offset[row][1]:+d} {100.0 * nodes[row, 2]:.0f}" for row in rows[:_NEAREST]]
    return (
        f"{len(rows)} nodes within reach, {left:.0f} to go, home at {home[0]:+d} {home[1]:+d}. Way and prize, nearest first:\n"
        f"{_listed(rows, lines, 'farther away')}\nGo to:"
    )


def describe_knapsack(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """List the items that fit, the most valuable for their weight first, in hundredths; each is `row: value weight`."""
    nodes = np.asarray(observation["nodes"], dtype=np.float64)
    rows = _allowed_rows(observation, info)
    if not len(rows):
        return "Nothing fits any more."
    worth = nodes[rows, 0] / np.maximum(nodes[rows, 1], 1e-9)
    rows = rows[np.argsort(-worth, kind="stable")]
    hundredths = np.rint(100.0 * nodes).astype(int)
    left = 100.0 * float(np.asarray(observation["globals"])[1])
    lines = [f"{row}: {hundredths[row, 0]} {hundredths[row, 1]}" for row in rows[:_NEAREST]]
    listed = _listed(rows, lines, "worth less for their weight")
    return f"{len(rows)} items fit into {left:.0f}. Value and weight, best first:\n{listed}\nPack:"


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


def describe_pendulum_briefly(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Write the angle from upright in degrees, left positive, and the speed in tenths of rad/s: `-123 +45`."""
    cosine, sine, speed = (float(x) for x in np.asarray(observation).reshape(-1))
    return f"{math.degrees(math.atan2(sine, cosine)):+.0f} {10 * speed:+.0f}"


def solve_pendulum(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Return the torque of the scripted player as a whole number, which swings the pendulum up as well."""
    return str(round(swing_up(np.asarray(observation).reshape(-1))))


def describe_nethack(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Tell the message, the most important numbers and the nearest things, whatever the observation shows."""
    from polyathlon.envs.nethack.words_task import tell

    return tell(env.unwrapped)  # type: ignore[arg-type]


def parse_nethack(text: str, info: dict[str, Any], env: gym.Env[Any, Any]) -> Any:
    """Read a command of NetHack by its word or key."""
    from polyathlon.envs.nethack.words import command_key

    keys = env.unwrapped.keys  # type: ignore[attr-defined]
    return np.int64(keys.index(command_key(text, keys)))


def describe_widgets(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Write the goal of the synthetic page and its elements, as `polyathlon/Web-v0` writes real pages."""
    from polyathlon.envs.gui import widget_words

    return widget_words.describe_widgets(observation, info, env)


def parse_widgets(text: str, info: dict[str, Any], env: gym.Env[Any, Any]) -> Any:
    """Read a call such as click(3)."""
    from polyathlon.envs.gui import widget_words

    return widget_words.parse_widgets(text, info, env)


def solve_widgets(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Return a right call on the synthetic page."""
    from polyathlon.envs.gui import widget_words

    return widget_words.solution(observation, info, env)


def describe_werewolf(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Tell what the seat knows of the game, and the numbered actions."""
    from polyathlon.envs.werewolf.seat_words import describe_seat

    return describe_seat(env.unwrapped.task.layout, observation, info["action_mask"])  # type: ignore[attr-defined]


def describe_werewolf_briefly(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Write the same in some sixty characters a turn."""
    from polyathlon.envs.werewolf.seat_words import describe_seat_briefly

    return describe_seat_briefly(env.unwrapped.task.layout, observation, info["action_mask"])  # type: ignore[attr-defined]


def solve_werewolf(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Return what the scripted player does in the seat's place."""
    from .demonstrators import WerewolfHeuristic

    return str(int(WerewolfHeuristic()(env, observation, info)))


def nearest_open(observation: dict[str, Any], info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Return the nearest open point of a tour, which the description lists first: a good first answer, seldom the best."""
    nodes, _, here, _, _ = _around(observation)
    rows = _allowed_rows(observation, info)
    return str(int(rows[np.linalg.norm(nodes[rows, :2] - here[:2], axis=1).argmin()]))


# the name of an id, without namespace and version
NATURAL: dict[str, Describe] = {
    "TSP": describe_tsp,
    "ATSP": describe_atsp,
    "CVRP": describe_cvrp,
    "OP": describe_op,
    "Knapsack": describe_knapsack,
    "Pendulum": describe_pendulum,
    "NetHack": describe_nethack,
    "Widgets": describe_widgets,
    "Werewolf": describe_werewolf,
}
# the same in few characters
BRIEF: dict[str, Describe] = {
    "TSP": describe_tsp_briefly,
    "Pendulum": describe_pendulum_briefly,
    "Werewolf": describe_werewolf_briefly,
}
# tasks whose actions have words of their own
PARSERS: dict[str, Parse] = {"NetHack": parse_nethack, "Widgets": parse_widgets}
# tasks that know a right first answer, or a good one
SOLUTIONS: dict[str, Describe] = {
    "Widgets": solve_widgets,
    "TSP": nearest_open,
    "Pendulum": solve_pendulum,
    "Werewolf": solve_werewolf,
}


def natural_description(env: gym.Env[Any, Any], brief: bool = False) -> Describe | None:
    """Return the description written for a task, found by the name in its id.

    None when there is none, or when a wrapper changes what is observed or the kind of the actions.

    Args:
        env: the task.
        brief: the short one.

    Raises:
        UsageError: there is no short one.
    """
    name = _natural_name(env)
    if brief and name not in BRIEF:
        raise UsageError(
            f"{env} has no short description, only {', '.join(BRIEF)} have: leave brief out, or give describe="
        )
    return None if name is None else (BRIEF if brief else NATURAL).get(name)


def natural_parser(env: gym.Env[Any, Any]) -> Parse | None:
    """Return what reads the actions of a task from words, where these have words of their own; found as its description is."""
    name = _natural_name(env)
    return None if name is None else PARSERS.get(name)


def natural_solution(env: gym.Env[Any, Any]) -> Describe | None:
    """Return what knows the right first answer of a task; found as its description is."""
    name = _natural_name(env)
    return None if name is None else SOLUTIONS.get(name)


def _natural_name(env: gym.Env[Any, Any]) -> str | None:
    bare = env.unwrapped
    if env.observation_space != bare.observation_space or type(env.action_space) is not type(bare.action_space):
        return None
    return task_name(env)
