"""What a solution costs and whether it is one, computed from the instance alone, in float64.

An instance is a dict, as `reset(options={"instance": ...})` takes it: TSP {"xy"}, ATSP {"distances"}, CVRP {"xy",
"demand", "capacity"}, OP {"xy", "prize", "max_length"}, Knapsack {"value", "weight", "capacity"}; nodes are numbered from
0, a depot first. A solution is the list of numbers that `info["solution"]` holds at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name

from .construction import TOLERANCE
from .pictures import split_routes
from .reading import check_plain
from .tours import distance_matrix
from .weights import check_memory

PlainInstance = Mapping[str, Any]
_MANY = 2000  # nodes whose distances may need more memory than there is


def distances_of(instance: PlainInstance) -> np.ndarray:
    """Return the distances [N, N] float64 of an instance, given or between its points."""
    if "distances" in instance:
        return np.asarray(instance["distances"], dtype=np.float64)
    if len(instance["xy"]) > _MANY:
        check_memory(len(instance["xy"]), 8, f"the distances between {len(instance['xy'])} nodes")
    return distance_matrix(np.asarray(instance["xy"], dtype=np.float64))


def demands_of(instance: PlainInstance) -> np.ndarray:
    """Return the demands [N] float64 with the depot's zero."""
    demand, count = np.asarray(instance["demand"], dtype=np.float64), len(distances_of(instance))
    return demand if len(demand) == count else np.concatenate([[0.0], demand])


def path_length(distances: np.ndarray, path: Sequence[int]) -> float:
    """Return the length of a path through nodes in order."""
    nodes = np.asarray(path, dtype=np.int64)
    return float(distances[nodes[:-1], nodes[1:]].sum())


def _each_once(nodes: Sequence[int], wanted: Sequence[int], what: str) -> None:
    if sorted(nodes) != list(wanted):
        counts, known = Counter(nodes), set(wanted)
        missing, extra = sorted(known - counts.keys()), sorted(counts.keys() - known)
        twice = sorted(node for node, count in counts.items() if count > 1)
        raise UsageError(
            f"{what} visits every node once; missing {missing[:8]}, twice {twice[:8]}, unknown {extra[:8]}"
        )


def tour_cost(instance: PlainInstance, solution: Sequence[int]) -> float:
    """Return the length of a closed tour.

    Raises:
        UsageError: a node is missing, unknown or visited twice.
    """
    distances = distances_of(instance)
    _each_once(solution, range(len(distances)), "a tour")
    return path_length(distances, [*solution, solution[0]])


def cvrp_cost(instance: PlainInstance, solution: Sequence[int]) -> float:
    """Return the length of all routes of a walk with 0 at every visit of the depot.

    Raises:
        UsageError: a customer is missing, unknown or served twice, or a route exceeds the capacity.
    """
    distances, demand = distances_of(instance), demands_of(instance)
    routes = split_routes(solution)
    _each_once([node for route in routes for node in route], range(1, len(distances)), "a walk")
    capacity = float(instance["capacity"])
    for route in routes:
        load = float(demand[route].sum())
        if load > capacity * (1.0 + TOLERANCE):
            raise UsageError(f"the route {route} carries {load:g}, more than the capacity {capacity:g}")
    return sum(path_length(distances, [0, *route, 0]) for route in routes)


def op_cost(instance: PlainInstance, solution: Sequence[int]) -> float:
    """Return minus the prizes of a tour from the depot 0 and back.

    Raises:
        UsageError: a node is visited twice or unknown, or the tour is longer than allowed.
    """
    distances = distances_of(instance)
    nodes, count = [int(node) for node in solution if node != 0], len(distances)
    if len(set(nodes)) < len(nodes) or any(not 0 < node < count for node in nodes):
        raise UsageError(f"a tour visits nodes from 1 to {count - 1} at most once, got {nodes[:16]}")
    length, limit = path_length(distances, [0, *nodes, 0]), float(instance["max_length"])
    # float32 rounds every leg; the tolerance of the task is that of the unit square
    if length > limit + TOLERANCE * max(1.0, float(distances.max())) * (1 + len(nodes) / 10):
        raise UsageError(f"the tour is {length:g} long, more than the {limit:g} that are allowed")
    prize = np.asarray(instance["prize"], dtype=np.float64)
    prize = prize if len(prize) == count else np.concatenate([[0.0], prize])
    return -float(prize[nodes].sum())


def knapsack_cost(instance: PlainInstance, solution: Sequence[int]) -> float:
    """Return minus the value of the items packed.

    Raises:
        UsageError: an item is packed twice or unknown, or the items are too heavy.
    """
    value, weight = (np.asarray(instance[name], dtype=np.float64) for name in ("value", "weight"))
    items, capacity = [int(item) for item in solution], float(instance["capacity"])
    if len(set(items)) < len(items) or any(not 0 <= item < len(value) for item in items):
        raise UsageError(f"items are numbers from 0 to {len(value) - 1}, each at most once, got {items[:16]}")
    load = float(weight[items].sum())
    if load > capacity + TOLERANCE * max(1.0, float(weight.max())) * (1 + len(items) / 10):
        raise UsageError(f"the items weigh {load:g}, more than the capacity {capacity:g}")
    return -float(value[items].sum())


COSTS: dict[str, Callable[[PlainInstance, Sequence[int]], float]] = {
    "tsp": tour_cost,
    "atsp": tour_cost,
    "cvrp": cvrp_cost,
    "op": op_cost,
    "knapsack": knapsack_cost,
}


def problem_named(problem: str) -> str:
    """Return the name of a problem in lower case.

    Raises:
        UsageError: there is no such problem.
    """
    if str(problem).lower() not in COSTS:
        raise unknown_name("problem", str(problem), COSTS)
    return str(problem).lower()


def solution_cost(problem: str, instance: PlainInstance, solution: Sequence[int]) -> float:
    """Return what a solution costs: the length, or minus what was collected.

    Args:
        problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
        instance: one instance as a dict, see above.
        solution: numbers of nodes; entries of -1 are left out.

    Raises:
        UsageError: there is no such problem, the instance is malformed, or the solution is not feasible; the message says
            why.
    """
    check_plain(problem_named(problem), instance)
    return COSTS[problem_named(problem)](instance, [int(node) for node in solution if node >= 0])
