"""The travelling salesman problem with its whole history: a partial tour over points that stay where they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .instances import Instance
from .tsp_reduced import DESTINATION, OPEN, ORIGIN


class DirectState(NamedTuple):
    """A partial tour in each row of a batch.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        visited: [B, N] bool, True for padding too.
        order: [B, N] int64 the points visited so far, -1 behind them.
        last: [B] int64 the point where the path stands.
        num_open: [B] int64 number of open points.
        cost: [B] float64 length of the path so far, in units of the instance.
        xy: [B, N, 2] the instance.
        size: [B] int64 number of points of the instance.
        scale: [B] float64 length of the unit square's side.
        reference: [B] float64 cost of a known solution or NaN.
    """

    key: Tensor
    t: Tensor
    visited: Tensor
    order: Tensor
    last: Tensor
    num_open: Tensor
    cost: Tensor
    xy: Tensor
    size: Tensor
    scale: Tensor
    reference: Tensor


class DirectTSP:
    """Transitions and views of `DirectState`, for instances of at most `num_nodes` points."""

    def __init__(self, num_nodes: int, device: torch.device) -> None:
        self.num_nodes = num_nodes
        self.num_rows = num_nodes
        self.points = torch.arange(num_nodes, device=device)

    def begin(self, key: Tensor, instance: Instance) -> DirectState:
        """Start at point 0, to which the tour must return."""
        visited = self.points >= instance.size.unsqueeze(1)
        visited[:, 0] = True
        order = torch.full_like(visited, -1, dtype=torch.int64)
        order[:, 0] = 0
        return DirectState(
            key=key,
            t=torch.zeros_like(instance.size),
            visited=visited,
            order=order,
            last=torch.zeros_like(instance.size),
            num_open=instance.size - 1,
            cost=torch.zeros_like(instance.scale),
            xy=instance.xy,
            size=instance.size,
            scale=instance.scale,
            reference=instance.reference,
        )

    def step(self, state: DirectState, action: Tensor) -> tuple[DirectState, Tensor, Tensor]:
        """Go on to the point `action`, [B] int64.

        Returns:
            The state after, the length [B] float64 of the edges added (the last step adds the way back to point 0), and
            whether the tour is complete, [B] bool.
        """
        column = action.unsqueeze(1)
        num_open = (state.num_open - 1).clamp(min=0)
        # a complete tour has no slot left: what is done to it is never seen, but must stay inside the table
        slot = (state.size - state.num_open).clamp(max=self.num_nodes - 1).unsqueeze(1)
        is_last = num_open == 0
        ends = torch.stack((state.last, torch.zeros_like(action)), dim=1).unsqueeze(2).expand(-1, -1, 2)
        there = state.xy.gather(1, column.unsqueeze(2).expand(-1, -1, 2)).double()
        legs = torch.linalg.vector_norm(there - state.xy.gather(1, ends).double(), dim=2)
        length = (legs[:, 0] + legs[:, 1] * is_last) * state.scale
        after = state._replace(
            t=state.t + 1,
            visited=state.visited.scatter(1, column, True),
            order=state.order.scatter(1, slot, column),
            last=action,
            num_open=num_open,
            cost=state.cost + length,
        )
        return after, length, is_last

    def observe(self, state: DirectState) -> dict[str, Tensor]:
        """Return `nodes` [B, N, 2], `kind` [B, N] int8, `globals` [B, 1], `visited` [B, N] int8, `first` and `last` [B, 1]."""
        visited = state.visited.to(torch.int8)
        kind = OPEN * (1 - visited)
        kind[:, 0] = DESTINATION
        kind.scatter_(1, state.last.unsqueeze(1), ORIGIN)
        share = state.num_open.to(state.xy.dtype) / (self.num_nodes - 1)
        return {
            "nodes": state.xy,
            "kind": kind,
            "globals": share.unsqueeze(1),
            "visited": visited,
            "first": torch.zeros_like(state.last).unsqueeze(1),
            "last": state.last.unsqueeze(1),
        }

    def mask(self, state: DirectState) -> Tensor:
        """Return [B, N] bool: the open points; all of them once the tour is complete."""
        return ~state.visited | (state.num_open == 0).unsqueeze(1)

    def row_numbers(self, state: DirectState) -> Tensor:
        """Return [B, N] int32: the point in each row, which is the row itself, -1 in padding."""
        numbers = self.points.int().expand(state.t.shape[0], -1)
        return numbers.masked_fill(self.points >= state.size.unsqueeze(1), -1)

    def action_of(self, state: DirectState, point: Tensor) -> Tensor:
        """Return [B] int64 the action that goes on to `point`: the point itself."""
        return point

    def order(self, state: DirectState) -> Tensor:
        """Return [B, N] int64: the points visited so far in order, -1 behind them."""
        return state.order.clone()
