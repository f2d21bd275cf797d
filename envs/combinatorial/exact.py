"""Exact solvers for small instances: trying everything, and dynamic programming over subsets.

They take one instance as a dict and return its solution, see `solutions`.
"""

from __future__ import annotations

import itertools

import numpy as np

from polyathlon.envs.errors import UsageError

from .solutions import PlainInstance, demands_of, distances_of, path_length

MAX_BRUTE_FORCE = 9
MAX_HELD_KARP = 16
MAX_ITEMS = 20
_TOLERANCE = 1e-9


def _small(count: int, most: int, what: str, advice: str) -> None:
    if count > most:
        raise UsageError(f"{what} takes at most {most} points, got {count}; use {advice}")


def brute_force_tour(instance: PlainInstance) -> list[int]:
    """Return an optimal tour by trying every order.

    Raises:
        UsageError: there are more than 9 points.
    """
    d = distances_of(instance)
    _small(len(d), MAX_BRUTE_FORCE, "brute_force", "held_karp or a heuristic")
    orders = np.array([(0, *rest) for rest in itertools.permutations(range(1, len(d)))], dtype=np.int64)
    lengths = d[orders, np.roll(orders, -1, axis=1)].sum(1)
    best: list[int] = orders[lengths.argmin()].tolist()
    return best


def paths_from_zero(d: np.ndarray) -> np.ndarray:
    """Return the shortest paths from node 0 through each set of the others, by their last node.

    Held and Karp, "A dynamic programming approach to sequencing problems", 1962. All sets of one size are handled at
    once.

    Args:
        d: [N, N] distances.

    Returns:
        [2^(N-1), N-1] float64: entry (S, j) is the length of the shortest path from 0 through the set S (bit k is node
        k + 1) that ends in node j + 1; infinite where j is not in S.
    """
    m = len(d) - 1
    best = np.full((1 << m, m), np.inf)
    best[1 << np.arange(m), np.arange(m)] = d[0, 1:]
    sets = np.arange(1 << m)
    sizes = np.array([int(s).bit_count() for s in sets])
    for size in range(2, m + 1):
        of_size = sets[sizes == size]
        for j in range(m):
            with_j = of_size[(of_size >> j) & 1 == 1]
            best[with_j, j] = (best[with_j ^ (1 << j)] + d[1:, j + 1]).min(1)
    return best


def path_back(best: np.ndarray, d: np.ndarray, subset: int) -> list[int]:
    """Read from `paths_from_zero` the order in which the closed tour through a set is shortest, without node 0."""
    j = int((best[subset] + d[1:, 0]).argmin())
    order = [j + 1]
    while subset != 1 << j:
        subset ^= 1 << j
        j = int((best[subset] + d[1:, j + 1]).argmin())
        order.append(j + 1)
    return order[::-1]


def held_karp(instance: PlainInstance) -> list[int]:
    """Return an optimal tour by dynamic programming over subsets, O(2^N N^2).

    Raises:
        UsageError: there are more than 16 points.
    """
    d = distances_of(instance)
    _small(len(d), MAX_HELD_KARP, "held_karp", "a heuristic")
    return [0, *path_back(paths_from_zero(d), d, (1 << (len(d) - 1)) - 1)]


def cvrp_subsets(instance: PlainInstance) -> list[int]:
    """Return optimal routes: the shortest tour of every set of customers that fits, and the best partition into such.

    Raises:
        UsageError: there are more than 12 customers.
    """
    d, demand = distances_of(instance), demands_of(instance)
    m = len(d) - 1
    _small(m, 12, "dynamic_programming", "pyvrp")
    best = paths_from_zero(d)
    load = ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1) @ demand[1:]
    route = np.where(load <= float(instance["capacity"]) * (1.0 + _TOLERANCE), (best + d[1:, 0]).min(1), np.inf)
    total, cut = np.full(1 << m, np.inf), np.zeros(1 << m, dtype=np.int64)
    total[0] = 0.0
    for whole in range(1, 1 << m):
        # the part with the lowest customer; going through the parts of `whole` in falling order
        lowest, part = whole & -whole, whole
        while part:
            if part & lowest and route[part] + total[whole ^ part] < total[whole]:
                total[whole], cut[whole] = route[part] + total[whole ^ part], part
            part = (part - 1) & whole
    walk, left = [0], (1 << m) - 1
    while left:
        walk += [*path_back(best, d, int(cut[left])), 0]
        left ^= int(cut[left])
    return walk


def cvrp_brute_force(instance: PlainInstance) -> list[int]:
    """Return optimal routes by trying every order of the customers and every place to come by the depot.

    Raises:
        UsageError: there are more than 6 customers.
    """
    d, demand, capacity = distances_of(instance), demands_of(instance), float(instance["capacity"])
    m = len(d) - 1
    _small(m, 6, "brute_force", "dynamic_programming or pyvrp")
    best: tuple[float, list[int]] = (np.inf, [])
    for order in itertools.permutations(range(1, m + 1)):
        for stops in itertools.product((False, True), repeat=m - 1):
            walk = [0, order[0]]
            for stop, node in zip(stops, order[1:]):
                walk += [0, node] if stop else [node]
            walk.append(0)
            length = path_length(d, walk)
            cuts = [i for i, node in enumerate(walk) if node == 0]
            loads = [demand[walk[a:b]].sum() for a, b in itertools.pairwise(cuts)]
            if length < best[0] and max(loads) <= capacity * (1.0 + _TOLERANCE):
                best = (length, walk)
    return best[1]


def op_subsets(instance: PlainInstance) -> list[int]:
    """Return an optimal tour of limited length: the shortest tour of every set of nodes, and the best set within reach.

    Raises:
        UsageError: there are more than 15 nodes beside the depot.
    """
    d = distances_of(instance)
    m = len(d) - 1
    _small(m, MAX_HELD_KARP - 1, "dynamic_programming", "pyvrp")
    prize = np.asarray(instance["prize"], dtype=np.float64)[-m:]
    best = paths_from_zero(d)
    within = (best + d[1:, 0]).min(1) <= float(instance["max_length"]) + _TOLERANCE
    gain = np.where(within, ((np.arange(1 << m)[:, None] >> np.arange(m)) & 1) @ prize, 0.0)
    gain[0] = 0.0
    subset = int(gain.argmax())
    return [0, *path_back(best, d, subset)] if subset else [0]


def op_brute_force(instance: PlainInstance) -> list[int]:
    """Return an optimal tour of limited length by trying every order of every set.

    Raises:
        UsageError: there are more than 7 nodes beside the depot.
    """
    d = distances_of(instance)
    m = len(d) - 1
    _small(m, 7, "brute_force", "dynamic_programming or pyvrp")
    prize = np.concatenate([[0.0], np.asarray(instance["prize"], dtype=np.float64)[-m:]])
    best: tuple[float, list[int]] = (0.0, [0])
    for size in range(1, m + 1):
        for order in itertools.permutations(range(1, m + 1), size):
            walk = [0, *order]
            gain = float(prize[walk].sum())
            if gain > best[0] and path_length(d, [*walk, 0]) <= float(instance["max_length"]) + _TOLERANCE:
                best = (gain, walk)
    return best[1]


def knapsack_brute_force(instance: PlainInstance) -> list[int]:
    """Return the most valuable items that fit, by trying every set.

    Raises:
        UsageError: there are more than 20 items.
    """
    value, weight = (np.asarray(instance[name], dtype=np.float64) for name in ("value", "weight"))
    m = len(value)
    _small(m, MAX_ITEMS, "brute_force", "ortools")
    gain, load = np.zeros(1 << m), np.zeros(1 << m)
    for item in range(m):
        half = 1 << item
        gain[half : 2 * half] = gain[:half] + value[item]
        load[half : 2 * half] = load[:half] + weight[item]
    subset = int(np.where(load <= float(instance["capacity"]) + _TOLERANCE, gain, -1.0).argmax())
    return [item for item in range(m) if subset >> item & 1]


def knapsack_table(instance: PlainInstance) -> list[int]:
    """Return the most valuable items that fit, by dynamic programming over capacities; weights must be integers.

    Raises:
        UsageError: a weight is no integer, or the table would be larger than 10^8.
    """
    value, weight = (np.asarray(instance[name], dtype=np.float64) for name in ("value", "weight"))
    capacity = int(np.floor(float(instance["capacity"]) + _TOLERANCE))
    units = np.rint(weight).astype(np.int64)
    if (np.abs(weight - units) > _TOLERANCE).any() or len(value) * (capacity + 1) > 10**8:
        raise UsageError("dynamic_programming takes integer weights and items x capacity <= 10^8; use ortools")
    best = np.zeros((len(value) + 1, capacity + 1))
    for item, (gain, load) in enumerate(zip(value, units)):
        best[item + 1] = best[item]
        if load <= capacity:
            best[item + 1, load:] = np.maximum(best[item, load:], best[item, : capacity + 1 - load] + gain)
    packed, left = [], capacity
    for item in range(len(value) - 1, -1, -1):
        if best[item + 1, left] > best[item, left]:
            packed.append(item)
            left -= int(units[item])
    return packed[::-1]
