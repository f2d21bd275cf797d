"""Solved instances to imitate, as sequences of choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.combinatorial import instances
from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.errors import UsageError, unknown_name

ROUTE_ORDERS = ("fullest_first", "as_given", "random")


class LabelledInstances(NamedTuple):
    """A set of M solved instances.

    Attributes:
        instance: the instances, see `polyathlon.envs.combinatorial.instances`.
        nodes: [M, L] int64 the choices in order, -1 behind: the closed tour from node 0 on (TSP, ATSP), customers (CVRP),
            nodes on the tour without the depot (OP), items (Knapsack).
        via: [M, L] int64, 1 where a customer is reached by the depot; 0 at the first one.
        cost: [M] float64 what the solutions cost.
    """

    instance: Any
    nodes: Tensor
    via: Tensor
    cost: Tensor

    def __len__(self) -> int:
        return len(self.cost)

    def to(self, device: torch.device) -> LabelledInstances:
        """Return a copy on a device."""
        instance = type(self.instance)(*(part.to(device) for part in self.instance))
        return LabelledInstances(instance, self.nodes.to(device), self.via.to(device), self.cost.to(device))


def as_choices(
    task: ConstructionTask, instance: Any, solution: Any, route_order: str = "fullest_first"
) -> LabelledInstances:
    """Turn instances and solutions into choices to imitate, playing each solution to see that it is one.

    Args:
        task: the task, with `mdp="bq"`.
        instance: M instances as `task.generate` or `task.read` makes them.
        solution: [M, L] integers in the form of `info["solution"]`, -1 behind.
        route_order: of CVRP: "fullest_first" puts the routes in ascending order of the capacity that they leave over, so
            that the last one has the most room (it halves the gap, Drakulic et al. 2023); "as_given" keeps them, "random"
            shuffles them.

    Raises:
        UsageError: a solution is not feasible, or `route_order` is unknown.
    """
    if route_order not in ROUTE_ORDERS:
        raise unknown_name("route order", route_order, ROUTE_ORDERS)
    solution = torch.as_tensor(solution, dtype=torch.int64, device=task.device)
    if solution.dim() != 2 or solution.shape[0] != instance.size.shape[0]:
        raise UsageError(
            f"solutions have the shape (number of instances, length), got {tuple(solution.shape)} for {instance.size.shape[0]} instances"
        )
    name = type(task).__name__
    nodes, via = _CHOICES[name](task, instance, solution, route_order)
    return LabelledInstances(instance, nodes, via, play(task, instance, nodes, via))


def play(task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor) -> Tensor:
    """Play sequences of choices and return what they cost, [M] float64.

    Args:
        task: the task, with `mdp="bq"`.
        instance: M instances.
        nodes: [M, L] as in `LabelledInstances`.
        via: [M, L] as in `LabelledInstances`.

    Raises:
        UsageError: a choice is not allowed, or something is left to do at the end.
    """
    count = instance.size.shape[0]
    state = task.begin(torch.zeros((count, 2), dtype=torch.int64, device=task.device), instance)
    is_tour = type(task).__name__ in ("TSP", "ATSP")
    done = torch.zeros(count, dtype=torch.bool, device=task.device)
    for step in range(int(is_tour), nodes.shape[1]):
        node = nodes[:, step]
        is_choice = node >= 0
        row = task.table.row_of(state.rows, node.clamp(min=0))
        action = row * task.actions_per_row + (via[:, step] if task.actions_per_row > 1 else 0)
        number = task.table.number(state.rows, row)
        right = state.allowed.gather(1, action.unsqueeze(1)).squeeze(1) & (number == node) & ~done
        if bool((is_choice & ~right).any()):
            bad = int((is_choice & ~right).nonzero()[0])
            raise UsageError(
                f"the solution of instance {bad} is not feasible: node {int(node[bad])} cannot be chosen as number {step}"
            )
        after, _, is_over = task.step(state, torch.where(is_choice, action, state.allowed.int().argmax(1)))
        state = choose(is_choice, after, state)
        done = done | (is_choice & is_over)
    if task.has_route and type(task).__name__ != "OP" and not bool(done.all()):
        bad = int((~done).nonzero()[0])
        raise UsageError(f"the solution of instance {bad} leaves nodes out")
    return state.cost


def packed(solved: LabelledInstances) -> tuple[str, list[Tensor], list[Tensor]]:
    """Return solved instances as plain lists on the CPU, for a file."""
    cpu = solved.to(torch.device("cpu"))
    return type(cpu.instance).__name__, list(cpu.instance), [cpu.nodes, cpu.via, cpu.cost]


def unpacked(content: tuple[str, list[Tensor], list[Tensor]]) -> LabelledInstances:
    """Return what `packed` was given."""
    kind, parts, rest = content
    return LabelledInstances(getattr(instances, kind)(*parts), *rest)


class LabelsState:
    """What is imitated, as a state of the agent.

    Args:
        agent: has `_solved`, None before there is something to imitate.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return the solved instances."""
        return {"solved": None if self.agent._solved is None else packed(self.agent._solved)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Imitate them."""
        if state["solved"] is not None:
            self.agent._solved = unpacked(state["solved"]).to(self.agent.device)


def choose(mask: Tensor, first: Any, second: Any) -> Any:
    """Take the rows of `first` where `mask` [B] is True and those of `second` elsewhere, in a tree of tensors [B, ...]."""
    if first is second:
        return first
    if isinstance(first, Tensor):
        return torch.where(mask.view(-1, *[1] * (first.dim() - 1)), first, second)
    return type(first)(*(choose(mask, a, b) for a, b in zip(first, second)))


def from_zero(tour: Tensor, size: Tensor) -> Tensor:
    """Turn closed tours [M, L] of `size` [M, 1] nodes so that they begin with node 0; -1 stands behind them."""
    place = torch.arange(tour.shape[1], device=tour.device)
    at_zero = (tour == 0).int().argmax(1, keepdim=True)
    turned = tour.gather(1, ((place + at_zero) % size).clamp(max=tour.shape[1] - 1))
    return torch.where(place < size, turned, -1)


def _tour(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    nodes = from_zero(solution, instance.size.unsqueeze(1))
    return nodes, torch.zeros_like(nodes)


def _walk(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    """Split walks at the depot into routes, and put these in order."""
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


def _without_depot(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    """Leave the depot out of tours that collect prizes."""
    count = task.num_points - 1
    order = (solution <= 0).int().argsort(dim=1, stable=True)
    nodes = solution.gather(1, order).masked_fill(solution.gather(1, order) <= 0, -1)
    nodes = torch.nn.functional.pad(nodes[:, :count], (0, max(0, count - nodes.shape[1])), value=-1)
    return nodes, torch.zeros_like(nodes)


def _packing(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    return solution, torch.zeros_like(solution)


_CHOICES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "TSP": _tour,
    "ATSP": _tour,
    "CVRP": _walk,
    "OP": _without_depot,
    "Knapsack": _packing,
}
