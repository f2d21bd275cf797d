"""Solvers of the travelling salesman problem and the measures of tours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from polyathlon.envs.combinatorial.exact import brute_force_tour, held_karp
from polyathlon.envs.combinatorial.heuristics import nearest_neighbour, two_opt
from polyathlon.envs.combinatorial.packages import fast_tsp
from polyathlon.envs.combinatorial.solvers import solve
from polyathlon.envs.combinatorial.tours import distance_matrix, gap, tour_length
from polyathlon.envs.errors import UsageError

# those that use up a budget of seconds are tested on their own
FAST = ["brute_force", "held_karp", "nearest_neighbour", "two_opt", "fast_tsp"]
FIVE = np.array([[0.0, 0.0], [0.0, 1.0], [2.0, 1.0], [2.0, 0.0], [1.0, 2.0]])


def points(n: int, batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((batch, n, 2))


def test_lengths_by_hand():
    tours = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 4, 2, 3], [0, 2, -1, -1, -1], [0, -1, -1, -1, -1]])
    length = tour_length(torch.tensor(FIVE, dtype=torch.float32).expand(4, 5, 2), tours)
    assert length.dtype == torch.float64
    expected = [4 + 2 * math.sqrt(5), 4 + 2 * math.sqrt(2), 2 * math.sqrt(5), 0.0]
    assert length.tolist() == pytest.approx(expected, rel=1e-12)


def test_distances_and_gaps_by_hand():
    np.testing.assert_allclose(distance_matrix([[0, 0], [3, 4]]), [[0, 5], [5, 0]])
    ratio = gap(torch.tensor([11.0, 9.0, 5.0]), torch.tensor([10.0, 10.0, torch.nan]))
    assert ratio[:2].tolist() == pytest.approx([0.1, -0.1]) and torch.isnan(ratio[2])


@pytest.mark.parametrize("solver", ["brute_force", "held_karp", "two_opt", "fast_tsp"])
def test_the_hand_example_is_solved(solver):
    solution = solve("tsp", FIVE, solver)
    assert solution.cost[0] == pytest.approx(4 + 2 * math.sqrt(2), abs=1e-12)
    assert solution.solution[0].tolist() in ([0, 1, 4, 2, 3], [0, 3, 2, 4, 1])


@pytest.mark.parametrize("n", range(2, 10))
def test_dynamic_programming_agrees_with_trying_every_order(n):
    instances = points(n, 6, seed=n)
    np.testing.assert_allclose(
        solve("tsp", instances, "held_karp").cost, solve("tsp", instances, "brute_force").cost, rtol=1e-12
    )


@pytest.mark.parametrize("n", [4, 9, 13])
def test_fast_tsp_finds_the_optimum_of_small_instances(n):
    instances = points(n, 5, seed=n)
    np.testing.assert_allclose(
        solve("tsp", instances, "fast_tsp").cost, solve("tsp", instances, "held_karp").cost, rtol=1e-4
    )


@pytest.mark.parametrize("solver", FAST)
@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_every_solver_returns_tours_from_point_0_and_their_lengths(solver, n):
    instances = points(n, 3, seed=n)
    solution = solve("tsp", torch.as_tensor(instances), solver)
    assert solution.solution.dtype == np.int64 and (solution.solution[:, 0] == 0).all()
    np.testing.assert_array_equal(np.sort(solution.solution, axis=1), np.tile(np.arange(n), (3, 1)))
    for tour, cost, xy in zip(solution.solution, solution.cost, instances):
        path = xy[[*tour, tour[0]]]
        assert cost == pytest.approx(np.hypot(*np.diff(path, axis=0).T).sum(), rel=1e-12)


def test_nearest_neighbour_by_hand():
    assert nearest_neighbour({"xy": FIVE}) == [0, 1, 4, 2, 3]
    line = np.array([[0.0, 0.0], [1.0, 0.0], [-2.0, 0.0], [3.0, 0.0]])
    assert nearest_neighbour({"xy": line}) == [0, 1, 3, 2]


def test_two_opt_uncrosses_a_square():
    square = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    tour = two_opt({"xy": square}, range(4))
    assert tour_length(torch.tensor(square)[None], torch.tensor(tour)[None]).item() == pytest.approx(4.0)


def test_heuristics_on_many_points_are_as_good_as_they_are_known_to_be():
    instances = points(50, 10, seed=7)
    best = solve("tsp", instances, "fast_tsp").cost
    gaps = {name: (solve("tsp", instances, name).cost / best - 1).mean() for name in ("nearest_neighbour", "two_opt")}
    assert 0.0 < gaps["two_opt"] < 0.12 and 0.12 < gaps["nearest_neighbour"] < 0.4
    # Beardwood, Halton and Hammersley 1959, with the boundary term of Johnson and McGeoch 1996, n = 50
    assert best.mean() == pytest.approx(0.7124 * math.sqrt(50) * (1 + 0.33 / 50) + 0.65, rel=0.05)


@pytest.mark.parametrize("solver", FAST)
def test_equal_points_are_no_trouble(solver):
    solution = solve("tsp", np.full((1, 6, 2), 0.25), solver)
    assert solution.cost[0] == 0.0 and sorted(solution.solution[0]) == list(range(6))


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(UsageError, match="at most 9 points, got 10; use held_karp"):
        brute_force_tour({"xy": points(10, 1)[0]})
    with pytest.raises(UsageError, match="at most 16 points, got 17"):
        held_karp({"xy": points(17, 1)[0]})
    with pytest.raises(UsageError, match="fast_tsp"):
        solve("tsp", FIVE, "fast_tps")
    with pytest.raises(UsageError, match=r"shape \(B, N, 2\)"):
        solve("tsp", np.zeros((3, 3)))
    with pytest.raises(UsageError, match="not finite"):
        solve("tsp", np.array([[0.0, np.inf], [0.0, 0.0]]))


def test_a_larger_budget_of_fast_tsp_is_never_worse():
    instance = points(60, 1, seed=3)[0]
    lengths = [solve("tsp", instance, "two_opt").cost[0]]
    tour = fast_tsp({"xy": instance}, seconds=0.2)
    lengths.append(tour_length(torch.tensor(instance)[None], torch.tensor(tour)[None]).item())
    assert lengths[1] <= lengths[0] + 1e-9
