"""Solutions and actions in the conventions of other suites, and as actions of our tables.

A solution is [B, L] int64 as `info["solution"]` has it at the end, -1 behind it. Other suites number nodes as we do, a
depot being 0, and differ in what counts as an action:

| | TSP, ATSP | CVRP | OP | Knapsack |
|---|---|---|---|---|
| ours | starts at 0, which is not chosen | (node, straight or by the depot) | the way home is implied | item |
| RL4CO, AM | every node, any first | a visit of the depot is an action, the last one too | 0 ends the tour | - |
| Jumanji | every node, any first | as RL4CO | - | item |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.trees import where

from .construction import ConstructionTask, State
from .pictures import split_routes
from .solutions import problem_named
from .solvers import padded


def _rows(actions: Any) -> list[list[int]]:
    """Return a batch [B, L] (or one [L]) as lists without what is behind the end."""
    array = np.atleast_2d(np.asarray(actions.cpu() if isinstance(actions, Tensor) else actions, dtype=np.int64))
    return [[int(node) for node in row if node >= 0] for row in array]


def _from_zero(tour: list[int]) -> list[int]:
    if 0 not in tour:
        raise UsageError(f"a tour visits node 0 too, got {tour[:16]}")
    start = tour.index(0)
    return tour[start:] + tour[:start]


def _walk(actions: list[int]) -> list[int]:
    """Write the walk of a vehicle with one 0 at every visit of the depot, at its start and at its end."""
    return [0] + [node for route in split_routes(actions) for node in (*route, 0)]


def to_rl4co(problem: str, solution: Any) -> np.ndarray:
    """Turn solutions into RL4CO's actions.

    Args:
        problem: "tsp", "atsp", "cvrp" or "op".
        solution: [B, L] complete solutions, -1 behind the end.

    Returns:
        [B, T] int64; where a row ends before others, the depot follows, as RL4CO has it.

    Raises:
        UsageError: RL4CO does not have the problem.
    """
    problem, rows = problem_named(problem), _rows(solution)
    if problem == "knapsack":
        raise UsageError("RL4CO has no knapsack problem to convert to; its actions there would be the items themselves")
    if problem == "cvrp":
        rows = [_walk(row)[1:] for row in rows]
    elif problem == "op":
        rows = [[*(node for node in row if node), 0] for row in rows]
    return np.maximum(padded(rows), 0)


def from_rl4co(problem: str, actions: Any) -> np.ndarray:
    """Turn RL4CO's actions, [B, T], into solutions, [B, L]; see `to_rl4co`.

    Raises:
        UsageError: RL4CO does not have the problem, or a tour lacks node 0.
    """
    problem, rows = problem_named(problem), _rows(actions)
    if problem == "knapsack":
        raise UsageError("RL4CO has no knapsack problem to convert from")
    if problem == "cvrp":
        return padded([_walk(row) for row in rows])
    if problem == "op":
        return padded([[0, *(node for node in row if node)] for row in rows])
    return padded([_from_zero(row) for row in rows])


def to_jumanji(problem: str, solution: Any) -> np.ndarray:
    """Turn solutions into Jumanji's actions.

    Args:
        problem: "tsp", "cvrp" or "knapsack".
        solution: [B, L] complete solutions, -1 behind the end.

    Returns:
        [B, T] int64, -1 behind the end.

    Raises:
        UsageError: Jumanji does not have the problem.
    """
    problem, rows = problem_named(problem), _rows(solution)
    if problem in ("atsp", "op"):
        raise UsageError(f"Jumanji has no {problem} to convert to; it has tsp, cvrp and knapsack")
    return padded([_walk(row)[1:] for row in rows] if problem == "cvrp" else rows)


def from_jumanji(problem: str, actions: Any) -> np.ndarray:
    """Turn Jumanji's actions, [B, T] with -1 behind the end, into solutions, [B, L]; see `to_jumanji`.

    Raises:
        UsageError: Jumanji does not have the problem, or a tour lacks node 0.
    """
    problem, rows = problem_named(problem), _rows(actions)
    if problem in ("atsp", "op"):
        raise UsageError(f"Jumanji has no {problem} to convert from; it has tsp, cvrp and knapsack")
    if problem == "cvrp":
        return padded([_walk(row) for row in rows])
    return padded([_from_zero(row) for row in rows]) if problem == "tsp" else padded(rows)


def choices_of(problem: str, solution: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes that are chosen one after the other in our tasks, and whether by the depot.

    Args:
        problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
        solution: [B, L] complete solutions, -1 behind the end.

    Returns:
        Nodes [B, T] int64, -1 behind the end, and [B, T] int64, 1 where the depot lies between (CVRP alone).
    """
    problem, rows = problem_named(problem), _rows(solution)
    if problem != "cvrp":
        nodes = padded(rows if problem == "knapsack" else [row[1:] for row in rows])
        return nodes, np.zeros_like(nodes)
    routes = [split_routes(row) for row in rows]
    nodes = padded([[node for route in row for node in route] for row in routes])
    via = padded([[int(k == 0 and r > 0) for r, route in enumerate(row) for k in range(len(route))] for row in routes])
    return nodes, np.maximum(via, 0)


def play_solution(task: ConstructionTask, state: State, solution: Any) -> tuple[State, Tensor, Tensor]:
    """Build solutions in a task, of either formulation.

    Args:
        task: the task.
        state: where the rows stand, at their start.
        solution: [B, L] complete solutions, -1 behind the end.

    Returns:
        The state at the end, the actions [B, T] int64, -1 behind the end, and the rewards [B, T] float32.

    Raises:
        UsageError: there is not one solution for each row, or a choice is not allowed; the message names it.
    """
    nodes, via = (torch.as_tensor(part, device=task.device) for part in choices_of(type(task).__name__, solution))
    if len(nodes) != len(state.t):
        raise UsageError(f"one solution for each of {len(state.t)} rows is needed, got {len(nodes)}")
    if bool((nodes >= task.num_points).any()):
        raise UsageError(f"nodes are numbers from 0 to {task.num_points - 1}, got {int(nodes.max())}")
    actions, rewards = torch.full_like(nodes, -1), torch.zeros(nodes.shape, device=task.device)
    for step in range(nodes.shape[1]):
        is_choice = nodes[:, step] >= 0
        row = task.table.row_of(state.rows, nodes[:, step].clamp(min=0))
        action = row * task.actions_per_row + (via[:, step] if task.actions_per_row > 1 else 0)
        right = state.allowed.gather(1, action.unsqueeze(1)).squeeze(1) & ~state.is_over
        right &= task.table.number(state.rows, row) == nodes[:, step]
        if bool((is_choice & ~right).any()):
            bad = int((is_choice & ~right).nonzero()[0])
            raise UsageError(f"row {bad}: node {int(nodes[bad, step])} cannot be chosen in step {step}")
        # rows that are done already choose what is allowed, and it is thrown away
        action = torch.where(is_choice, action, state.allowed.to(torch.int8).argmax(1))
        after, reward, _ = task.step(state, action)
        state = where(is_choice, after, state)
        actions[:, step] = torch.where(is_choice, action, -1)
        rewards[:, step] = torch.where(is_choice, reward, 0.0)
    return state, actions, rewards
