"""Fronts against values worked out by hand, and against brute force."""

from __future__ import annotations

import math

import pytest
import torch

from polyathlon.agents.parts.pareto import (
    crowding_distance,
    expected_utility,
    hypervolume,
    pareto_mask,
    simplex_grid,
    sparsity,
    spread_weights,
)
from polyathlon.envs.errors import UsageError

FRONT = torch.tensor([(1, 4), (2, 3.5), (3, 2), (4, 0.5)], dtype=torch.float64)


def test_measures_of_a_front_of_four():
    pytest.importorskip("moocore")
    assert hypervolume(FRONT, torch.zeros(2)) == pytest.approx(10.0)
    weights = simplex_grid(2, 4)
    best = (weights @ FRONT.t()).max(1).values
    assert sorted(best.tolist()) == pytest.approx(sorted([4, 3.25, 2.75, 3.125, 4]))
    assert expected_utility(FRONT, weights) == pytest.approx(3.425)
    assert sparsity(FRONT) == pytest.approx(2.58333, abs=1e-5)
    distance = crowding_distance(FRONT)
    assert distance.tolist() == pytest.approx([math.inf, 1.23810, 1.52381, math.inf], abs=1e-5)


def test_hypervolume_in_one_three_and_seven_dimensions():
    pytest.importorskip("moocore")
    three = torch.tensor([(1.0, 1, 2), (2, 1, 1), (1, 2, 1)])
    assert hypervolume(three, torch.zeros(3)) == pytest.approx(4.0)
    assert hypervolume(torch.tensor([[2.0], [5.0]]), torch.tensor([1.0])) == pytest.approx(4.0)
    assert hypervolume(torch.full((1, 7), 2.0), torch.zeros(7)) == pytest.approx(2.0**7, rel=0.05)


def test_what_does_not_exceed_the_reference_has_no_volume():
    pytest.importorskip("moocore")
    assert hypervolume(FRONT, torch.tensor([4.0, 0.0])) == 0.0
    assert hypervolume(torch.zeros(0, 2), torch.zeros(2)) == 0.0


def test_dominance_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    points = torch.randint(0, 5, (60, 3), generator=generator).double()
    found = pareto_mask(points)
    for i, point in enumerate(points):
        beaten = any(
            bool((other >= point).all()) and (bool((other > point).any()) or j > i)
            for j, other in enumerate(points)
            if j != i
        )
        assert bool(found[i]) == (not beaten)


def test_of_equal_points_the_last_is_kept():
    assert pareto_mask(torch.tensor([(1.0, 1.0), (0.0, 2.0), (1.0, 1.0)])).tolist() == [False, True, True]


def test_a_point_below_the_reference_does_not_count_and_hides_nobody():
    points = torch.tensor([(5.0, -1.0), (4.0, 0.0), (5.0, -2.0)])
    assert pareto_mask(points, torch.tensor([0.0, 0.0])).tolist() == [False, True, False]


def test_crowding_of_few_or_equal_points():
    assert crowding_distance(FRONT[:2]).tolist() == [math.inf, math.inf]
    flat = torch.tensor([(0.0, 1.0), (1.0, 1.0), (3.0, 1.0)])
    assert crowding_distance(flat).tolist() == [math.inf, 1.0, math.inf]
    assert sparsity(FRONT[:1]) == 0.0


def test_a_better_point_never_lowers_the_measures():
    pytest.importorskip("moocore")
    more = torch.cat([FRONT, torch.tensor([(2.5, 3.4)], dtype=torch.float64)])
    assert hypervolume(more, torch.zeros(2)) > hypervolume(FRONT, torch.zeros(2))
    assert expected_utility(more, simplex_grid(2, 10)) >= expected_utility(FRONT, simplex_grid(2, 10))


@pytest.mark.parametrize(("objectives", "divisions", "number"), [(1, 5, 1), (2, 100, 101), (3, 5, 21), (6, 4, 126)])
def test_a_grid_covers_the_simplex_once(objectives, divisions, number):
    grid = simplex_grid(objectives, divisions)
    assert grid.shape == (number, objectives) and len(grid.unique(dim=0)) == number
    assert torch.allclose(grid.sum(1), torch.ones(number, dtype=torch.float64)) and (grid >= 0).all()
    with pytest.raises(UsageError, match="at least one"):
        simplex_grid(0, divisions)


def test_weights_are_spread_and_begin_with_single_objectives():
    assert spread_weights(2, 3).tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert spread_weights(3, 1).tolist() == [pytest.approx([1 / 3] * 3)]
    assert spread_weights(1, 4).tolist() == [[1.0]] * 4
    three = spread_weights(3, 6)
    assert torch.cdist(three, three).add(torch.eye(6) * 9).min() > 0.4
    assert (three.max(1).values == 1).sum() == 3
