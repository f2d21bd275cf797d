"""Instances of routing problems: generated from keys, or given by the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import check_choice

INSTANCE_STREAM = 1
_NUM_CLUSTERS = 5
_CLUSTER_WIDTH = 0.07


class Instance(NamedTuple):
    """A batch of instances.

    Attributes:
        nodes: [B, N, F] features of the nodes in [0, 1], a depot first; rows from `size` on are 0.
        amount: [B] float64 capacity or length allowed, in the units of the features; 0 where a task has none.
        size: [B] int64 number of nodes, with the depot.
        scale: [B] float64 what 1 in the features is worth in the units of the cost.
        reference: [B] float64 cost of a known solution, NaN where none is known.
    """

    nodes: Tensor
    amount: Tensor
    size: Tensor
    scale: Tensor
    reference: Tensor

    @property
    def xy(self) -> Tensor:
        """[B, N, 2] coordinates, of problems in the plane."""
        return self.nodes[..., :2]


class MatrixInstance(NamedTuple):
    """A batch of instances that are given by distances.

    Attributes:
        distances: [B, N, N] in [0, 1], from the node of the row to that of the column; 0 beyond `size`.
        nodes: [B, N, 1] distance of each node to node 0.
        amount, size, scale, reference: as in `Instance`.
    """

    distances: Tensor
    nodes: Tensor
    amount: Tensor
    size: Tensor
    scale: Tensor
    reference: Tensor


def constant(value: float, keys: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return [B] copies of a number, for keys [B, 2]."""
    return torch.full((keys.shape[0],), value, dtype=dtype, device=keys.device)


def plain_instance(keys: Tensor, nodes: Tensor, amount: Tensor | float = 0.0, scale: float = 1.0) -> Instance:
    """Make instances of full size without references, for keys [B, 2] and features [B, N, F]."""
    amounts = amount if isinstance(amount, Tensor) else constant(amount, keys)
    size = constant(nodes.shape[1], keys, torch.int64)
    return Instance(nodes, amounts, size, constant(scale, keys), constant(torch.nan, keys))


def uniform(keys: Tensor, num_points: int, dtype: torch.dtype) -> Tensor:
    """Draw points uniformly from the unit square.

    Args:
        keys: [B, 2] int64 random keys.
        num_points: number of points N.
        dtype: floating type of the coordinates.

    Returns:
        [B, N, 2] coordinates in [0, 1).
    """
    return random.uniform(keys, 0, (num_points, 2), dtype, stream=INSTANCE_STREAM)


def clusters(keys: Tensor, num_points: int, dtype: torch.dtype) -> Tensor:
    """Draw points around five uniform centres, normally with standard deviation 0.07, cut at the unit square.

    Args:
        keys: [B, 2] int64 random keys.
        num_points: number of points N.
        dtype: floating type of the coordinates.

    Returns:
        [B, N, 2] coordinates in [0, 1].
    """
    centres = random.uniform(keys, 0, (_NUM_CLUSTERS, 2), dtype, stream=INSTANCE_STREAM)
    choice = random.integers(keys, 1, 0, _NUM_CLUSTERS, (num_points,))
    noise = random.normal(keys, 2, (num_points, 2), dtype)
    own_centre = centres.gather(1, choice.long().unsqueeze(-1).expand(-1, -1, 2))
    return (own_centre + _CLUSTER_WIDTH * noise).clamp(0.0, 1.0)


DISTRIBUTIONS: dict[str, Callable[[Tensor, int, torch.dtype], Tensor]] = {"uniform": uniform, "clusters": clusters}


def distribution_named(name: str) -> Callable[[Tensor, int, torch.dtype], Tensor]:
    """Look up a generator of points.

    Raises:
        UsageError: there is no such distribution.
    """
    check_choice("distribution", name, DISTRIBUTIONS)
    return DISTRIBUTIONS[name]


def augment8(xy: Tensor) -> Tensor:
    """Return the eight symmetries of the unit square of each instance: tours keep their lengths.

    Args:
        xy: [B, N, 2] coordinates in the unit square.

    Returns:
        [8 B, N, 2]; rows k B to (k + 1) B hold the k-th symmetry, the first is the identity.
    """
    x, y = xy[..., 0], xy[..., 1]
    pairs = ((x, y), (1 - x, y), (x, 1 - y), (1 - x, 1 - y), (y, x), (1 - y, x), (y, 1 - x), (1 - y, 1 - x))
    return torch.cat([torch.stack(pair, dim=-1) for pair in pairs])
