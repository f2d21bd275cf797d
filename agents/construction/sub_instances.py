"""Sub-instances cut out of solved instances: what remains to be solved after some of the choices, and the next choice.

What remains of an optimal solution is an optimal solution of what remains, so that every cut of one solved instance is a
solved instance of its own (Drakulic et al. 2023, section 4.2). A batch of cuts needs one forward pass and no rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.construction import ConstructionTask, State
from polyathlon.envs.combinatorial.tables import ReducedRows
from polyathlon.envs.errors import unknown_name

from .expert_data import LabelledInstances
from .problems import Observation

FIRST = 2  # row of the next node on the route: cuts lay the open nodes out in the order of the solution
LEAST_ROWS = 4
SAMPLINGS = ("infix", "suffix")


class SubInstance(NamedTuple):
    """A batch of sub-instances with their next choices.

    Attributes:
        obs: what the task shows of them.
        mask: [B, A] bool, the allowed actions.
        target: [B, A] probabilities of the next action.
        position: [B, R] int64 place of each row on the route, such that neighbours on it differ by 1; far below 0 elsewhere.
    """

    obs: Observation
    mask: Tensor
    target: Tensor
    position: Tensor


NOWHERE = -(10**6)


def sample_sub_instances(
    task: ConstructionTask,
    labels: LabelledInstances,
    which: Tensor,
    generator: torch.Generator,
    sampling: str,
    augment: bool,
) -> SubInstance:
    """Cut one sub-instance out of each of some solved instances.

    Args:
        task: the task, with `mdp="bq"`.
        labels: solved instances.
        which: [B] int64 which of them.
        generator: source of randomness, on their device.
        sampling: "infix" (from anywhere on the solution to anywhere, as far as what remains is of the same form: to the
            end of a vehicle's route of CVRP, to the depot of orienteering) or "suffix" (to the end of the solution; of
            tours with 3 to N rows, as in the paper's code, which never shows the closed tour).
        augment: draw one of the eight symmetries of the square for instances in the plane.

    Raises:
        UsageError: there is no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise unknown_name("sampling", sampling, SAMPLINGS)
    instance = type(labels.instance)(*(part[which] for part in labels.instance))
    if augment and "x" in task.features:
        instance = mirrored(instance, generator)
    nodes = labels.nodes[which]
    return _SAMPLERS[type(task).__name__](task, instance, nodes, labels.via[which], generator, sampling)


def share(cut: SubInstance, rank: int, size: int) -> SubInstance:
    """Return the rows of a batch that fall to process `rank` of `size`."""
    if size == 1:
        return cut
    rows = torch.arange(rank, len(cut.target), size, device=cut.target.device)
    obs = {key: value[rows] for key, value in cut.obs.items()}
    return SubInstance(obs, cut.mask[rows], cut.target[rows], cut.position[rows])


def mirrored(instance: Any, generator: torch.Generator) -> Any:
    """Return instances in the unit square, each under a random one of the square's eight symmetries."""
    batch, device = instance.nodes.shape[0], instance.nodes.device
    flip, swap = torch.randint(2, (2, batch, 1, 2), generator=generator, device=device).bool()
    xy = torch.where(flip, 1.0 - instance.nodes[..., :2], instance.nodes[..., :2])
    xy = torch.where(swap[..., :1], xy.flip(2), xy)
    return instance._replace(nodes=torch.cat([xy, instance.nodes[..., 2:]], dim=2))


def _below(bound: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from 0 ... bound - 1 for each bound, [B] int64, at least 1."""
    draw = torch.rand(bound.shape, dtype=torch.float64, generator=generator, device=bound.device)
    return (draw * bound).long().minimum(bound - 1)


def _coin(batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (batch,), generator=generator, device=generator.device).bool()


def _make(
    task: ConstructionTask,
    instance: Any,
    numbers: Tensor,
    num_open: Tensor,
    amount: Tensor,
    position: Tensor,
    via: Tensor | None = None,
) -> SubInstance:
    """Lay out the table whose rows hold the nodes `numbers` [B, R], and let the task say what is seen and allowed.

    With `via`, [B] 0 or 1, the target is the node in the first open row.
    """
    num_rows = task.table.num_rows
    numbers, position = (_fit(x, num_rows, fill) for x, fill in ((numbers, 0), (position, NOWHERE)))
    is_used = torch.arange(num_rows, device=numbers.device) < (num_open + task.table.first_open).unsqueeze(1)
    numbers = torch.where(is_used, numbers, 0)
    columns = instance.nodes
    if hasattr(instance, "distances"):  # the only column is the distance to the destination, which may be any node now
        columns = instance.distances.gather(2, numbers[:, 1].view(-1, 1, 1).expand(-1, columns.shape[1], -1))
    nodes = columns.gather(1, numbers.unsqueeze(2).expand(-1, -1, columns.shape[2])) * is_used.unsqueeze(2)
    rows = ReducedRows(nodes, numbers.int(), num_open)
    instance = instance._replace(amount=amount)
    allowed, is_over = task.first_allowed(rows, instance)
    zero = torch.zeros_like(num_open)
    key = torch.zeros((len(zero), 2), dtype=torch.int64, device=zero.device)
    state = State(key, zero, rows, amount, allowed, is_over, torch.zeros_like(instance.scale), instance)
    target = torch.zeros_like(allowed, dtype=nodes.dtype)
    if via is not None:
        target.scatter_(1, (task.actions_per_row * FIRST + via).unsqueeze(1), 1.0)
    # the label's own step is allowed even where a solver's rounding exceeds a limit by more than the tolerance
    position = torch.where(is_used, position, NOWHERE)
    return SubInstance(task.observe(state), allowed | (target > 0), target, position)


def _fit(columns: Tensor, width: int, fill: int) -> Tensor:
    """Cut or fill [B, m] to [B, width]."""
    return torch.nn.functional.pad(columns[:, :width], (0, max(0, width - columns.shape[1])), value=fill)


def _tour(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Cut a piece of a closed tour: origin, destination and what lies between, in either direction where both are equal."""
    batch, size = nodes.shape[0], instance.size.unsqueeze(1)
    if sampling == "infix":
        start = _below(instance.size, generator)
        length = LEAST_ROWS + _below((instance.size + 2 - LEAST_ROWS).clamp(min=1), generator)
        length = length.minimum(instance.size + 1)
    else:  # rows k ... N of v_0 ... v_{N-1}, v_0 with 1 <= k <= N - 2
        start = 1 + _below((instance.size - 2).clamp(min=1), generator)
        length = instance.size + 1 - start
    turn = torch.ones_like(start)
    if not hasattr(instance, "distances"):
        turn = torch.where(_coin(batch, generator), -turn, turn)
        if sampling == "suffix":
            start = start * turn
    rows = torch.arange(task.table.num_rows, device=nodes.device).expand(batch, -1)
    position = (rows - 1).clamp(min=0)
    position[:, 1] = length - 1
    numbers = nodes.gather(1, (start.unsqueeze(1) + turn.unsqueeze(1) * position) % size)
    return _make(task, instance, numbers, length - 2, instance.amount, position, torch.zeros_like(start))


def _routes(
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
    turned = torch.where(_coin(batch, generator).unsqueeze(1) & is_there, own_first + own_last - place, place)
    nodes = nodes.gather(1, turned)
    start = _below(
        count, generator
    )  # the first place that remains; the walk stands at the one before, at first at the depot
    start_route = route.gather(1, start.unsqueeze(1)).squeeze(1)
    end = count - 1
    if sampling == "infix":
        num_routes = via.masked_fill(~is_there, 0).sum(1) + 1
        end_route = start_route + _below(num_routes - start_route, generator)
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
    return _make(task, instance, numbers, num_open, amount, position, next_via * (start > 0))


def _prize_tour(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Cut the rest of a tour that collects prizes, with all that is not on it, in either direction."""
    batch, most = nodes.shape
    count = (nodes >= 0).sum(1)
    place = torch.arange(most, device=nodes.device).expand(batch, -1)
    is_there = place < count.unsqueeze(1)
    turned = torch.where(_coin(batch, generator).unsqueeze(1) & is_there, count.unsqueeze(1) - 1 - place, place)
    nodes = nodes.gather(1, turned)
    start = _below(count.clamp(min=1), generator)
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
    return _make(task, instance, numbers, num_open, amount, position, torch.zeros_like(start))


def _items(
    task: ConstructionTask, instance: Any, nodes: Tensor, via: Tensor, generator: torch.Generator, sampling: str
) -> SubInstance:
    """Leave some random items of the packing out of the knapsack again; the next item is any of these."""
    batch = nodes.shape[0]
    is_there = nodes >= 0
    count = is_there.sum(1)
    keep = 1 + _below(count.clamp(min=1), generator)  # of the solution's items, those still to be packed
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
    cut = _make(task, instance, order, num_open, amount, position)
    wanted = mark.gather(1, order) == 1
    target = wanted.to(cut.target.dtype) / wanted.sum(1, keepdim=True).clamp(min=1)
    return cut._replace(target=target, mask=cut.mask | wanted)


_SAMPLERS: dict[str, Callable[..., SubInstance]] = {
    "TSP": _tour,
    "ATSP": _tour,
    "CVRP": _routes,
    "OP": _prize_tour,
    "Knapsack": _items,
}
