"""Who demonstrates a task: its solver, its reference answers, its oracle or its scripted player, in the actions of the agent that watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError
from polyathlon.envs.language import LanguageTask

from .action_kinds import task_name
from .candidate_action import CandidateAction
from .continuous_action import ContinuousAction

# of one episode: (bare environment, its observation, its info) -> action of the bare environment
Player = Callable[[Any, Any, dict[str, Any]], Any]


def swing_up(env: Any, observation: Any, info: dict[str, Any]) -> Any:
    """Swing the pendulum up and balance it."""
    from polyathlon.envs.control.swing_up import swing_up as torque

    return np.array([torque(observation)], np.float32)


def widget_oracle(env: Any, observation: Any, info: dict[str, Any]) -> Any:
    """Act by the inner state of the synthetic page."""
    bare = env.unwrapped
    return np.int64(int(bare.task.solve(bare.state)[0]))


def reference_answer(env: Any, observation: Any, info: dict[str, Any]) -> str:
    """Give the right answer to what a text task says now.

    Raises:
        UsageError: none is known.
    """
    answer = env.unwrapped.current_solution()
    if answer is None:
        raise UsageError(f"{env.unwrapped} knows no right answer to demonstrate here: give a dataset, or none")
    return str(answer)


class Tour:
    """Visits the cities in the order that the usual solver finds, or two_opt where it is not installed."""

    def __init__(self) -> None:
        self._left: list[Any] | None = None

    def __call__(self, env: Any, observation: Any, info: dict[str, Any]) -> Any:
        """Return the row of the next city."""
        from polyathlon.envs.combinatorial.node_kinds import OPEN, ORIGIN

        kind, nodes = np.asarray(observation["kind"]), np.asarray(observation["nodes"], float)
        rows = np.flatnonzero(kind == OPEN)
        if self._left is None:
            xy = np.concatenate([nodes[kind == ORIGIN], nodes[rows]])
            order = _shortest_tour(xy)
            first = order.index(0)
            self._left = [xy[i] for i in order[first + 1 :] + order[:first]]
        city = self._left.pop(0)
        return np.int64(rows[np.linalg.norm(nodes[rows] - city, axis=1).argmin()])


def _shortest_tour(xy: Any) -> list[int]:
    from polyathlon.envs.combinatorial.solvers import solver_named

    for name in (None, "two_opt"):
        try:
            return [int(i) for i in solver_named("tsp", name)[1]({"xy": xy})]
        except ImportError:
            continue
    raise ImportError("no solver of tours is installed")


class WerewolfHeuristic:
    """The scripted player of Werewolf in the agent's seat; its noise is a function of the turn."""

    def __init__(self) -> None:
        self._player: Any = None
        self._turn = 0

    def __call__(self, env: Any, observation: Any, info: dict[str, Any]) -> Any:
        """Return its choice."""
        import torch

        from polyathlon.envs.random import make_keys
        from polyathlon.envs.werewolf.players import Heuristic

        if self._player is None:
            self._player = Heuristic(env.unwrapped.task)
        key = make_keys(torch.tensor([0]), torch.tensor([self._turn]))
        self._turn += 1
        zero = torch.zeros(1, dtype=torch.int64)
        seen = torch.as_tensor(observation)[None]
        mask = torch.as_tensor(np.asarray(info["action_mask"]))[None]
        return np.int64(int(self._player(seen, mask, zero, zero, key)[0]))


class NetHackExplorer:
    """The scripted explorer of NetHack; it reads the map, whatever the agent observes."""

    def __init__(self) -> None:
        self._explorer: Any = None

    def __call__(self, env: Any, observation: Any, info: dict[str, Any]) -> Any:
        """Return the number of the key that it presses."""
        from polyathlon.envs.nethack.explorer import Explorer

        game = env.unwrapped
        if self._explorer is None:
            self._explorer = Explorer(game.keys)
        shown = game.views()
        if "glyphs" not in shown:
            raise UsageError("the scripted explorer of NetHack reads the map: add glyphs to observation=")
        return np.int64(game.keys.index(self._explorer.act(shown["glyphs"], shown["blstats"])))


# by the name of the task: who makes a player for an episode, and what the player is
DEMONSTRATORS: dict[str, tuple[Callable[[], Player], str]] = {
    "Pendulum": (lambda: swing_up, "a scripted controller: energy pumping, then linear feedback"),
    "TSP": (Tour, "the usual solver of tours"),
    "Widgets": (lambda: widget_oracle, "the page's oracle"),
    "Werewolf": (WerewolfHeuristic, "the scripted player"),
    "NetHack": (NetHackExplorer, "a scripted explorer"),
}
ANSWERS = "the task's reference answers"


def demonstrator(env: gym.Env[Any, Any]) -> Player:
    """Return a player for one episode of a task.

    Raises:
        UsageError: nobody is known who can play it.
    """
    if isinstance(env.unwrapped, LanguageTask):
        return reference_answer
    name = task_name(env)
    if name in DEMONSTRATORS:
        return DEMONSTRATORS[name][0]()
    raise UsageError(
        f"nobody is known who demonstrates {name}: there are players for {', '.join(DEMONSTRATORS)} and for text tasks with "
        "reference answers. Give a dataset of your own (polyathlon.datasets.record), or none"
    )


def demonstrator_words(env: gym.Env[Any, Any]) -> str:
    """Say in words who `demonstrator` is."""
    return ANSWERS if isinstance(env.unwrapped, LanguageTask) else DEMONSTRATORS[task_name(env)][1]


def action_through(env: gym.Env[Any, Any], action: Any) -> Any:
    """Return the action of a wrapped environment that means `action` of the task, where it stands now.

    Args:
        env: the environment with its wrappers.
        action: an action of the bare task.

    Raises:
        UsageError: a wrapper changes actions in a way that has no inverse, or does not offer this one.
    """
    chain = []
    inner: Any = env
    while isinstance(inner, gym.Wrapper):
        chain.append(inner)
        inner = inner.env
    for wrapper in reversed(chain):
        if isinstance(wrapper, ContinuousAction):
            action = np.clip(wrapper.point_of(action), -1.0, 1.0)
        elif isinstance(wrapper, CandidateAction):
            action = np.int64(wrapper.number_of(action))
        elif wrapper.action_space != wrapper.env.action_space:
            raise UsageError(
                f"{type(wrapper).__name__} changes the actions, and a demonstration cannot be put into its form: demonstrations are for "
                "agents that act in numbers, as expo does"
            )
    return action
