"""The best known play of each family, on the same episodes as the agents': solvers, reference answers, scripted players."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from _claim import REPOSITORY
from _matrix_cells import FAMILIES, Family
from _matrix_run import EVALUATION_SEED

CACHE = REPOSITORY / ".cache" / "reproduce" / "matrix" / "best.json"
Player = Callable[[Any, Any, dict[str, Any]], Any]  # (environment, observation, info) -> action


def swing_up(env: Any, observation: Any, info: dict[str, Any]) -> Any:
    """Pump energy into Gymnasium's pendulum until it is nearly upright, then balance it.

    With m = l = 1, g = 10 and the energy E = w^2 / 6 + 5 (cos - 1), 0 upright at rest: torque k w (0 - E) below, a linear
    feedback -(k1 angle + k2 w) above (Astrom and Furuta 2000, "Swinging up a pendulum by energy control").
    """
    cosine, sine, speed = (float(x) for x in observation)
    angle = math.atan2(sine, cosine)
    if cosine > 0.85:
        torque = -(16.0 * angle + 4.0 * speed)
    else:
        energy = speed * speed / 6.0 + 5.0 * (cosine - 1.0)
        torque = -math.copysign(2.0, energy * speed) if abs(speed) > 1e-3 else 2.0
    return np.array([min(max(torque, -2.0), 2.0)], np.float32)


def reference_answer(env: Any, observation: Any, info: dict[str, Any]) -> Any:
    """Give the task's own right answer; of a dialogue the next one."""
    task = env.unwrapped
    if hasattr(task, "solution_messages"):
        said = [one for one in info["messages"] if one["role"] == "assistant"]
        answers = task.solution_messages(info["task"])
        return answers[min(len(said), len(answers) - 1)]
    return task.solution(info["task"])


def widget_oracle(env: Any, observation: Any, info: dict[str, Any]) -> Any:
    """Act by the page's inner state."""
    bare = env.unwrapped
    return np.int64(int(bare.task.solve(bare.state)[0]))


def shortest_tour(observation: Any) -> float:
    """Return minus the length of the tour that the solver finds from a first observation of TSP."""
    from polyathlon.envs.combinatorial.node_kinds import OPEN, ORIGIN
    from polyathlon.envs.combinatorial.solutions import solution_cost
    from polyathlon.envs.combinatorial.solvers import solver_named

    kind, nodes = np.asarray(observation["kind"]), np.asarray(observation["nodes"], float)
    xy = np.concatenate([nodes[kind == ORIGIN], nodes[kind == OPEN]])
    for name in (None, "two_opt"):
        try:
            tour = solver_named("tsp", name)[1]({"xy": xy})
        except ImportError:
            continue
        return -float(solution_cost("tsp", {"xy": xy}, tour))
    raise ImportError("no solver of tours is installed")


def scripted_werewolf() -> Player:
    """Return the scripted player of Werewolf in the agent's seat."""
    import torch

    from polyathlon.envs.random import make_keys
    from polyathlon.envs.werewolf.players import Heuristic

    made: dict[int, Heuristic] = {}
    turn = iter(range(1_000_000))

    def act(env: Any, observation: Any, info: dict[str, Any]) -> Any:
        player = made.setdefault(id(env), Heuristic(env.unwrapped.task))
        key = make_keys(torch.tensor([EVALUATION_SEED]), torch.tensor([next(turn)]))
        zero = torch.zeros(1, dtype=torch.int64)
        seen, mask = torch.as_tensor(observation)[None], torch.as_tensor(np.asarray(info["action_mask"]))[None]
        return np.int64(int(player(seen, mask, zero, zero, key)[0]))

    return act


PLAYERS: dict[str, Callable[[], Player]] = {
    "swing-up and balance": lambda: swing_up,
    "solution": lambda: reference_answer,
    "oracle": lambda: widget_oracle,
    "scripted player": scripted_werewolf,
}
WORDS = {
    "swing-up and balance": "a scripted controller: energy pumping, then linear feedback",
    "solution": "the task's reference answers",
    "oracle": "the page's oracle",
    "scripted player": "the scripted player",
    "solver": "the usual solver of tours",
    "none": "no player is known",
}


def _measured(family: Family) -> float:
    import gymnasium as gym

    env = gym.make(family.env, **family.options)
    try:
        if family.best == "solver":
            starts = [env.reset(seed=EVALUATION_SEED + i)[0] for i in range(family.episodes)]
            return float(np.mean([shortest_tour(start) for start in starts]))
        player = PLAYERS[family.best]()
        return float(np.mean([_play(env, player, EVALUATION_SEED + i) for i in range(min(family.episodes, 60))]))
    finally:
        env.close()


def _play(env: Any, player: Player, seed: int) -> float:
    observation, info = env.reset(seed=seed)
    told, total, over = dict(info), 0.0, False
    while not over:
        observation, reward, terminated, truncated, info = env.step(player(env, observation, told))
        told, total, over = {**told, **info}, total + float(reward), terminated or truncated
    return total


def best_known(families: Iterable[str]) -> dict[str, tuple[float, str]]:
    """Return the mean return of the best known play of families and who plays it; measured once and kept.

    A family whose extra is not installed is left out.
    """
    kept = json.loads(CACHE.read_text()) if CACHE.exists() else {}
    found = {}
    for name in sorted(families):
        family = FAMILIES[name]
        key = f"{name} {family.env} {json.dumps(dict(family.options), sort_keys=True)} {family.episodes} {family.best}"
        if family.best == "none":
            found[name] = (float("nan"), WORDS["none"])
            continue
        if key not in kept:
            try:
                kept[key] = _measured(family)
            except ImportError:
                continue
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            CACHE.write_text(json.dumps(kept, indent=1))
        found[name] = (kept[key], WORDS[family.best])
    return found
