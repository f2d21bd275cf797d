"""Simple rules, as baselines: nearest neighbour, 2-opt, and greedy choices by ratio.

They take one instance as a dict and return its solution, see `solutions`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polyathlon.envs.errors import UsageError

from .solutions import PlainInstance, demands_of, distances_of
from .weights import check_memory


def from_zero(tour: Sequence[int] | np.ndarray) -> list[int]:
    """Turn a tour so that it begins with node 0."""
    tour = np.asarray(tour, dtype=np.int64)
    turned: list[int] = np.roll(tour, -int(np.flatnonzero(tour == 0)[0])).tolist()
    return turned


def nearest_neighbour(instance: PlainInstance) -> list[int]:
    """Return the tour that always goes on to the nearest open point, starting at point 0."""
    d = distances_of(instance).copy()
    tour = [0]
    d[:, 0] = np.inf
    while len(tour) < len(d):
        tour.append(int(d[tour[-1]].argmin()))
        d[:, tour[-1]] = np.inf
    return tour


def two_opt(instance: PlainInstance, tour: Sequence[int] | None = None) -> list[int]:
    """Reverse pieces of a tour, the most helpful piece first, until no reversal makes it shorter.

    Args:
        instance: with symmetric distances.
        tour: [N] the tour to improve; None starts from the nearest neighbour's.

    Raises:
        UsageError: the distances depend on the direction.
    """
    d = distances_of(instance)
    if not np.allclose(d, d.T):
        raise UsageError("two_opt reverses pieces of a tour, so it needs distances that are the same both ways")
    order = np.array(nearest_neighbour(instance) if tour is None else tour, dtype=np.int64)
    n = len(order)
    if n < 4:
        return from_zero(order)
    check_memory(n, 48, f"the exchanges between {n} nodes, which two_opt compares,")
    upper = np.triu(np.ones((n, n), dtype=bool), k=2)
    while True:
        ahead = np.roll(order, -1)
        # replacing the edges (i, i+1) and (j, j+1) by (i, j) and (i+1, j+1)
        change = d[np.ix_(order, order)] + d[np.ix_(ahead, ahead)] - d[order, ahead][:, None] - d[order, ahead][None]
        change = np.where(upper, change, 0.0)
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] > -1e-12:
            return from_zero(order)
        order[i + 1 : j + 1] = order[i + 1 : j + 1][::-1].copy()


def savings(instance: PlainInstance) -> list[int]:
    """Join routes where that saves most (Clarke and Wright 1964)."""
    d, demand, capacity = distances_of(instance), demands_of(instance), float(instance["capacity"])
    routes = {node: [node] for node in range(1, len(d))}
    owner = {node: node for node in routes}
    load = {node: float(demand[node]) for node in routes}
    saved = d[1:, :1] + d[:1, 1:] - d[1:, 1:]
    for flat in np.argsort(-saved, axis=None, kind="stable"):
        i, j = (int(k) + 1 for k in np.unravel_index(flat, saved.shape))
        first, second = owner[i], owner[j]
        if saved[i - 1, j - 1] <= 0:
            break
        is_end = routes[first][-1] == i and routes[second][0] == j
        if first == second or not is_end or load[first] + load[second] > capacity * (1.0 + 1e-9):
            continue
        routes[first] += routes.pop(second)
        load[first] += load.pop(second)
        owner.update(dict.fromkeys(routes[first], first))
    return [0] + [node for route in routes.values() for node in (*route, 0)]


def op_greedy(instance: PlainInstance) -> list[int]:
    """Always go on to the node with the most prize for its distance from which the depot can still be reached."""
    d = distances_of(instance)
    prize = np.concatenate([[0.0], np.asarray(instance["prize"], dtype=np.float64)[-(len(d) - 1) :]])
    tour, left, is_open = [0], float(instance["max_length"]), np.ones(len(d), dtype=bool)
    is_open[0] = False
    while True:
        here = tour[-1]
        within = is_open & (d[here] + d[:, 0] <= left)
        if not within.any():
            return tour
        node = int(np.where(within, prize / np.maximum(d[here], 1e-12), -1.0).argmax())
        left -= d[here, node]
        is_open[node] = False
        tour.append(node)


def knapsack_greedy(instance: PlainInstance) -> list[int]:
    """Pack by value for weight, the best first, whatever still fits."""
    value, weight = (np.asarray(instance[name], dtype=np.float64) for name in ("value", "weight"))
    left, packed = float(instance["capacity"]), []
    for item in np.argsort(-value / np.maximum(weight, 1e-12), kind="stable"):
        if weight[item] <= left:
            packed.append(int(item))
            left -= weight[item]
    return packed
