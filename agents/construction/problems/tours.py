"""Closed tours through all nodes: choices of a solution, and pieces cut out of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.construction.sub_instances import LEAST_ROWS, SubInstance, below, coin, lay_out
from polyathlon.envs.combinatorial.construction import ConstructionTask


def from_zero(tour: Tensor, size: Tensor) -> Tensor:
    """Turn closed tours [M, L] of `size` [M, 1] nodes so that they begin with node 0; -1 stands behind them."""
    place = torch.arange(tour.shape[1], device=tour.device)
    at_zero = (tour == 0).int().argmax(1, keepdim=True)
    turned = tour.gather(1, ((place + at_zero) % size).clamp(max=tour.shape[1] - 1))
    return torch.where(place < size, turned, -1)


def tour_choices(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    """Return the tours from node 0 on, see `ProblemKit.expert_choices`."""
    nodes = from_zero(solution, instance.size.unsqueeze(1))
    return nodes, torch.zeros_like(nodes)


def tour_piece(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Cut a piece of a closed tour: origin, destination and what lies between, in either direction where both are equal."""
    batch, size = nodes.shape[0], instance.size.unsqueeze(1)
    if sampling == "infix":
        start = below(instance.size, generator)
        length = LEAST_ROWS + below((instance.size + 2 - LEAST_ROWS).clamp(min=1), generator)
        length = length.minimum(instance.size + 1)
    else:  # rows k ... N of v_0 ... v_{N-1}, v_0 with 1 <= k <= N - 2
        start = 1 + below((instance.size - 2).clamp(min=1), generator)
        length = instance.size + 1 - start
    turn = torch.ones_like(start)
    if not hasattr(instance, "distances"):
        turn = torch.where(coin(batch, generator), -turn, turn)
        if sampling == "suffix":
            start = start * turn
    rows = torch.arange(task.table.num_rows, device=nodes.device).expand(batch, -1)
    position = (rows - 1).clamp(min=0)
    position[:, 1] = length - 1
    numbers = nodes.gather(1, (start.unsqueeze(1) + turn.unsqueeze(1) * position) % size)
    return lay_out(task, instance, numbers, length - 2, instance.amount, position, torch.zeros_like(start))
