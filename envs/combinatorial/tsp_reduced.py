"""The travelling salesman problem as a sequence of smaller instances (BQ-MDP).

Drakulic et al., "BQ-NCO: Bisimulation Quotienting for Efficient Neural Combinatorial Optimization", 2023: after each
choice only what remains to be solved is kept: where the path stands, where it must end, and the open points.

The rows of the table are [origin, destination, open points ..., padding]. A chosen row moves to the origin and the last
open row takes its place, so the open rows stay dense and nothing has to be masked. The table of point numbers is
permuted in the same way, except that a chosen number goes to the slot that became free: its tail is the tour, backwards.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .instances import Instance

ORIGIN_ROW, DESTINATION_ROW, FIRST_OPEN_ROW = 0, 1, 2
PAD, ORIGIN, DESTINATION, OPEN = 0, 1, 2, 3


class ReducedState(NamedTuple):
    """What remains to be solved in each row of a batch, R = N + 1 table rows.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        nodes: [B, R, 2] coordinates in the unit square, 0 in padding rows.
        orig: [B, R] int32 number of the point in each row; behind the open rows, the points chosen, last first.
        num_open: [B] int64 number of open points.
        cost: [B] float64 length of the path so far, in units of the instance.
        xy: [B, N, 2] the whole instance.
        size: [B] int64 number of points of the instance.
        scale: [B] float64 length of the unit square's side.
        reference: [B] float64 cost of a known solution or NaN.
    """

    key: Tensor
    t: Tensor
    nodes: Tensor
    orig: Tensor
    num_open: Tensor
    cost: Tensor
    xy: Tensor
    size: Tensor
    scale: Tensor
    reference: Tensor


class ReducedTSP:
    """Transitions and views of `ReducedState`, for instances of at most `num_nodes` points."""

    def __init__(self, num_nodes: int, device: torch.device) -> None:
        self.num_nodes = num_nodes
        self.num_rows = num_nodes + 1
        rows = torch.arange(self.num_rows, device=device)
        num_open = torch.arange(num_nodes, device=device).unsqueeze(1)
        is_open = (rows >= FIRST_OPEN_ROW) & (rows < FIRST_OPEN_ROW + num_open)
        # by number of open points, so that a step looks its kinds and mask up
        self.kinds = torch.where(is_open, OPEN, PAD).to(torch.int8)
        self.kinds[:, ORIGIN_ROW], self.kinds[:, DESTINATION_ROW] = ORIGIN, DESTINATION
        self.masks = is_open | (num_open == 0)
        self.pads = self.kinds == PAD
        self.steps = rows[:num_nodes]

    def begin(self, key: Tensor, instance: Instance) -> ReducedState:
        """Start at point 0, to which the tour must return."""
        batch = key.shape[0]
        numbers = torch.arange(self.num_nodes, dtype=torch.int32, device=key.device)
        numbers = torch.where(numbers < instance.size.unsqueeze(1), numbers, -1)
        num_open = instance.size - 1
        return ReducedState(
            key=key,
            t=torch.zeros_like(num_open),
            nodes=torch.cat([instance.xy[:, :1], instance.xy], dim=1),
            orig=torch.cat([numbers.new_zeros(batch, 1), numbers], dim=1),
            num_open=num_open,
            cost=torch.zeros_like(instance.scale),
            xy=instance.xy,
            size=instance.size,
            scale=instance.scale,
            reference=instance.reference,
        )

    def step(self, state: ReducedState, action: Tensor) -> tuple[ReducedState, Tensor, Tensor]:
        """Go on to the open point in table row `action`.

        Args:
            state: the state before.
            action: [B] int64 table row.

        Returns:
            The state after, the length [B] float64 of the edges added (the last step adds the way to the destination),
            and whether the tour is complete, [B] bool.
        """
        rows = torch.stack((action, state.num_open + (FIRST_OPEN_ROW - 1)), dim=1)
        pair = rows.unsqueeze(2).expand(-1, -1, 2)
        points = state.nodes.gather(1, pair)
        numbers = state.orig.gather(1, rows)
        num_open = (state.num_open - 1).clamp(min=0)
        is_last = num_open == 0

        ends = state.nodes[:, :FIRST_OPEN_ROW].double()
        legs = torch.linalg.vector_norm(points[:, :1].double() - ends, dim=2)
        length = (legs[:, 0] + legs[:, 1] * is_last) * state.scale

        # with a single open row both writes meet in one slot: the zero must win there, so it is written to both
        moved = points[:, 1] * (rows[:, 0] != rows[:, 1]).unsqueeze(1)
        nodes = state.nodes.scatter(1, pair, torch.stack((moved, torch.zeros_like(moved)), dim=1))
        nodes[:, ORIGIN_ROW] = points[:, 0]
        orig = state.orig.scatter(1, rows, numbers.flip(1))
        orig[:, ORIGIN_ROW] = numbers[:, 0]
        after = state._replace(t=state.t + 1, nodes=nodes, orig=orig, num_open=num_open, cost=state.cost + length)
        return after, length, is_last

    def observe(self, state: ReducedState) -> dict[str, Tensor]:
        """Return `nodes` [B, R, 2], `kind` [B, R] int8 and `globals` [B, 1], the share of the points that is open."""
        share = state.num_open.to(state.nodes.dtype) / (self.num_nodes - 1)
        return {"nodes": state.nodes, "kind": self.kinds.index_select(0, state.num_open), "globals": share.unsqueeze(1)}

    def mask(self, state: ReducedState) -> Tensor:
        """Return [B, R] bool: the open rows; all rows once the tour is complete."""
        return self.masks.index_select(0, state.num_open)

    def row_numbers(self, state: ReducedState) -> Tensor:
        """Return [B, R] int32: the point in each table row, -1 in padding."""
        return state.orig.masked_fill(self.pads.index_select(0, state.num_open), -1)

    def action_of(self, state: ReducedState, point: Tensor) -> Tensor:
        """Return [B] int64 the action that goes on to `point` [B], which must be open."""
        is_open = self.kinds[state.num_open] == OPEN
        return ((state.orig == point.unsqueeze(1)) & is_open).int().argmax(1)

    def order(self, state: ReducedState) -> Tensor:
        """Return [B, N] int64: the points visited so far in order, -1 behind them."""
        # the point chosen at step t lies t slots before the end of the instance's rows
        slots = ((state.size + 1).unsqueeze(1) - self.steps).clamp(min=0, max=self.num_rows - 1)
        is_later = self.steps >= (state.size - state.num_open).unsqueeze(1)
        order = state.orig.gather(1, slots).masked_fill(is_later, -1).long()
        order[:, 0] = state.orig[:, DESTINATION_ROW]
        return order
