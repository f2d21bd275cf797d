"""Vehicle routing with capacities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyathlon.agents.construction.invariant_features import TINY
from polyathlon.agents.construction.sub_instances import NOWHERE, SubInstance, below, coin, lay_out
from polyathlon.agents.construction.table_rows import TOLERANCE, Observation, all_if_none
from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.combinatorial.node_kinds import OPEN
from polyathlon.envs.errors import UsageError

from .kit import ProblemKit, register_problem
from .plane import PlaneFeatures, nearest_in_plane


def route_choices(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    """Split walks at the depot into routes, and put these in order, see `ProblemKit.expert_choices`."""
    count = task.num_points - 1
    nodes = torch.full((len(solution), count), -1, dtype=torch.int64)
    via = torch.zeros_like(nodes)
    demand = instance.nodes[..., 2].double().cpu()
    for i, walk in enumerate(solution.cpu().tolist()):
        routes: list[list[int]] = [[]]
        for node in walk:
            if node > 0:
                routes[-1].append(node)
            elif routes[-1]:
                routes.append([])
        routes = [route for route in routes if route]
        if route_order == "fullest_first":
            routes.sort(key=lambda route: -float(demand[i, route].sum()))
        elif route_order == "random":
            routes = [routes[j] for j in np.random.default_rng(i).permutation(len(routes))]
        flat = [node for route in routes for node in route]
        if len(flat) > count:
            raise UsageError(f"the solution of instance {i} visits {len(flat)} customers, there are {count}")
        nodes[i, : len(flat)] = torch.tensor(flat)
        starts = torch.tensor([len(route) for route in routes]).cumsum(0)[:-1]
        via[i, starts] = 1
    return nodes.to(task.device), via.to(task.device)


def rest_of_routes(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Cut a walk by the depot: from the depot or a customer to the end of a vehicle's route, routes in either direction."""
    batch, most = nodes.shape
    count = instance.size - 1
    place = torch.arange(most, device=nodes.device).expand(batch, -1)
    is_there = place < count.unsqueeze(1)
    route = via.cumsum(1).masked_fill(~is_there, most)
    first = torch.full_like(route, most)
    first = first.scatter_reduce(1, route.clamp(max=most - 1), torch.where(is_there, place, most), "amin")
    last = torch.zeros_like(route)
    last = last.scatter_reduce(1, route.clamp(max=most - 1), torch.where(is_there, place, 0), "amax")
    own_first, own_last = first.gather(1, route.clamp(max=most - 1)), last.gather(1, route.clamp(max=most - 1))
    turned = torch.where(coin(batch, generator).unsqueeze(1) & is_there, own_first + own_last - place, place)
    nodes = nodes.gather(1, turned)
    start = below(
        count, generator
    )  # the first place that remains; the walk stands at the one before, at first at the depot
    start_route = route.gather(1, start.unsqueeze(1)).squeeze(1)
    end = count - 1
    if sampling == "infix":
        num_routes = via.masked_fill(~is_there, 0).sum(1) + 1
        end_route = start_route + below(num_routes - start_route, generator)
        end = last.gather(1, end_route.unsqueeze(1)).squeeze(1)
    num_open = end - start + 1
    before = (start - 1).clamp(min=0).unsqueeze(1)
    origin = torch.where(start.unsqueeze(1) > 0, nodes.gather(1, before), 0)
    demand = instance.nodes[..., 2].double().gather(1, nodes.clamp(min=0))
    is_served = (place < start.unsqueeze(1)) & (route == route.gather(1, before)) & (start > 0).unsqueeze(1)
    amount = instance.amount - (demand * is_served).sum(1)
    rest = (start.unsqueeze(1) + place).clamp(max=most - 1)
    numbers = torch.cat([origin, torch.zeros_like(origin), nodes.gather(1, rest).clamp(min=0)], dim=1)
    stand = torch.where(start > 0, start - 1 + route.gather(1, before).squeeze(1), NOWHERE).unsqueeze(1)
    position = torch.cat([stand, torch.full_like(stand, NOWHERE), rest + route.gather(1, rest)], dim=1)
    next_via = via.gather(1, start.unsqueeze(1)).squeeze(1)
    return lay_out(task, instance, numbers, num_open, amount, position, next_via * (start > 0))


def room(kept: Observation, unit: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return features of the rows and the instance that say what capacity is left, see `PlaneFeatures`."""
    nodes, left = kept["nodes"], kept["globals"][:, 1:2]
    demand = nodes[..., 2:3]
    spare = left.unsqueeze(1) - demand
    return [demand, spare, (spare >= -TINY).to(nodes.dtype)], left


def servable(obs: Observation) -> Tensor:
    """Return [B, 2 R] bool: the open customers whose demand is on board, and all open ones by the depot."""
    allowed = obs["kind"] == OPEN
    fits = obs["nodes"][..., 2] <= obs["globals"][:, 1:2] + TOLERANCE
    return all_if_none(torch.stack((allowed & fits, allowed), dim=2).flatten(1))


register_problem(
    ProblemKit(
        task_class="polyathlon.envs.combinatorial.cvrp:CVRP",
        geometry="plane",
        num_columns=3,
        instance_entry="xy",
        features=PlaneFeatures(room, 3),
        expert_choices=route_choices,
        sub_instance=rest_of_routes,
        neighbours=nearest_in_plane,
        allowed=servable,
        has_amount=True,
        actions_per_row=2,
        visits_all=True,
        is_symmetric=True,
        has_route_order=True,
    )
)
