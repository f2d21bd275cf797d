"""Solvers from other packages: fast-tsp, PyVRP and OR-tools (extra `solvers`), LKH through elkai (extra `lkh`).

They take one instance as a dict and return its solution, see `solutions`. Their numbers are integers, so lengths and
loads are scaled first; what is returned is feasible for the real numbers within the tolerance of the tasks.

LKH, which elkai carries, is licensed for academic and non-commercial use only; that is why it is an extra of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, require

from .construction import TOLERANCE
from .heuristics import from_zero
from .solutions import PlainInstance, demands_of, distances_of
from .weights import check_memory

_INT32_SCALE = 10_000  # fast-tsp adds up 32-bit integers
_SCALE = 1_000_000
_LOAD_SCALE = 1_000_000_000
# memory for each pair of nodes: arrays of numbers and of integers, and then lists of integers, or PyVRP's edges
_BYTES_IN_LISTS, _BYTES_OF_EDGES = 56, 300


def _integers(d: np.ndarray, scale: int, is_rounded_up: bool = False) -> np.ndarray:
    """Return distances as integers, the largest one being `scale`."""
    share = d / max(float(d.max()), 1e-300) * scale
    return (np.ceil(share - 1e-9) if is_rounded_up else np.rint(share)).astype(np.int64)


def _lists(d: np.ndarray, scale: int) -> list[list[int]]:
    """Return distances as lists of integers, the largest one being `scale`."""
    check_memory(len(d), _BYTES_IN_LISTS, f"lists of the distances between {len(d)} nodes, which this solver takes,")
    found: list[list[int]] = _integers(d, scale).tolist()
    return found


def fast_tsp(instance: PlainInstance, seconds: float = 0.05) -> list[int]:
    """Return the tour that fast-tsp finds in a time budget: optimal or within 0.2 % for up to 200 points.

    Args:
        instance: points, or symmetric distances.
        seconds: time budget.

    Raises:
        ImportError: fast-tsp is not installed.
        UsageError: the distances depend on the direction.
    """
    library = require("fast_tsp", "solvers")
    d = distances_of(instance)
    if not np.allclose(d, d.T):
        raise UsageError("fast_tsp needs distances that are the same both ways; use elkai or pyvrp")
    if len(d) < 4 or d.max() == 0.0:
        return list(range(len(d)))
    return from_zero(library.find_tour(_lists(d, _INT32_SCALE), duration_seconds=seconds))


def elkai(instance: PlainInstance, runs: int = 1) -> list[int]:
    """Return the tour that LKH finds, as a rule an optimal one for up to 200 nodes (academic and non-commercial use only).

    Args:
        instance: points or distances, also asymmetric ones.
        runs: number of runs.

    Raises:
        ImportError: elkai is not installed.
    """
    library = require("elkai", "lkh")
    d = distances_of(instance)
    if len(d) < 4:
        return _few_nodes(d)
    return from_zero(library.DistanceMatrix(_lists(d, _SCALE)).solve_tsp(runs=runs)[:-1])


def _few_nodes(d: np.ndarray) -> list[int]:
    """Return the optimal tour of at most three nodes."""
    if len(d) == 3 and d[0, 2] + d[2, 1] + d[1, 0] < d[0, 1] + d[1, 2] + d[2, 0]:
        return [0, 2, 1]
    return list(range(len(d)))


def _pyvrp_routes(
    d: np.ndarray,
    seconds: float,
    iterations: int | None,
    seed: int,
    clients: list[dict[str, Any]],
    vehicle: dict[str, Any],
) -> list[list[int]]:
    """Run PyVRP on integer distances; return the nodes of each route."""
    library = require("pyvrp", "solvers")
    check_memory(len(d), _BYTES_OF_EDGES, f"the edges between {len(d)} nodes, which PyVRP takes,")
    model = library.Model()
    places = [model.add_location(x=0, y=0) for _ in range(len(d))]
    depot = model.add_depot(places[0])
    for place, client in zip(places[1:], clients):
        model.add_client(place, **client)
    model.add_vehicle_type(start_depot=depot, end_depot=depot, **vehicle)
    for i, start in enumerate(places):
        for j, end in enumerate(places):
            if i != j:
                model.add_edge(start, end, distance=int(d[i, j]))
    stop = library.stop.MaxRuntime(seconds) if iterations is None else library.stop.MaxIterations(iterations)
    result = model.solve(stop, seed=seed, display=False, collect_stats=False)
    if not result.is_feasible():
        raise UsageError("PyVRP found no feasible solution within its budget; give it more seconds or iterations")
    return [[visit.idx + 1 for visit in route if visit.is_client()] for route in result.best.routes()]


def pyvrp_tour(
    instance: PlainInstance, seconds: float = 1.0, iterations: int | None = None, seed: int = 0
) -> list[int]:
    """Return the tour that PyVRP finds with a single vehicle; distances may depend on the direction.

    Args:
        instance: points or distances.
        seconds: time budget.
        iterations: a budget that gives the same tour on every machine, instead of `seconds`.
        seed: of its search.

    Raises:
        ImportError: PyVRP is not installed.
    """
    d = distances_of(instance)
    if len(d) < 4:
        return _few_nodes(d)
    clients: list[dict[str, Any]] = [{} for _ in d[1:]]
    routes = _pyvrp_routes(_integers(d, _SCALE), seconds, iterations, seed, clients, {"num_available": 1})
    return [0, *routes[0]]


def pyvrp_cvrp(
    instance: PlainInstance, seconds: float = 1.0, iterations: int | None = None, seed: int = 0
) -> list[int]:
    """Return the routes that PyVRP finds; see `pyvrp_tour` for the arguments.

    Raises:
        ImportError: PyVRP is not installed.
    """
    d, share = distances_of(instance), demands_of(instance) / float(instance["capacity"])
    clients = [{"delivery": round(float(s) * _LOAD_SCALE)} for s in share[1:]]
    capacity = round(_LOAD_SCALE * (1.0 + TOLERANCE))
    vehicle = {"num_available": len(clients), "capacity": capacity}
    routes = _pyvrp_routes(_integers(d, _SCALE), seconds, iterations, seed, clients, vehicle)
    return [0] + [node for route in routes for node in (*route, 0)]


def pyvrp_op(instance: PlainInstance, seconds: float = 1.0, iterations: int | None = None, seed: int = 0) -> list[int]:
    """Return the tour of limited length with the prizes that PyVRP finds, a prize being worth more than any detour.

    See `pyvrp_tour` for the arguments.

    Raises:
        ImportError: PyVRP is not installed.
    """
    d, limit = distances_of(instance), float(instance["max_length"])
    prize = np.asarray(instance["prize"], dtype=np.float64)[-(len(d) - 1) :]
    # nodes that cannot be reached at all only confuse the search
    near = [0, *(node for node in range(1, len(d)) if d[0, node] + d[node, 0] <= limit and prize[node - 1] > 0)]
    if len(near) == 1:
        return [0]
    unit = _SCALE / max(limit, 1e-300)
    legs = np.ceil(d[np.ix_(near, near)] * unit - 1e-6).astype(np.int64)
    least = float(prize[prize > 0].min())
    worth = min(10.0 * _SCALE / least, 1e12 / float(prize.sum()))
    clients = [{"prize": round(float(prize[node - 1]) * worth), "required": False} for node in near[1:]]
    routes = _pyvrp_routes(legs, seconds, iterations, seed, clients, {"num_available": 1, "max_distance": _SCALE})
    return [0] + [near[node] for route in routes for node in route]


def ortools_knapsack(instance: PlainInstance, seconds: float = 10.0) -> list[int]:
    """Return the most valuable items that fit, by OR-tools' branch and bound: exact for numbers of seven digits.

    Args:
        instance: the items.
        seconds: time limit.

    Raises:
        ImportError: OR-tools is not installed.
    """
    library = require("ortools.algorithms.python.knapsack_solver", "solvers")
    value, weight = (np.asarray(instance[name], dtype=np.float64) for name in ("value", "weight"))
    gains, loads = (np.rint(x / max(float(x.max()), 1e-300) * 10 * _SCALE).astype(np.int64) for x in (value, weight))
    capacity = float(instance["capacity"]) / max(float(weight.max()), 1e-300) * 10 * _SCALE
    kind = library.SolverType.KNAPSACK_MULTIDIMENSION_BRANCH_AND_BOUND_SOLVER
    solver = library.KnapsackSolver(kind, "knapsack")
    solver.set_time_limit(seconds)
    solver.init(gains.tolist(), [loads.tolist()], [int(min(capacity + 0.5, 2.0**62))])
    solver.solve()
    return [item for item in range(len(value)) if solver.best_solution_contains(item)]


def ortools_tour(instance: PlainInstance, seconds: float = 1.0) -> list[int]:
    """Return the tour that OR-tools' guided local search finds; distances may depend on the direction.

    Args:
        instance: points or distances.
        seconds: time budget, which it uses up.

    Raises:
        ImportError: OR-tools is not installed.
        UsageError: it found nothing within its budget.
    """
    library = require("ortools.constraint_solver.pywrapcp", "solvers")
    enums = require("ortools.constraint_solver.routing_enums_pb2", "solvers")
    d = distances_of(instance)
    if len(d) < 4:
        return _few_nodes(d)
    legs = _lists(d, _SCALE)
    manager = library.RoutingIndexManager(len(d), 1, 0)
    routing = library.RoutingModel(manager)
    routing.SetArcCostEvaluatorOfAllVehicles(routing.RegisterTransitMatrix(legs))
    parameters = library.DefaultRoutingSearchParameters()
    parameters.first_solution_strategy = enums.FirstSolutionStrategy.PATH_CHEAPEST_ARC
    parameters.local_search_metaheuristic = enums.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
    parameters.time_limit.FromMilliseconds(max(1, int(1000 * seconds)))
    found = routing.SolveWithParameters(parameters)
    if found is None:
        raise UsageError(f"OR-tools found no tour within {seconds} seconds; give it more")
    tour, index = [], routing.Start(0)
    while not routing.IsEnd(index):
        tour.append(manager.IndexToNode(index))
        index = found.Value(routing.NextVar(index))
    return from_zero(tour)
