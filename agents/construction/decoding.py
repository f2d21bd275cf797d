"""From a policy to solutions: the most likely choice after another, or several partial solutions side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.construction import ConstructionTask, State
from polyathlon.envs.combinatorial.instances import augment8
from polyathlon.envs.errors import UsageError, check_positive_int

from .expert_data import choose
from .problems.kit import kit_of
from .problems.tours import from_zero
from .table_rows import Observation, first_rows

LogProbs = Callable[[Observation, Tensor], Tensor]
ROWS_AT_ONCE = 1 << 18  # rows of tables that one forward pass takes, which bounds the memory
LEAST = -1e9
ASK_EVERY = 16  # steps after which an accelerator is asked whether all solutions are complete


class Solution(NamedTuple):
    """Solutions of a batch of instances.

    Attributes:
        solution: [B, L] int64 as `info["solution"]` has it at the end, -1 behind it.
        cost: [B] float64.
    """

    solution: Tensor
    cost: Tensor


def tree_rows(tree: Any, index: Tensor) -> Any:
    """Return the rows `index` [K] of every tensor [B, ...] in a tree of named tuples; None stays None."""
    if tree is None or isinstance(tree, Tensor):
        return None if tree is None else tree[index]
    return type(tree)(*(tree_rows(part, index) for part in tree))


def tree_cat(trees: list[Any]) -> Any:
    """Put the rows of trees of named tuples below one another."""
    if isinstance(trees[0], Tensor):
        return torch.cat(trees)
    return type(trees[0])(*(tree_cat(list(parts)) for parts in zip(*trees)))


def start(task: ConstructionTask, instance: Any) -> State:
    """Begin an episode on each instance."""
    keys = torch.zeros((instance.size.shape[0], 2), dtype=torch.int64, device=task.device)
    return task.begin(keys, instance)


def shown(task: ConstructionTask, state: State, step: int) -> tuple[Observation, Tensor]:
    """Return what is seen and allowed [B, A] after `step` actions.

    Each action of the formulation "bq" takes a row off its table at least, so that an accelerator need not be asked for its size.
    """
    obs, allowed = task.observe(state), state.allowed
    if allowed.device.type == "cpu" or task.mdp != "bq":
        return obs, allowed
    number = max(3, task.table.num_rows - step)
    return first_rows(obs, number), allowed[:, : number * task.actions_per_row]


def asks(task: ConstructionTask, device: torch.device, step: int) -> bool:
    """Return whether to ask after action `step` if all is over: an accelerator seldom, and never of tours, whose length is known."""
    return device.type == "cpu" or (not is_tour(task) and step % ASK_EVERY == ASK_EVERY - 1)


@torch.no_grad()
def greedy_decode(task: ConstructionTask, log_probs: LogProbs, instance: Any) -> Solution:
    """Take the most likely action until nothing is left to do.

    Args:
        task: the task.
        log_probs: function of an observation [B, ...] and a mask [B, A] that returns log-probabilities [B, A].
        instance: B instances.
    """
    state = start(task, instance)
    done = torch.zeros_like(state.is_over)
    is_asked = done.device.type == "cpu"
    for step in range(task.most_open):
        action = log_probs(*shown(task, state, step)).argmax(1)
        after, _, is_over = task.step(state, action)
        state = choose(done, state, after) if not is_asked or bool(done.any()) else after
        done = done | is_over
        if asks(task, done.device, step) and bool(done.all()):
            break
    return Solution(task.solution(state), state.cost)


@torch.no_grad()
def beam_decode(task: ConstructionTask, log_probs: LogProbs, instance: Any, width: int, merge: bool = True) -> Solution:
    """Keep the `width` most likely partial solutions of each instance; of the complete ones take the cheapest.

    Two partial solutions that leave the same to be solved (equal origin and open nodes) have the same future: with `merge`
    only the cheaper one goes on, which keeps the beam diverse.

    Args:
        task: the task, with `mdp="bq"` if `merge`.
        log_probs: see `greedy_decode`.
        instance: B instances.
        width: number of partial solutions of an instance.
        merge: drop those that leave the same as a cheaper one.
    """
    batch = instance.size.shape[0]
    state = start(task, instance)
    device = state.cost.device
    total = torch.zeros(batch, 1, dtype=torch.float64, device=device)  # [B, W] log-probability, W beams so far
    done = torch.zeros(batch, 1, dtype=torch.bool, device=device)
    for step in range(task.most_open):
        beams = total.shape[1]
        obs, allowed = shown(task, state, step)
        scores = log_probs(obs, allowed).double().view(batch, beams, -1)
        scores = scores.masked_fill(~allowed.reshape(batch, beams, -1), LEAST)
        stay = torch.full_like(scores, LEAST)
        stay[..., 0] = 0.0
        scores = torch.where(done.unsqueeze(2), stay, scores) + total.unsqueeze(2)
        num_actions = scores.shape[2]
        kept = min(width, beams * num_actions)
        total, flat = scores.flatten(1).topk(kept, dim=1)
        parent, action = flat // num_actions, flat % num_actions
        index = (torch.arange(batch, device=device).unsqueeze(1) * beams + parent).flatten()
        # beams of one instance share it: copied when their number changes, not with every step
        shared = state.instance if kept == beams else tree_rows(instance, index // beams)
        old = tree_rows(state._replace(instance=None), index)._replace(instance=shared)
        was_done = done.flatten()[index]
        # a beam that does not exist yet has a score of about -1e9: it may hold any action, so give it an allowed one
        safe = torch.where((total > LEAST / 2).flatten(), action.flatten(), old.allowed.int().argmax(1))
        after, _, is_over = task.step(old, safe)
        state = choose(was_done, old, after)
        done = (was_done | is_over).view(batch, kept)
        if merge and kept > 1:
            total = total.masked_fill(_is_dominated(task, state, batch, kept), 2 * LEAST)
        if asks(task, done.device, step) and bool(done.all()):
            break
    cost = state.cost.view(batch, -1).masked_fill(total < LEAST / 2, torch.inf)
    best = cost.argmin(1)
    index = torch.arange(batch, device=device) * cost.shape[1] + best
    return Solution(task.solution(state)[index], state.cost[index])


def _is_dominated(task: ConstructionTask, state: State, batch: int, beams: int) -> Tensor:
    """Return [B, W] bool: beams that leave the same to be solved as a cheaper one, or an equal one further to the left."""
    open_rows = task.table.is_open(state.rows)
    numbers = task.table.numbers(state.rows, state.instance).long()
    # a random number for each node: sets of open nodes have equal sums only if they are equal, up to 2^-60
    node = torch.arange(task.num_points + 1, dtype=torch.int64, device=numbers.device)
    code = (node + 1) * -7046029254386353131
    code = (code ^ ((code >> 29) & ((1 << 35) - 1))) * -4658895280553007687
    code = code ^ ((code >> 32) & ((1 << 32) - 1))
    sign = (code[numbers.clamp(min=0)] * open_rows).sum(1)
    if task.has_route:
        sign = sign * 31 + task.table.origin_number(state.rows)
    sign = sign.view(batch, beams)
    amount, cost = state.amount.view(batch, beams), state.cost.view(batch, beams)
    same = sign.unsqueeze(2) == sign.unsqueeze(1)
    as_much = amount.unsqueeze(1) >= amount.unsqueeze(2) - 1e-12  # [B, i, j]: j has left at least what i has
    earlier = torch.ones(beams, beams, dtype=torch.bool, device=sign.device).tril(-1)
    cheaper = cost.unsqueeze(1) < cost.unsqueeze(2) - 1e-12
    equal = (cost.unsqueeze(1) <= cost.unsqueeze(2) + 1e-12) & earlier
    return (same & as_much & (cheaper | equal)).any(2)


def solve_instances(
    task: ConstructionTask,
    log_probs: LogProbs,
    instance: Any,
    beam: int = 1,
    augment: int = 1,
) -> Solution:
    """Solve instances in parts that fit into memory.

    Args:
        task: the task.
        log_probs: see `greedy_decode`.
        instance: B instances.
        beam: 1 takes the most likely choice each time; more keep that many partial solutions.
        augment: 8 solves eight forms of each instance and keeps the best solution: the symmetries of the square for
            instances in the plane, and for tours eight nodes to start from.

    Raises:
        UsageError: a number is not positive, or `augment` is neither 1 nor 8 or has no meaning for the task.
    """
    check_positive_int(beam=beam, augment=augment)
    if augment not in (1, 8):
        raise UsageError(f"augment is 1 or 8 (forms of an instance), got {augment}")
    if augment == 8 and not (_is_in_plane(task) or is_tour(task)):
        raise UsageError(f"augment=8 turns instances in the plane and tours; {type(task).__name__} has neither")
    count = instance.size.shape[0]
    per_instance = task.table.num_rows * beam * augment
    part = max(1, ROWS_AT_ONCE // per_instance)
    found = []
    for first in range(0, count, part):
        index = torch.arange(first, min(first + part, count), device=task.device)
        found.append(_solve_part(task, log_probs, tree_rows(instance, index), beam, augment))
    solutions: Solution = tree_cat(found)
    return solutions


def _is_in_plane(task: ConstructionTask) -> bool:
    return kit_of(task).geometry == "plane"


def is_tour(task: ConstructionTask) -> bool:
    """Return whether every node of a task is visited on one closed tour, which may start anywhere."""
    return kit_of(task).is_tour


def _solve_part(task: ConstructionTask, log_probs: LogProbs, instance: Any, beam: int, augment: int) -> Solution:
    count, device = instance.size.shape[0], task.device
    shift = torch.zeros(count * augment, dtype=torch.int64, device=device)
    if augment > 1:
        turned = augment8(instance.nodes[..., :2]) if _is_in_plane(task) else None
        instance = tree_rows(instance, torch.arange(count, device=device).repeat(augment))
        if turned is not None:
            instance = instance._replace(nodes=torch.cat([turned, instance.nodes[..., 2:]], dim=2))
        if is_tour(task):
            copy = torch.arange(augment, device=device).repeat_interleave(count)
            shift = copy * instance.size // augment
            instance = renumbered(instance, shift)
    if beam == 1:
        found = greedy_decode(task, log_probs, instance)
    else:
        found = beam_decode(task, log_probs, instance, beam, merge=task.mdp == "bq")
    if augment == 1:
        return found
    best = found.cost.view(augment, count).argmin(0) * count + torch.arange(count, device=device)
    solution, cost = found.solution[best], found.cost[best]
    if is_tour(task):
        size = instance.size[best].unsqueeze(1)
        numbers = (solution + shift[best].unsqueeze(1)) % size
        solution = from_zero(torch.where(solution >= 0, numbers, -1), size)
    return Solution(solution, cost)


def renumbered(instance: Any, shift: Tensor) -> Any:
    """Number the nodes of tours anew, so that node `shift`, [B] int64, becomes node 0 and the others follow cyclically."""
    node = torch.arange(instance.nodes.shape[1], device=shift.device)
    size = instance.size.unsqueeze(1)
    order = torch.where(node < size, (node + shift.unsqueeze(1)) % size, node)
    if hasattr(instance, "distances"):
        lines = instance.distances.gather(1, order.unsqueeze(2).expand_as(instance.distances))
        distances = lines.gather(2, order.unsqueeze(1).expand_as(lines))
        return instance._replace(distances=distances, nodes=distances[:, :, :1].contiguous())
    return instance._replace(nodes=instance.nodes.gather(1, order.unsqueeze(2).expand_as(instance.nodes)))
