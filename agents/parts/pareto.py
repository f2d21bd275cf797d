"""Sets of vector returns: dominance, crowding, and the measures by which fronts are compared. Every objective is maximised."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, require

EXACT_OBJECTIVES = 6  # beyond, the exact volume takes time exponential in the number of objectives


def pareto_mask(points: Tensor, reference: Tensor | None = None) -> Tensor:
    """Tell which points no other point dominates; of equal points the last one counts, one with a NaN never.

    Args:
        points: [A, m] returns.
        reference: [m]; points that fall below it in some objective do not count. None lets all count.

    Returns:
        [A] bool.
    """
    counts = ~points.isnan().any(1)  # nothing dominates a NaN, which would stay in the front for good
    if reference is not None:
        counts = counts & (points >= reference).all(1)
    is_as_good = (points.unsqueeze(0) >= points.unsqueeze(1)).all(2)  # [i, j]: j is at least as good as i
    is_equal = is_as_good & is_as_good.t()
    order = torch.arange(points.shape[0], device=points.device)
    is_beaten = (is_as_good & ~is_equal) | (is_equal & (order.unsqueeze(0) > order.unsqueeze(1)))
    return counts & ~(is_beaten & counts.unsqueeze(0)).any(1)


def crowding_distance(points: Tensor) -> Tensor:
    """Return how far apart the neighbours of each point are (Deb et al. 2002, section III-B).

    In each objective a point gets (f_{k+1} - f_{k-1}) / (f_max - f_min), its neighbours in sorted order; the ends get
    infinity; the objectives are summed.

    Args:
        points: [A, m] returns.

    Returns:
        [A].
    """
    number = points.shape[0]
    if number < 3:
        return points.new_full((number,), math.inf)
    total = points.new_zeros(number)
    for column in points.unbind(1):
        values, order = column.sort(stable=True)
        extent = values[-1] - values[0]
        if extent == 0:  # an objective in which all are equal tells nothing apart
            continue
        distance = torch.full_like(values, math.inf)
        distance[1:-1] = (values[2:] - values[:-2]) / extent
        total[order] += distance
    return total


def hypervolume(points: Tensor, reference: Tensor) -> float:
    """Return the volume that points dominate above a reference point.

    Exact up to six objectives, beyond a deterministic approximation; by `moocore` (Fonseca et al. 2006).

    Args:
        points: [A, m] returns.
        reference: [m].

    Raises:
        ImportError: `moocore` is not installed.
    """
    moocore = require("moocore", "multiobjective")
    inside = points[(points > reference).all(1)].double().cpu().numpy()
    if not len(inside):
        return 0.0
    measure = moocore.hypervolume if points.shape[1] <= EXACT_OBJECTIVES else moocore.hv_approx
    if points.shape[1] == 1:
        return float(inside.max() - float(reference[0]))
    return float(measure(inside, ref=reference.double().cpu().numpy(), maximise=True))


def expected_utility(points: Tensor, weights: Tensor) -> float:
    """Return the mean over preferences w of max_f w . f: what a user with a random linear utility gets.

    Args:
        points: [A, m] returns.
        weights: [W, m] preferences.
    """
    return float((weights.to(points) @ points.t()).max(1).values.mean())


def sparsity(points: Tensor) -> float:
    """Return (1 / (A - 1)) sum_j sum_k (sorted f_j(k + 1) - sorted f_j(k))^2 (Xu et al. 2020, equation 3); 0 for one point.

    Args:
        points: [A, m] returns of a front.
    """
    if points.shape[0] < 2:
        return 0.0
    gaps = points.sort(0).values.diff(dim=0)
    return float(gaps.square().sum() / (points.shape[0] - 1))


def simplex_grid(num_objectives: int, divisions: int) -> Tensor:
    """Return all preferences whose entries are multiples of 1 / divisions and sum to 1.

    Args:
        num_objectives: m.
        divisions: number of equal steps from 0 to 1.

    Returns:
        [W, m], W = (divisions + m - 1) choose (m - 1), in float64.

    Raises:
        UsageError: a number is not positive.
    """
    if num_objectives < 1 or divisions < 1:
        raise UsageError(f"a grid needs at least one objective and one division, got {num_objectives} and {divisions}")
    places = divisions + num_objectives - 1
    rows = []
    for bars in combinations(range(places), num_objectives - 1):
        edges = (-1, *bars, places)
        rows.append([edges[k + 1] - edges[k] - 1 for k in range(num_objectives)])
    # whole numbers are divided once, so that no entry is off by a rounding error
    return torch.tensor(rows[::-1], dtype=torch.float64) / divisions


def spread_weights(num_objectives: int, number: int) -> Tensor:
    """Return preferences that are spread over the simplex: for two objectives evenly, beyond each as far as can be from the others.

    Args:
        num_objectives: m.
        number: how many.

    Returns:
        [number, m] float64; one alone is the equal preference.
    """
    if number == 1 or num_objectives == 1:
        return torch.full((number, num_objectives), 1.0 / num_objectives, dtype=torch.float64)
    if num_objectives == 2:
        return simplex_grid(2, number - 1)
    divisions = 1
    while math.comb(divisions + num_objectives - 1, num_objectives - 1) < 4 * number:
        divisions += 1
    grid = simplex_grid(num_objectives, divisions)
    chosen = [0]
    distance = (grid - grid[0]).norm(dim=1)
    while len(chosen) < number:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (grid - grid[chosen[-1]]).norm(dim=1))
    return grid[chosen]
