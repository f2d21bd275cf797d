"""What is seen of a table of nodes, as features that do not depend on where the instance lies, how large it is or is turned.

In the plane the origin becomes (0, 0), the destination lies in the direction (1, 0), and the unit of length is the mean
distance of the kept rows to the origin, so that a large instance looks like a small one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.node_kinds import OPEN, PADDING

from .problems import Observation, Problem

NUM_NEAREST = 4
MOST = 4.0  # lengths above this many units are cut
MOST_IN_LOG = 6.0  # those above this many: beyond, small training instances have nothing to teach
MOST_OPEN = 40.0
TINY = 1e-6


class InvariantFeatures(NamedTuple):
    """Features of a table of K rows.

    Attributes:
        rows: [B, K, F] features of each row.
        whole: [B, G] features of the instance.
        pairs: tensors [B, K, K], features of each pair of rows.
        is_padding: [B, K] bool.
    """

    rows: Tensor
    whole: Tensor
    pairs: list[Tensor]
    is_padding: Tensor


def num_features(problem: Problem, num_sectors: int) -> tuple[int, int, int]:
    """Return the numbers of features of a row, of the instance and of a pair."""
    if problem.geometry == "items":
        return 6, 3, 0
    extra = {"CVRP": (3, 1), "OP": (4, 1)}.get(problem.name, (0, 0))
    if problem.geometry == "matrix":
        return 8 + 2 * NUM_NEAREST, 2, 4
    return 10 + NUM_NEAREST + extra[0], 3 + 2 * num_sectors + extra[1], 2


def invariant_features(
    obs: Observation, kept: Observation, index: Tensor | None, problem: Problem, num_sectors: int
) -> InvariantFeatures:
    """Return the view of the kept rows of an observation.

    Args:
        obs: the whole observation, of a table whose first rows are origin and destination.
        kept: the rows that are kept (see `select_rows`).
        index: [B, K] their places in the whole table; None where all are kept.
        problem: the problem.
        num_sectors: number of sectors around the origin in which the rows left out are summed up.
    """
    is_padding = kept["kind"] == PADDING
    num_open = (obs["kind"] == OPEN).sum(1, keepdim=True).clamp(min=1).to(kept["nodes"].dtype)
    if problem.geometry == "items":
        return _items(kept, is_padding, num_open)
    if problem.geometry == "matrix":
        return _matrix(kept, is_padding, num_open)
    return _plane(obs, kept, index, is_padding, num_open, problem, num_sectors)


def _log(length: Tensor) -> Tensor:
    return torch.log(length.clamp(max=MOST_IN_LOG) + 0.05)


def _nearest(distance: Tensor, is_padding: Tensor) -> Tensor:
    """Return [B, K, NUM_NEAREST] the distances to the nearest other rows."""
    kept = distance.shape[1]
    hidden = is_padding.unsqueeze(1) | torch.eye(kept, dtype=torch.bool, device=distance.device)
    hidden = hidden | is_padding.unsqueeze(2)
    found = distance.masked_fill(hidden, MOST).topk(min(NUM_NEAREST, kept), dim=2, largest=False).values
    return torch.nn.functional.pad(found.clamp(max=MOST), (0, NUM_NEAREST - found.shape[2]), value=MOST)


def _mean_of_open(length: Tensor, is_padding: Tensor) -> Tensor:
    """Return [B, 1] the mean over the open rows, which begin in the third."""
    used = ~is_padding[:, 2:]
    return ((length[:, 2:] * used).sum(1, keepdim=True) / used.sum(1, keepdim=True).clamp(min=1)).clamp(min=TINY)


def _plane(
    obs: Observation,
    kept: Observation,
    index: Tensor | None,
    is_padding: Tensor,
    num_open: Tensor,
    problem: Problem,
    num_sectors: int,
) -> InvariantFeatures:
    points = kept["nodes"][..., :2]
    from_origin = points - points[:, :1]
    unit = _mean_of_open(from_origin.norm(dim=2), is_padding)
    ahead = from_origin[:, 1]
    length = ahead.norm(dim=1, keepdim=True)
    is_path = length > TINY
    forward = torch.tensor([1.0, 0.0], dtype=points.dtype, device=points.device)
    direction = torch.where(is_path, ahead / length.clamp(min=TINY), forward)
    here = _turned(from_origin, direction) / unit.unsqueeze(2)
    reach = here.norm(dim=2, keepdim=True)
    there = _turned(points - points[:, 1:2], direction) / unit.unsqueeze(2)
    rest = there.norm(dim=2, keepdim=True)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / unit.unsqueeze(2)
    log_length = _log(length / unit)
    columns = [
        here * (MOST / reach.clamp(min=TINY)).clamp(max=1.0),
        reach.clamp(max=MOST),
        _log(reach),
        there / (rest + 0.1),
        _log(rest),
        rest.clamp(max=MOST),
        log_length.unsqueeze(1).expand_as(reach),
        is_path.to(points.dtype).unsqueeze(1).expand_as(reach),
        _nearest(distance, is_padding),
    ]
    whole = [num_open.clamp(max=MOST_OPEN).log(), 1.0 / num_open, log_length]
    if problem.has_amount:
        more, amount = _amounts(kept, unit, problem)
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


def _amounts(kept: Observation, unit: Tensor, problem: Problem) -> tuple[list[Tensor], Tensor]:
    """Return features of the rows and the instance that say what capacity or length is left."""
    nodes, left = kept["nodes"], kept["globals"][:, 1:2]
    own = nodes[..., 2:3]
    if problem.name == "CVRP":
        room = left.unsqueeze(1) - own
        return [own, room, (room >= -TINY).to(nodes.dtype)], left
    xy = nodes[..., :2]
    needed = (xy - xy[:, :1]).norm(dim=2, keepdim=True) + (xy - xy[:, 1:2]).norm(dim=2, keepdim=True)
    spare = left.unsqueeze(1) - needed
    local = spare / unit.unsqueeze(2)
    return [own, spare, local.clamp(-MOST, MOST), (spare >= -TINY).to(nodes.dtype)], _log(left.clamp(min=0) / unit)


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


def _matrix(kept: Observation, is_padding: Tensor, num_open: Tensor) -> InvariantFeatures:
    distance = kept["distances"]
    unit = _mean_of_open(distance[:, 0], is_padding)
    distance = distance / unit.unsqueeze(2)
    back = distance.transpose(1, 2)
    ends = torch.stack((distance[:, 0], distance[:, :, 0], distance[:, :, 1], distance[:, 1]), dim=2)
    rows = torch.cat([ends, _log(ends), _nearest(distance, is_padding), _nearest(back, is_padding)], dim=2)
    whole = torch.cat([num_open.clamp(max=MOST_OPEN).log(), _log(distance[:, 0, 1:2])], dim=1)
    return InvariantFeatures(
        rows, whole, [distance, torch.log(distance + 0.1), back, torch.log(back + 0.1)], is_padding
    )


def _items(kept: Observation, is_padding: Tensor, num_open: Tensor) -> InvariantFeatures:
    value, weight = kept["nodes"].unbind(2)
    left = kept["globals"][:, 1:2]
    worth = value / weight.clamp(min=1e-3)
    total = (weight * ~is_padding).sum(1, keepdim=True)
    # the value per weight at which the capacity would be spent if items were taken greedily
    order = worth.masked_fill(is_padding, -1.0).argsort(1, descending=True)
    filled = weight.gather(1, order).cumsum(1) <= left
    last = filled.sum(1, keepdim=True).clamp(max=weight.shape[1] - 1)
    critical = worth.gather(1, order.gather(1, last)).clamp(min=TINY)
    above = torch.log(worth.clamp(min=TINY) / critical).clamp(-MOST, MOST)
    rows = [value, weight, worth.clamp(max=MOST), above, weight / left.clamp(min=1e-3), (left - weight).clamp(max=1.0)]
    rows[4] = rows[4].clamp(max=MOST)
    whole = torch.cat(
        [
            num_open.clamp(max=MOST_OPEN).log(),
            left.clamp(min=TINY).log(),
            (left / total.clamp(min=TINY)).clamp(max=2.0),
        ],
        dim=1,
    )
    return InvariantFeatures(torch.stack(rows, dim=2), whole, [], is_padding)
