"""Solved instances to imitate, as sequences of choices."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.errors import UsageError, unknown_name

from .problems.kit import kit_of

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
    nodes, via = kit_of(task).expert_choices(task, instance, solution, route_order)
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
    kit = kit_of(task)
    done = torch.zeros(count, dtype=torch.bool, device=task.device)
    for step in range(int(kit.is_tour), nodes.shape[1]):
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
    if kit.visits_all and not bool(done.all()):
        bad = int((~done).nonzero()[0])
        raise UsageError(f"the solution of instance {bad} leaves nodes out")
    return state.cost


def packed(solved: LabelledInstances) -> tuple[str, list[Tensor], list[Tensor]]:
    """Return solved instances as plain lists on the CPU, for a file, with the class of the instances as "module:Class"."""
    cpu = solved.to(torch.device("cpu"))
    kind = type(cpu.instance)
    return f"{kind.__module__}:{kind.__qualname__}", list(cpu.instance), [cpu.nodes, cpu.via, cpu.cost]


def unpacked(content: tuple[str, list[Tensor], list[Tensor]]) -> LabelledInstances:
    """Return what `packed` was given.

    Raises:
        UsageError: the class of the instances is no NamedTuple of as many fields.
    """
    path, parts, rest = content
    module, _, name = path.partition(":")
    kind = getattr(importlib.import_module(module), name, None)
    if len(getattr(kind, "_fields", ())) != len(parts):
        raise UsageError(f"{path} is no NamedTuple of {len(parts)} fields, as the instances in the file are")
    return LabelledInstances(kind(*parts), *rest)  # type: ignore[misc]


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
