"""The orienteering problem."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.construction.invariant_features import MOST, TINY, capped_log
from polyathlon.agents.construction.sub_instances import NOWHERE, SubInstance, below, coin, lay_out
from polyathlon.agents.construction.table_rows import FAR, TOLERANCE, Observation, all_if_none, at_kind
from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.combinatorial.node_kinds import DESTINATION, OPEN, ORIGIN

from .kit import ProblemKit, register_problem
from .plane import PlaneFeatures, distance_to_origin, nearest_of


def choices_without_depot(
    task: ConstructionTask, instance: Any, solution: Tensor, route_order: str
) -> tuple[Tensor, Tensor]:
    """Leave the depot out of tours that collect prizes, see `ProblemKit.expert_choices`."""
    count = task.num_points - 1
    order = (solution <= 0).int().argsort(dim=1, stable=True)
    nodes = solution.gather(1, order).masked_fill(solution.gather(1, order) <= 0, -1)
    nodes = torch.nn.functional.pad(nodes[:, :count], (0, max(0, count - nodes.shape[1])), value=-1)
    return nodes, torch.zeros_like(nodes)


def rest_of_tour(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Cut the rest of a tour that collects prizes, with all that is not on it, in either direction."""
    batch, most = nodes.shape
    count = (nodes >= 0).sum(1)
    place = torch.arange(most, device=nodes.device).expand(batch, -1)
    is_there = place < count.unsqueeze(1)
    turned = torch.where(coin(batch, generator).unsqueeze(1) & is_there, count.unsqueeze(1) - 1 - place, place)
    nodes = nodes.gather(1, turned)
    start = below(count.clamp(min=1), generator)
    walk = torch.cat([torch.zeros_like(nodes[:, :1]), nodes.clamp(min=0)], dim=1)
    xy = instance.nodes[..., :2].double()
    points = xy.gather(1, walk.unsqueeze(2).expand(-1, -1, 2))
    legs = (points[:, 1:] - points[:, :-1]).norm(dim=2)
    amount = instance.amount - (legs * (place < start.unsqueeze(1))).sum(1)
    origin = walk.gather(1, start.unsqueeze(1))
    is_on_tour = torch.zeros(batch, task.num_points + 1, dtype=torch.bool, device=nodes.device)
    is_on_tour.scatter_(1, torch.where(is_there, nodes, task.num_points), True)
    is_on_tour[:, 0] = True
    everything = torch.arange(task.num_points, device=nodes.device)
    is_free = ~is_on_tour[:, :-1] & (everything < instance.size.unsqueeze(1))
    rank = torch.full((batch, task.num_points), 3 * most, device=nodes.device)
    rank = torch.where(is_free, most + everything, rank)
    on_route = torch.where(is_there & (place >= start.unsqueeze(1)), place, 3 * most)
    wide = torch.cat([rank, torch.full_like(rank[:, :1], 3 * most)], 1)
    rank = wide.scatter(1, torch.where(is_there, nodes, task.num_points), on_route)[:, :-1]
    order = rank.argsort(1)
    ranked = rank.gather(1, order)
    numbers = torch.cat([origin, torch.zeros_like(origin), order], dim=1)
    stand = torch.where(start > 0, start - 1, -1).unsqueeze(1)
    on_way = torch.where(ranked < most, ranked, NOWHERE)
    position = torch.cat([stand, torch.full_like(stand, NOWHERE), on_way], dim=1)
    num_open = (rank < 3 * most).sum(1)
    return lay_out(task, instance, numbers, num_open, amount, position, torch.zeros_like(start))


def length_left(kept: Observation, unit: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return features of the rows and the instance that say what length is left, see `PlaneFeatures`."""
    nodes, left = kept["nodes"], kept["globals"][:, 1:2]
    xy = nodes[..., :2]
    needed = (xy - xy[:, :1]).norm(dim=2, keepdim=True) + (xy - xy[:, 1:2]).norm(dim=2, keepdim=True)
    spare = left.unsqueeze(1) - needed
    local = (spare / unit.unsqueeze(2)).clamp(-MOST, MOST)
    columns = [nodes[..., 2:3], spare, local, (spare >= -TINY).to(nodes.dtype)]
    return columns, capped_log(left.clamp(min=0) / unit)


def reachable(obs: Observation) -> Tensor:
    """Return [B, R] bool: the open nodes from where the depot can still be reached."""
    nodes, left = obs["nodes"], obs["globals"][:, 1:2] + TOLERANCE
    here, home = (at_kind(nodes, obs["kind"], kind)[:, None, :2] for kind in (ORIGIN, DESTINATION))
    needed = (nodes[..., :2] - here).norm(dim=2) + (nodes[..., :2] - home).norm(dim=2)
    return all_if_none((obs["kind"] == OPEN) & (needed <= left))


def nearest_and_prized(obs: Observation, k: int) -> Tensor:
    """Return [B, min(k, R)] origin, destination, half of the others the nearest and half those of the largest prize."""
    distance, is_closed = distance_to_origin(obs), obs["kind"][:, 2:] != OPEN
    half = (min(k, obs["nodes"].shape[1]) - 2) // 2
    prized = obs["nodes"][:, 2:, 2].masked_fill(is_closed, -1.0).topk(half, dim=1).indices
    distance = distance.scatter(1, prized, 2 * FAR)  # not chosen twice
    return torch.cat([nearest_of(distance, min(k, obs["nodes"].shape[1]) - half), prized + 2], dim=1)


register_problem(
    ProblemKit(
        task_class="polyathlon.envs.combinatorial.op:OP",
        geometry="plane",
        num_columns=3,
        instance_entry="xy",
        features=PlaneFeatures(length_left, 4),
        expert_choices=choices_without_depot,
        sub_instance=rest_of_tour,
        neighbours=nearest_and_prized,
        allowed=reachable,
        has_amount=True,
        is_symmetric=True,
    )
)
