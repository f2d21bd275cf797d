"""Sub-instances cut out of solved instances: what remains to be solved after some of the choices, and the next choice.

What remains of an optimal solution is an optimal solution of what remains, so that every cut of one solved instance is a
solved instance of its own (Drakulic et al. 2023, section 4.2). A batch of cuts needs one forward pass and no rollout.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.construction import ConstructionTask, State
from polyathlon.envs.combinatorial.tables import ReducedRows
from polyathlon.envs.errors import unknown_name

from .expert_data import LabelledInstances
from .problems.kit import kit_of
from .table_rows import Observation

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
    kit = kit_of(task)
    if augment and kit.geometry == "plane":
        instance = mirrored(instance, generator)
    return kit.sub_instance(task, instance, labels.nodes[which], labels.via[which], generator, sampling)


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


def below(bound: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from 0 ... bound - 1 for each bound, [B] int64, at least 1."""
    draw = torch.rand(bound.shape, dtype=torch.float64, generator=generator, device=bound.device)
    return (draw * bound).long().minimum(bound - 1)


def coin(batch: int, generator: torch.Generator) -> Tensor:
    """Draw True or False, [B] bool."""
    return torch.randint(2, (batch,), generator=generator, device=generator.device).bool()


def lay_out(
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
