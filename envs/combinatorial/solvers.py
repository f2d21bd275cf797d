"""Solvers by name: exact ones for small instances, simple rules, and those of other packages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from polyathlon.envs.errors import UsageError, check_int, check_positive, unknown_name

from . import exact, heuristics, packages
from .reading import check_plain, numbers
from .solutions import PlainInstance, problem_named, solution_cost

Solver = Callable[..., list[int]]

SOLVERS: dict[str, dict[str, Solver]] = {
    "tsp": {
        "brute_force": exact.brute_force_tour,
        "held_karp": exact.held_karp,
        "nearest_neighbour": heuristics.nearest_neighbour,
        "two_opt": heuristics.two_opt,
        "fast_tsp": packages.fast_tsp,
        "pyvrp": packages.pyvrp_tour,
        "ortools": packages.ortools_tour,
        "elkai": packages.elkai,
    },
    "atsp": {
        "brute_force": exact.brute_force_tour,
        "held_karp": exact.held_karp,
        "nearest_neighbour": heuristics.nearest_neighbour,
        "pyvrp": packages.pyvrp_tour,
        "ortools": packages.ortools_tour,
        "elkai": packages.elkai,
    },
    "cvrp": {
        "brute_force": exact.cvrp_brute_force,
        "dynamic_programming": exact.cvrp_subsets,
        "savings": heuristics.savings,
        "pyvrp": packages.pyvrp_cvrp,
    },
    "op": {
        "brute_force": exact.op_brute_force,
        "dynamic_programming": exact.op_subsets,
        "greedy": heuristics.op_greedy,
        "pyvrp": packages.pyvrp_op,
    },
    "knapsack": {
        "brute_force": exact.knapsack_brute_force,
        "dynamic_programming": exact.knapsack_table,
        "greedy": heuristics.knapsack_greedy,
        "ortools": packages.ortools_knapsack,
    },
}
# what makes labels when nothing else is asked for
DEFAULTS = {"tsp": "fast_tsp", "atsp": "pyvrp", "cvrp": "pyvrp", "op": "pyvrp", "knapsack": "ortools"}


class Solutions(NamedTuple):
    """Solutions of a batch of instances.

    Attributes:
        solution: [B, L] int64 as `info["solution"]` has it, -1 behind the end.
        cost: [B] float64 the length, or minus what was collected.
    """

    solution: np.ndarray
    cost: np.ndarray


def solver_named(problem: str, solver: str | None = None) -> tuple[str, Solver]:
    """Look a solver up.

    Args:
        problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
        solver: its name; None for the problem's usual one.

    Returns:
        Its name and the function from one instance, as a dict, to the solution.

    Raises:
        UsageError: there is no such problem or solver.
    """
    known = SOLVERS[problem_named(problem)]
    name = DEFAULTS[problem_named(problem)] if solver is None else solver
    if name not in known:
        raise unknown_name(f"solver of {problem}", str(name), known)
    return name, known[name]


def check_options(name: str, function: Solver, options: Mapping[str, Any]) -> None:
    """Refuse options that a solver does not have.

    Raises:
        UsageError: there is one, the message lists those it has; or a budget is not positive.
    """
    known = [key for key in inspect.signature(function).parameters if key not in ("instance", "tour")]
    for key in options:
        if key not in known:
            raise unknown_name(f"option of the solver {name}", str(key), known or ["none"])
        if key == "seconds":
            check_positive(seconds=options[key])
        elif options[key] is not None or key != "iterations":  # None: `seconds` is the budget
            check_int(0 if key == "seed" else 1, **{key: options[key]})


def as_instances(problem: str, instances: Any) -> list[PlainInstance]:
    """Turn what a user gave into a list of instances as dicts.

    Args:
        problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
        instances: a list of dicts, one dict, or for TSP and ATSP also an array [B, N, 2] or [B, N, N], or one without B.

    Raises:
        UsageError: it is something else, or an instance is malformed, see `check_plain`.
    """
    is_list = isinstance(instances, Sequence) and len(instances) > 0 and isinstance(instances[0], Mapping)
    if isinstance(instances, Mapping) or is_list:
        plain = [instances] if isinstance(instances, Mapping) else list(instances)
        for one in plain:
            check_plain(problem_named(problem), one)
        return plain
    key = {"tsp": "xy", "atsp": "distances"}.get(problem_named(problem))
    if key is None:
        raise UsageError(f"instances of {problem} are dicts, got {type(instances).__name__}")
    array = numbers(instances, f"instances of {problem}")
    array = array[None] if array.ndim == 2 else array
    is_right = array.ndim == 3 and array.shape[1] >= 2 and array.shape[2] == (2 if key == "xy" else array.shape[1])
    if not is_right:
        wanted = "points of the shape (B, N, 2) or (N, 2)" if key == "xy" else "distances (B, N, N) or (N, N)"
        raise UsageError(f"solve takes {wanted} with N >= 2, got {array.shape}")
    for one in array:
        check_plain(problem_named(problem), {key: one})
    return [{key: one} for one in array]


def padded(solutions: Sequence[Sequence[int]]) -> np.ndarray:
    """Return solutions of different lengths as [B, L] int64, -1 behind the end."""
    rows = np.full((len(solutions), max((len(one) for one in solutions), default=0)), -1, dtype=np.int64)
    for row, one in zip(rows, solutions):
        row[: len(one)] = one
    return rows


def solve(problem: str, instances: Any, solver: str | None = None, **options: Any) -> Solutions:
    """Solve a batch of instances one after the other; `labels.make_labels` does it in parallel and keeps the results.

    Args:
        problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
        instances: see `as_instances`.
        solver: a name in `SOLVERS[problem]`; None for the usual one.
        **options: the solver's own, such as `seconds`.

    Raises:
        UsageError: there is no such problem, solver or option, or the instances are malformed or too large for it.
        ImportError: the solver's package is not installed; the message says how to install it.
    """
    name, function = solver_named(problem, solver)
    check_options(name, function, options)
    plain = as_instances(problem, instances)
    solutions = [function(one, **options) for one in plain]
    costs = [solution_cost(problem, one, solution) for one, solution in zip(plain, solutions)]
    return Solutions(padded(solutions), np.array(costs, dtype=np.float64))
