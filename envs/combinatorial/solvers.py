"""Solvers of the travelling salesman problem: exact ones for small instances, heuristics, and label makers.

Every solver takes the points of one instance as [N, 2] numbers and returns the order of a closed tour that starts at
point 0 as [N] int64. `solve` runs one by name over a batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from polyathlon.envs.errors import UsageError, require, unknown_name

from .tours import distance_matrix, tour_length

MAX_BRUTE_FORCE = 9
MAX_HELD_KARP = 16
_INTEGER_SCALE = 10_000


class Solution(NamedTuple):
    """Tours of a batch of instances.

    Attributes:
        tour: [B, N] int64 order of the points, beginning with 0.
        cost: [B] float64 length of the closed tour.
    """

    tour: np.ndarray
    cost: np.ndarray


def _from_zero(tour: np.ndarray) -> np.ndarray:
    return np.roll(tour, -int(np.flatnonzero(tour == 0)[0])).astype(np.int64)


def brute_force(xy: np.ndarray) -> np.ndarray:
    """Return an optimal tour by trying every order.

    Raises:
        UsageError: there are more than 9 points.
    """
    n = len(xy)
    if n > MAX_BRUTE_FORCE:
        raise UsageError(f"brute_force takes at most {MAX_BRUTE_FORCE} points, got {n}; use held_karp or a heuristic")
    orders = np.array([(0, *rest) for rest in itertools.permutations(range(1, n))], dtype=np.int64)
    d = distance_matrix(xy)
    lengths = d[orders, np.roll(orders, -1, axis=1)].sum(1)
    return orders[lengths.argmin()]


def held_karp(xy: np.ndarray) -> np.ndarray:
    """Return an optimal tour by dynamic programming over subsets, O(2^N N^2).

    Held and Karp, "A dynamic programming approach to sequencing problems", 1962. All subsets of one size are handled
    at once: `best[S, j]` is the shortest path from point 0 through the set S (of the points 1...) that ends in j.

    Raises:
        UsageError: there are more than 16 points.
    """
    n = len(xy)
    if n > MAX_HELD_KARP:
        raise UsageError(f"held_karp takes at most {MAX_HELD_KARP} points, got {n}; use a heuristic")
    if n <= 3:
        return np.arange(n, dtype=np.int64)
    d = distance_matrix(xy)
    m = n - 1
    subsets = np.arange(1 << m)
    sizes = np.array([s.bit_count() for s in range(1 << m)])
    best = np.full((1 << m, m), np.inf)
    best[1 << np.arange(m), np.arange(m)] = d[0, 1:]
    for size in range(2, m + 1):
        of_size = subsets[sizes == size]
        for j in range(m):
            sets = of_size[(of_size >> j) & 1 == 1]
            best[sets, j] = (best[sets ^ (1 << j)] + d[1:, j + 1]).min(1)
    return _trace(best, d)


def _trace(best: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Read the optimal order back from the table of `held_karp`."""
    m = best.shape[1]
    subset = (1 << m) - 1
    j = int((best[subset] + d[1:, 0]).argmin())
    order = [j + 1]
    while subset != 1 << j:
        previous = subset ^ (1 << j)
        subset, j = previous, int((best[previous] + d[1:, j + 1]).argmin())
        order.append(j + 1)
    return np.array([0, *reversed(order)], dtype=np.int64)


def nearest_neighbour(xy: np.ndarray) -> np.ndarray:
    """Return the tour that always goes on to the nearest open point, starting at point 0."""
    d = distance_matrix(xy)
    tour = np.zeros(len(d), dtype=np.int64)
    d[:, 0] = np.inf
    for t in range(1, len(d)):
        tour[t] = d[tour[t - 1]].argmin()
        d[:, tour[t]] = np.inf
    return tour


def two_opt(xy: np.ndarray, tour: np.ndarray | None = None) -> np.ndarray:
    """Reverse pieces of a tour, the most helpful piece first, until no reversal makes it shorter.

    Args:
        xy: [N, 2] points.
        tour: [N] the tour to improve; None starts from the nearest neighbour's.
    """
    d = distance_matrix(xy)
    tour = (nearest_neighbour(xy) if tour is None else np.array(tour)).astype(np.int64)
    n = len(tour)
    if n < 4:
        return _from_zero(tour)
    upper = np.triu(np.ones((n, n), dtype=bool), k=2)
    while True:
        ahead = np.roll(tour, -1)
        # replacing the edges (i, i+1) and (j, j+1) by (i, j) and (i+1, j+1)
        change = d[np.ix_(tour, tour)] + d[np.ix_(ahead, ahead)] - d[tour, ahead][:, None] - d[tour, ahead][None]
        change = np.where(upper, change, 0.0)
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] > -1e-12:
            return _from_zero(tour)
        tour[i + 1 : j + 1] = tour[i + 1 : j + 1][::-1].copy()


def fast_tsp(xy: np.ndarray, seconds: float = 0.05) -> np.ndarray:
    """Return the tour that the package fast-tsp finds in a time budget: optimal or within 0.2 % for up to 200 points.

    Args:
        xy: [N, 2] points.
        seconds: time budget of one instance.

    Raises:
        ImportError: fast-tsp is not installed; it comes with the extra `solvers`.
    """
    library = require("fast_tsp", "solvers")
    d = distance_matrix(xy)
    if len(d) < 4:
        return np.arange(len(d), dtype=np.int64)
    largest = d.max()
    if largest == 0.0:
        return np.arange(len(d), dtype=np.int64)
    # its integers are 32 bits wide
    integers = np.rint(d / largest * _INTEGER_SCALE).astype(int).tolist()
    return _from_zero(np.array(library.find_tour(integers, duration_seconds=seconds)))


SOLVERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "brute_force": brute_force,
    "held_karp": held_karp,
    "nearest_neighbour": nearest_neighbour,
    "two_opt": two_opt,
    "fast_tsp": fast_tsp,
}


def solve(xy: np.ndarray | torch.Tensor, solver: str = "two_opt") -> Solution:
    """Solve a batch of instances.

    Args:
        xy: [B, N, 2] points, or [N, 2] for one instance.
        solver: a name in `SOLVERS`.

    Raises:
        UsageError: there is no such solver, or the instances are too large for it.
    """
    if solver not in SOLVERS:
        raise unknown_name("solver", solver, SOLVERS)
    points = torch.as_tensor(xy, dtype=torch.float64).cpu()
    points = points[None] if points.dim() == 2 else points
    if points.dim() != 3 or points.shape[2] != 2 or points.shape[1] < 2:
        raise UsageError(f"solve takes points of the shape (B, N, 2) or (N, 2) with N >= 2, got {tuple(points.shape)}")
    if not bool(torch.isfinite(points).all()):
        raise UsageError("the points hold a coordinate that is not finite (NaN or infinity)")
    tours = np.stack([SOLVERS[solver](instance) for instance in points.numpy()])
    return Solution(tours, tour_length(points, torch.as_tensor(tours)).numpy())
