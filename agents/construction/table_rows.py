"""Tables of nodes as they are observed: which rows are open, some of the rows, and logits written back to all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.envs.combinatorial.node_kinds import OPEN, ORIGIN, PADDING

TOLERANCE = 1e-6  # as in the tasks: by which a capacity or a length may be exceeded
FAR = 1e9

Observation = dict[str, Tensor]


def open_rows(obs: Observation) -> Tensor:
    """Return [B, R] bool the open rows; all of them where there is none, as the tasks have it."""
    return all_if_none(obs["kind"] == OPEN)


def all_if_none(allowed: Tensor) -> Tensor:
    """Return the allowed actions [B, A] bool, all of them in a row where there is none, as the tasks have it."""
    return allowed | ~allowed.any(1, keepdim=True)


def at_kind(nodes: Tensor, kind: Tensor, which: int) -> Tensor:
    """Return [B, F] the features of the first row of a kind; where an origin stands on its destination, of the origin."""
    is_there = kind == which
    is_there = torch.where(is_there.any(1, keepdim=True), is_there, kind == ORIGIN)
    row = is_there.int().argmax(1).view(-1, 1, 1).expand(-1, -1, nodes.shape[2])
    return nodes.gather(1, row).squeeze(1)


def first_rows(obs: Observation, number: int) -> Observation:
    """Keep the first rows of the table [B, R, ...], `number` of them; those behind must be padding."""
    if number >= obs["nodes"].shape[1]:
        return obs
    short: Observation = {key: obs[key][:, :number] for key in ("nodes", "kind", "visited", "numbers") if key in obs}
    if "distances" in obs and "numbers" not in obs:
        short["distances"] = obs["distances"][:, :number, :number]
    return {**obs, **short}


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
