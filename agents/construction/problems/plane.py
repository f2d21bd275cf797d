"""Nodes in the plane: features that do not change when an instance is moved, turned or scaled, and the nearest nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from polyathlon.agents.construction.invariant_features import (
    MOST,
    MOST_OPEN,
    NUM_NEAREST,
    TINY,
    InvariantFeatures,
    capped_log,
    count_open,
    mean_of_open,
    nearest_distances,
)
from polyathlon.agents.construction.table_rows import FAR, Observation
from polyathlon.envs.combinatorial.node_kinds import OPEN, PADDING

Amounts = Callable[[Observation, Tensor], tuple[list[Tensor], Tensor]]


@dataclass(frozen=True)
class PlaneFeatures:
    """Features of nodes in the plane: the origin becomes (0, 0), the destination lies in the direction (1, 0).

    The unit of length is the mean distance of the kept rows to the origin, so that a large instance looks like a small one.

    Attributes:
        amounts: function of the kept rows and the unit [B, 1] that returns features of the rows, [B, K, 1] each, and one
            of the instance, [B, 1], which say what capacity or length is left; None where there is none.
        num_amounts: number of features of a row that `amounts` returns.
    """

    amounts: Amounts | None = None
    num_amounts: int = 0

    def sizes(self, num_sectors: int) -> tuple[int, int, int]:
        """Return the numbers of features of a row, of the instance and of a pair of rows."""
        whole = 3 + 2 * num_sectors + (self.amounts is not None)
        return 10 + NUM_NEAREST + self.num_amounts, whole, 2

    def __call__(
        self, obs: Observation, kept: Observation, index: Tensor | None, num_sectors: int
    ) -> InvariantFeatures:
        """Return the features of the kept rows, `sizes(num_sectors)` many."""
        is_padding, num_open = kept["kind"] == PADDING, count_open(obs)
        points = kept["nodes"][..., :2]
        from_origin = points - points[:, :1]
        unit = mean_of_open(from_origin.norm(dim=2), is_padding)
        ahead = from_origin[:, 1]
        length = ahead.norm(dim=1, keepdim=True)
        is_path = length > TINY
        forward = torch.eye(1, 2, dtype=points.dtype, device=points.device)[0]
        direction = torch.where(is_path, ahead / length.clamp(min=TINY), forward)
        here = _turned(from_origin, direction) / unit.unsqueeze(2)
        reach = here.norm(dim=2, keepdim=True)
        there = _turned(points - points[:, 1:2], direction) / unit.unsqueeze(2)
        rest = there.norm(dim=2, keepdim=True)
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / unit.unsqueeze(2)
        log_length = capped_log(length / unit)
        columns = [
            here * (MOST / reach.clamp(min=TINY)).clamp(max=1.0),
            reach.clamp(max=MOST),
            capped_log(reach),
            there / (rest + 0.1),
            capped_log(rest),
            rest.clamp(max=MOST),
            log_length.unsqueeze(1).expand_as(reach),
            is_path.to(points.dtype).unsqueeze(1).expand_as(reach),
            nearest_distances(distance, is_padding),
        ]
        whole = [num_open.clamp(max=MOST_OPEN).log(), 1.0 / num_open, log_length]
        if self.amounts is not None:
            more, amount = self.amounts(kept, unit)
            columns += more
            whole.append(amount)
        if num_sectors:
            whole += _sectors(obs, index, points[:, 0], direction, unit, num_open, num_sectors)
        rows = torch.cat(columns, dim=2)
        return InvariantFeatures(rows, torch.cat(whole, dim=1), [distance, torch.log(distance + 0.1)], is_padding)


def _turned(vectors: Tensor, direction: Tensor) -> Tensor:
    """Turn vectors [B, K, 2] so that `direction`, [B, 2] of length 1, becomes (1, 0)."""
    cos, sin = direction[:, None, 0], direction[:, None, 1]
    x, y = vectors.unbind(2)
    return torch.stack((x * cos + y * sin, y * cos - x * sin), dim=2)


def _sectors(
    obs: Observation,
    index: Tensor | None,
    origin: Tensor,
    direction: Tensor,
    unit: Tensor,
    num_open: Tensor,
    num_sectors: int,
) -> list[Tensor]:
    """Sum up the rows that are left out: their share and the logarithm of the nearest one's distance in each sector."""
    left_out = torch.zeros_like(obs["kind"], dtype=torch.bool)
    if index is not None:
        left_out = (obs["kind"] == OPEN).scatter(1, index, False)
    vectors = _turned(obs["nodes"][..., :2] - origin.unsqueeze(1), direction) / unit.unsqueeze(2)
    angle = torch.atan2(vectors[..., 1], vectors[..., 0])
    sector = ((angle / (2 * math.pi) + 0.5) * num_sectors).long().clamp(0, num_sectors - 1)
    empty = torch.zeros((origin.shape[0], num_sectors), dtype=origin.dtype, device=origin.device)
    share = empty.scatter_add(1, sector, left_out.to(origin.dtype)) / num_open
    far = 2 * MOST
    distance = vectors.norm(dim=2).clamp(max=far).masked_fill(~left_out, far)
    nearest = (empty + far).scatter_reduce(1, sector, distance, "amin")
    return [share, nearest.log() - 1.0]


def nearest_in_plane(obs: Observation, k: int) -> Tensor:
    """Return [B, min(k, R)] origin, destination and the open rows nearest to the origin, see `ProblemKit.neighbours`."""
    return nearest_of(distance_to_origin(obs), k)


def distance_to_origin(obs: Observation) -> Tensor:
    """Return [B, R - 2] how far (squared) the rows behind origin and destination are; 1e9 where none is open."""
    nodes = obs["nodes"]
    distance = (nodes[:, 2:, :2] - nodes[:, :1, :2]).square().sum(2)
    return distance.masked_fill(obs["kind"][:, 2:] != OPEN, FAR)


def nearest_of(distance: Tensor, k: int) -> Tensor:
    """Return [B, min(k, R)] origin, destination, which are kept in any case, and the rows of least `distance` [B, R - 2]."""
    ends = torch.arange(2, device=distance.device).expand(distance.shape[0], -1)
    kept = min(k, distance.shape[1] + 2) - 2
    return torch.cat([ends, distance.topk(kept, dim=1, largest=False).indices + 2], dim=1)
