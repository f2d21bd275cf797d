"""What a policy must know of a combinatorial problem to read its observation: kind of geometry, columns, allowed actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.combinatorial.node_kinds import DESTINATION, OPEN, ORIGIN, PADDING
from polyathlon.envs.errors import UsageError

TOLERANCE = 1e-6  # as in the tasks: by which a capacity or a length may be exceeded
FAR = 1e9

Observation = dict[str, Tensor]


class Problem(NamedTuple):
    """How the table of a problem is read.

    Attributes:
        name: "TSP", "ATSP", "CVRP", "OP" or "Knapsack".
        geometry: "plane" (the first two columns are coordinates), "matrix" (distances are given) or "items" (no route).
        num_columns: number of columns of `nodes`.
        has_amount: what is left of a capacity or length stands in the second entry of `globals`.
        actions_per_row: number of actions for each row.
    """

    name: str
    geometry: str
    num_columns: int
    has_amount: bool
    actions_per_row: int


PROBLEMS = (
    Problem("TSP", "plane", 2, False, 1),
    Problem("ATSP", "matrix", 2, False, 1),
    Problem("CVRP", "plane", 3, True, 2),
    Problem("OP", "plane", 3, True, 1),
    Problem("Knapsack", "items", 2, True, 1),
)


def problem_of(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], reader: str = "this policy"
) -> Problem:
    """Recognise a problem by its spaces.

    Args:
        observation_space: space of one observation.
        action_space: its actions.
        reader: who asks, for the message.

    Raises:
        UsageError: they are those of no combinatorial task.
    """
    if isinstance(observation_space, spaces.Dict) and isinstance(action_space, spaces.Discrete):
        fields = observation_space.spaces
        if {"nodes", "kind", "globals"} <= set(fields):
            rows, columns = fields["nodes"].shape or (0, 0)
            has_amount = fields["globals"].shape == (2,)
            for problem in PROBLEMS:
                is_matrix = problem.geometry == "matrix"
                seen = (columns, has_amount, "distances" in fields, int(action_space.n))
                if seen == (problem.num_columns, problem.has_amount, is_matrix, problem.actions_per_row * rows):
                    return problem
    raise UsageError(
        f"{reader} is made for tasks whose observation is a table of nodes "
        f"({', '.join(f'polyathlon/{problem.name}-v0' for problem in PROBLEMS)}, without wrappers); "
        f"got {observation_space} and {action_space}"
    )


def allowed_in(obs: Observation, problem: Problem) -> Tensor:
    """Read the allowed actions off an observation, by the rules of the problem.

    Args:
        obs: `nodes` [B, R, F], `kind` [B, R], `globals` [B, G] ...
        problem: the problem.

    Returns:
        [B, A] bool; all True in a row where nothing is left to do, as the tasks have it.
    """
    nodes = obs["nodes"]
    allowed = obs["kind"] == OPEN
    if problem.has_amount:
        left = obs["globals"][:, 1:2] + TOLERANCE
    if problem.name == "OP":
        here, home = (at_kind(nodes, obs["kind"], kind)[:, None, :2] for kind in (ORIGIN, DESTINATION))
        needed = (nodes[..., :2] - here).norm(dim=2) + (nodes[..., :2] - home).norm(dim=2)
        allowed = allowed & (needed <= left)
    elif problem.name == "Knapsack":
        allowed = allowed & (nodes[..., 1] <= left)
    elif problem.name == "CVRP":
        allowed = torch.stack((allowed & (nodes[..., 2] <= left), allowed), dim=2).flatten(1)
    return allowed | ~allowed.any(1, keepdim=True)


def at_kind(nodes: Tensor, kind: Tensor, which: int) -> Tensor:
    """Return [B, F] the features of the first row of a kind; where an origin stands on its destination, of the origin."""
    is_there = kind == which
    is_there = torch.where(is_there.any(1, keepdim=True), is_there, kind == ORIGIN)
    row = is_there.int().argmax(1).view(-1, 1, 1).expand(-1, -1, nodes.shape[2])
    return nodes.gather(1, row).squeeze(1)


def select_rows(obs: Observation, index: Tensor) -> Observation:
    """Keep some rows of the table.

    Args:
        obs: an observation of tensors [B, ...].
        index: [B, K] int64 rows to keep, in this order.
    """
    nodes = obs["nodes"]
    chosen = {
        **obs,
        "nodes": nodes.gather(1, index.unsqueeze(2).expand(-1, -1, nodes.shape[2])),
        "kind": obs["kind"].gather(1, index),
    }
    if "numbers" in obs:
        return among_rows({**chosen, "numbers": obs["numbers"].gather(1, index)})
    if "distances" in obs:
        chosen["distances"] = _square(obs["distances"], index)
    return chosen


def among_rows(obs: Observation) -> Observation:
    """Replace distances that are looked up by the numbers of the nodes (`ATSP`) by those among the rows, [B, R, R]."""
    if "numbers" not in obs:
        return obs
    is_node = (obs["kind"] != PADDING).to(obs["nodes"].dtype)
    square = _square(obs["distances"], obs["numbers"].long())
    square = square * is_node.unsqueeze(1) * is_node.unsqueeze(2)
    return {name: part for name, part in obs.items() if name != "numbers"} | {"distances": square}


def _square(distances: Tensor, index: Tensor) -> Tensor:
    """Return [B, K, K] the distances among some nodes, [B, K] int64, of [B, N, N]."""
    lines = distances.gather(1, index.unsqueeze(2).expand(-1, -1, distances.shape[2]))
    return lines.gather(2, index.unsqueeze(1).expand(-1, index.shape[1], -1))


def spread_logits(logits: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """Write the logits of kept rows back into the whole table; actions of the others get -1e9.

    Args:
        logits: [B, K a] for K kept rows with `a` actions each.
        index: [B, K] int64 the rows that were kept.
        num_rows: number of rows R of the table.

    Returns:
        [B, R a].
    """
    batch, kept = index.shape
    per_row = logits.shape[1] // kept
    whole = logits.new_full((batch, num_rows, per_row), -FAR)
    return whole.scatter(1, index.unsqueeze(2).expand(-1, -1, per_row), logits.view(batch, kept, per_row)).flatten(1)


def nearest_rows(obs: Observation, problem: Problem, k: int) -> Tensor:
    """Choose the rows that matter most for the next decision: origin, destination and the k - 2 nearest open rows.

    Nearest to the origin; of orienteering half of them by prize; of a knapsack the k items of highest value per weight
    (Drakulic et al. 2023, section 4). The table must be one of `mdp="bq"`, whose first rows are origin and destination.

    Args:
        obs: an observation.
        problem: its problem.
        k: number of rows to keep, at least 3.

    Returns:
        [B, min(k, R)] int64; rows of padding come last.
    """
    nodes, is_open = obs["nodes"], obs["kind"] == OPEN
    num_rows = nodes.shape[1]
    if problem.geometry == "items":
        worth = (nodes[..., 0] / nodes[..., 1].clamp(min=1e-9)).masked_fill(~is_open, -1.0)
        return worth.topk(min(k, num_rows), dim=1).indices
    # origin and destination stand in the first two rows of the table, and are kept in any case
    if problem.geometry == "matrix":
        distance = nodes[:, 2:, 0]
    else:
        distance = (nodes[:, 2:, :2] - nodes[:, :1, :2]).square().sum(2)
    distance = distance.masked_fill(~is_open[:, 2:], FAR)
    kept = min(k, num_rows) - 2
    ends = torch.arange(2, device=nodes.device).expand(nodes.shape[0], -1)
    if problem.name == "OP":
        prized = nodes[:, 2:, 2].masked_fill(~is_open[:, 2:], -1.0).topk(kept // 2, dim=1).indices
        distance = distance.scatter(1, prized, 2 * FAR)  # not chosen twice
        near = distance.topk(kept - kept // 2, dim=1, largest=False).indices
        return torch.cat([ends, near + 2, prized + 2], dim=1)
    return torch.cat([ends, distance.topk(kept, dim=1, largest=False).indices + 2], dim=1)
