"""The knapsack problem."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.construction.invariant_features import MOST, MOST_OPEN, TINY, InvariantFeatures, count_open
from polyathlon.agents.construction.sub_instances import NOWHERE, SubInstance, below, lay_out
from polyathlon.agents.construction.table_rows import TOLERANCE, Observation, all_if_none
from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.combinatorial.node_kinds import OPEN, PADDING

from .kit import ProblemKit, register_problem


class ItemFeatures:
    """Features of items, compared with the value per weight at which the capacity would be spent greedily."""

    def sizes(self, num_sectors: int) -> tuple[int, int, int]:
        """Return the numbers of features of a row, of the instance and of a pair of rows."""
        return 6, 3, 0

    def __call__(
        self, obs: Observation, kept: Observation, index: Tensor | None, num_sectors: int
    ) -> InvariantFeatures:
        """Return the features of the kept rows."""
        is_padding, num_open = kept["kind"] == PADDING, count_open(obs)
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
        rows = [
            value,
            weight,
            worth.clamp(max=MOST),
            above,
            weight / left.clamp(min=1e-3),
            (left - weight).clamp(max=1.0),
        ]
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


def packing_choices(task: ConstructionTask, instance: Any, solution: Tensor, route_order: str) -> tuple[Tensor, Tensor]:
    """Return the items as they are, see `ProblemKit.expert_choices`."""
    return solution, torch.zeros_like(solution)


def rest_of_packing(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Leave some random items of the packing out of the knapsack again; the next item is any of these."""
    batch = nodes.shape[0]
    is_there = nodes >= 0
    count = is_there.sum(1)
    keep = 1 + below(count.clamp(min=1), generator)  # of the solution's items, those still to be packed
    draw = torch.rand(nodes.shape, generator=generator, device=nodes.device).masked_fill(~is_there, 2.0)
    is_kept = (draw.argsort(1).argsort(1) < keep.unsqueeze(1)) & is_there
    spare = torch.zeros(batch, task.num_points + 1, dtype=torch.int64, device=nodes.device)
    mark = torch.where(is_kept, 1, 2)  # 0 not in the solution, 1 still to be packed, 2 packed
    mark = spare.scatter(1, torch.where(is_there, nodes, task.num_points), mark)[:, :-1]
    everything = torch.arange(task.num_points, device=nodes.device)
    mark = torch.where(everything < instance.size.unsqueeze(1), mark, 3)
    order = torch.tensor([1, 0, 2, 3], device=nodes.device)[mark].argsort(dim=1, stable=True)
    weight = instance.nodes[..., 1].double()
    amount = instance.amount - (weight * (mark == 2)).sum(1)
    num_open = (mark < 2).sum(1)
    position = torch.full_like(order, NOWHERE)
    cut = lay_out(task, instance, order, num_open, amount, position)
    wanted = mark.gather(1, order) == 1
    target = wanted.to(cut.target.dtype) / wanted.sum(1, keepdim=True).clamp(min=1)
    return cut._replace(target=target, mask=cut.mask | wanted)


def fitting_items(obs: Observation) -> Tensor:
    """Return [B, R] bool: the open items that fit into the capacity left."""
    fits = obs["nodes"][..., 1] <= obs["globals"][:, 1:2] + TOLERANCE
    return all_if_none((obs["kind"] == OPEN) & fits)


def most_worth(obs: Observation, k: int) -> Tensor:
    """Return [B, min(k, R)] the open items of highest value per weight, see `ProblemKit.neighbours`."""
    nodes = obs["nodes"]
    worth = (nodes[..., 0] / nodes[..., 1].clamp(min=1e-9)).masked_fill(obs["kind"] != OPEN, -1.0)
    return worth.topk(min(k, nodes.shape[1]), dim=1).indices


register_problem(
    ProblemKit(
        task_class="polyathlon.envs.combinatorial.knapsack:Knapsack",
        geometry="items",
        num_columns=2,
        instance_entry="value",
        features=ItemFeatures(),
        expert_choices=packing_choices,
        sub_instance=rest_of_packing,
        neighbours=most_worth,
        allowed=fitting_items,
        has_amount=True,
    )
)
