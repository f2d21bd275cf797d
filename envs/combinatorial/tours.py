"""Lengths of tours and gaps to references, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1 << 20  # distances that are computed at once


def tour_length(xy: Tensor, tour: Tensor) -> Tensor:
    """Return the length of closed tours.

    Args:
        xy: [B, N, 2] coordinates.
        tour: [B, m] int64 the order in which points are visited; -1 after the last one of a shorter tour.

    Returns:
        [B] float64.
    """
    held = tour >= 0
    last = held.sum(1, keepdim=True) - 1
    # entries after the last point repeat it, so that their edges have no length and the closing edge stays right
    order = torch.where(held, tour, tour.gather(1, last.clamp(min=0)))
    points = xy.to(torch.float64).gather(1, order.unsqueeze(-1).expand(-1, -1, 2))
    return (points - points.roll(-1, dims=1)).norm(dim=-1).sum(1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distance [...] between points [..., 2] and [..., 2], which broadcast.

    Norms over an axis of two are many times slower than this.
    """
    dx, dy = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    return dx.mul_(dx).addcmul_(dy, dy).sqrt_()


def distance_matrix(xy: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances [N, N] float64 between points [N, 2]."""

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        dx, dy = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
        return np.sqrt(dx * dx + dy * dy)

    return matrix_by_blocks(np.asarray(xy, dtype=np.float64), between)


def matrix_by_blocks(xy: np.ndarray, between: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return a matrix [N, N] float64 between points [N, 2], some rows at a time, so that little else needs memory.

    Args:
        xy: the points.
        between: from points [K, 2] and [N, 2] to [K, N].
    """
    matrix = np.empty((len(xy), len(xy)))
    rows = max(1, _BLOCK // max(1, len(xy)))
    for first in range(0, len(xy), rows):
        matrix[first : first + rows] = between(xy[first : first + rows], xy)
    return matrix


def gap(cost: Tensor, reference: Tensor) -> Tensor:
    """Return how much worse than its reference each solution is: (cost - reference) / |reference|.

    The mean gap of a set is the mean of these ratios; a solution that beats a heuristic reference has a negative gap.
    Where a task collects, its cost is negative, and a gap of 0.1 means a tenth less collected.

    Args:
        cost: [B] float64.
        reference: [B] float64, not 0, NaN where unknown.

    Returns:
        [B] float64, NaN where the reference is unknown.
    """
    return (cost - reference) / reference.abs()
