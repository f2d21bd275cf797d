"""The table of nodes from which a solution is built, one row a decision, in the two formulations of a task.

`ReducedTable` keeps only what remains to be solved (BQ-MDP; Drakulic et al., "BQ-NCO: Bisimulation Quotienting for
Efficient Neural Combinatorial Optimization", 2023). Its rows are [origin, destination, open nodes ..., padding], without
the first two where a task has no route. A chosen row becomes the origin and the last open row takes its place, so the
open rows stay dense and nothing has to be masked. The numbers of the nodes are permuted in the same way, except that
a chosen one goes to the slot that became free: the tail of that table is the solution, backwards.

`DirectTable` keeps every node in its row and marks the chosen ones. Both have the same methods.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

PAD, ORIGIN, DESTINATION, OPEN = 0, 1, 2, 3
ORIGIN_ROW, DESTINATION_ROW = 0, 1


class ReducedRows(NamedTuple):
    """What remains of each instance of a batch.

    Attributes:
        nodes: [B, R, F] features of the nodes, 0 in padding rows.
        orig: [B, R] int32 number of the node in each row; behind the open rows, the choices, last first.
        num_open: [B] int64 number of open nodes.
    """

    nodes: Tensor
    orig: Tensor
    num_open: Tensor


class DirectRows(NamedTuple):
    """What was chosen of each instance of a batch.

    Attributes:
        chosen: [B, N] bool, True for padding and for the node where a route starts.
        history: [B, N] int32 the choices in order, -1 behind them.
        last: [B] int64 node chosen last.
        num_open: [B] int64 number of open nodes.
    """

    chosen: Tensor
    history: Tensor
    last: Tensor
    num_open: Tensor


class ReducedTable:
    """Transitions and views of `ReducedRows`.

    Args:
        num_points: most nodes N of an instance, with depot.
        has_route: a route runs from node 0 and back to it.
        device: where the tensors live.

    Attributes:
        num_rows: rows R of the table.
        first_open: first row that can be open.
    """

    def __init__(self, num_points: int, has_route: bool, device: torch.device) -> None:
        self.num_points = num_points
        self.has_route = has_route
        self.first_open = 2 if has_route else 0
        self.num_rows = num_points + 1 if has_route else num_points
        rows = torch.arange(self.num_rows, device=device)
        num_open = torch.arange(num_points + 1, device=device).unsqueeze(1)
        is_open = (rows >= self.first_open) & (rows < self.first_open + num_open)
        # by number of open nodes, so that a step looks its kinds and mask up
        self.kinds = torch.where(is_open, OPEN, PAD).to(torch.int8)
        if has_route:
            self.kinds[:, ORIGIN_ROW], self.kinds[:, DESTINATION_ROW] = ORIGIN, DESTINATION
        self.open_rows = is_open
        self.masks = is_open | (num_open == 0)

    def begin(self, instance: Any) -> ReducedRows:
        """Lay an instance out; a route starts at node 0 and ends there."""
        batch, size = instance.nodes.shape[0], instance.size
        numbers = torch.arange(self.num_points, dtype=torch.int32, device=size.device)
        numbers = torch.where(numbers < size.unsqueeze(1), numbers, -1)
        if not self.has_route:
            return ReducedRows(instance.nodes, numbers, size)
        nodes = torch.cat([instance.nodes[:, :1], instance.nodes], dim=1)
        return ReducedRows(nodes, torch.cat([numbers.new_zeros(batch, 1), numbers], dim=1), size - 1)

    def nodes(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, R, F] the features of all rows."""
        return rows.nodes

    def pick(self, rows: ReducedRows, instance: Any, row: Tensor) -> Tensor:
        """Return [B, F] the features of one row of each instance, [B] int64."""
        return rows.nodes.gather(1, row.view(-1, 1, 1).expand(-1, -1, rows.nodes.shape[2])).squeeze(1)

    def origin(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route stands."""
        return rows.nodes[:, ORIGIN_ROW]

    def destination(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route must end."""
        return rows.nodes[:, DESTINATION_ROW]

    def origin_number(self, rows: ReducedRows) -> Tensor:
        """Return [B] int64 the number of the node where the route stands."""
        return rows.orig[:, ORIGIN_ROW].long()

    def number(self, rows: ReducedRows, row: Tensor) -> Tensor:
        """Return [B] int64 the number of the node in one row of each instance, [B] int64."""
        return rows.orig.gather(1, row.unsqueeze(1)).squeeze(1).long()

    def take(
        self,
        rows: ReducedRows,
        instance: Any,
        row: Tensor,
        picked: Tensor,
        code: Tensor | None = None,
        is_kept: Tensor | None = None,
    ) -> ReducedRows:
        """Choose a row of each instance.

        Args:
            rows: the table before.
            instance: the instance.
            row: [B] int64 the open row chosen.
            picked: [B, F] its features.
            code: [B] what the history records; None for the number of the node.
            is_kept: [B] bool, instances that stay as they are; None for none.
        """
        last = (rows.num_open + (self.first_open - 1)).clamp(min=0)
        num_open = (rows.num_open - 1).clamp(min=0)
        freed = torch.zeros_like(picked)
        if is_kept is not None:
            last = torch.where(is_kept, row, last)
            num_open = torch.where(is_kept, rows.num_open, num_open)
            freed = picked * is_kept.unsqueeze(1)
        pair = torch.stack((row, last), dim=1)
        wide = pair.unsqueeze(2).expand(-1, -1, picked.shape[1])
        numbers = rows.orig.gather(1, pair)
        record = numbers[:, 0] if code is None else code.to(torch.int32)
        # where the chosen row is the last one both writes meet in one slot: what was freed must win, so it is written twice
        is_same = row == last
        moved = torch.where(is_same.unsqueeze(1), freed, self.pick(rows, instance, last))
        nodes = rows.nodes.scatter(1, wide, torch.stack((moved, freed), dim=1))
        orig = rows.orig.scatter(1, pair, torch.stack((torch.where(is_same, record, numbers[:, 1]), record), dim=1))
        if self.has_route:
            there, number = picked, numbers[:, 0]
            if is_kept is not None:
                there = torch.where(is_kept.unsqueeze(1), rows.nodes[:, ORIGIN_ROW], picked)
                number = torch.where(is_kept, rows.orig[:, ORIGIN_ROW], number)
            nodes[:, ORIGIN_ROW] = there
            orig[:, ORIGIN_ROW] = number
        return ReducedRows(nodes, orig, num_open)

    def is_open(self, rows: ReducedRows) -> Tensor:
        """Return [B, R] bool: the open rows."""
        return self.open_rows[rows.num_open]

    def views(self, rows: ReducedRows) -> dict[str, Tensor]:
        """Return what is seen beside the features: `kind` [B, R] int8."""
        return {"kind": self.kinds[rows.num_open]}

    def numbers(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, R] int32: the number of the node in each row, -1 in padding."""
        return torch.where(self.kinds[rows.num_open] == PAD, -1, rows.orig)

    def row_of(self, rows: ReducedRows, number: Tensor) -> Tensor:
        """Return [B] int64 the row of an open node, given its number, [B] int64."""
        return ((rows.orig == number.unsqueeze(1)) & self.is_open(rows)).int().argmax(1)

    def history(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, N] int64: the choices in order, -1 behind them."""
        step = torch.arange(self.num_points, device=rows.num_open.device)
        at_start = instance.size - 1 if self.has_route else instance.size
        slots = (self.first_open - 1) + at_start.unsqueeze(1) - step
        chosen = rows.orig.gather(1, slots.clamp(min=0)).long()
        return torch.where(step < (at_start - rows.num_open).unsqueeze(1), chosen, -1)


class DirectTable:
    """Transitions and views of `DirectRows`; see `ReducedTable`, whose methods it has."""

    first_open = 0

    def __init__(self, num_points: int, has_route: bool, device: torch.device) -> None:
        self.num_points = num_points
        self.num_rows = num_points
        self.has_route = has_route
        self.points = torch.arange(num_points, device=device)

    def begin(self, instance: Any) -> DirectRows:
        """Lay an instance out; a route starts at node 0 and ends there."""
        chosen = self.points >= instance.size.unsqueeze(1)
        if self.has_route:
            chosen[:, 0] = True
        history = torch.full_like(chosen, -1, dtype=torch.int32)
        num_open = instance.size - 1 if self.has_route else instance.size
        return DirectRows(chosen, history, torch.zeros_like(num_open), num_open)

    def nodes(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, N, F] the features of all rows."""
        nodes: Tensor = instance.nodes
        return nodes

    def pick(self, rows: DirectRows, instance: Any, row: Tensor) -> Tensor:
        """Return [B, F] the features of one row of each instance, [B] int64."""
        nodes: Tensor = instance.nodes
        return nodes.gather(1, row.view(-1, 1, 1).expand(-1, -1, nodes.shape[2])).squeeze(1)

    def origin(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route stands."""
        return self.pick(rows, instance, rows.last)

    def destination(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route must end."""
        first: Tensor = instance.nodes[:, 0]
        return first

    def origin_number(self, rows: DirectRows) -> Tensor:
        """Return [B] int64 the number of the node where the route stands."""
        return rows.last

    def number(self, rows: DirectRows, row: Tensor) -> Tensor:
        """Return [B] int64 the number of the node in one row: the row itself."""
        return row

    def take(
        self,
        rows: DirectRows,
        instance: Any,
        row: Tensor,
        picked: Tensor,
        code: Tensor | None = None,
        is_kept: Tensor | None = None,
    ) -> DirectRows:
        """Choose a row of each instance; see `ReducedTable.take`."""
        column = row.unsqueeze(1)
        record = (row if code is None else code).to(torch.int32).unsqueeze(1)
        num_open, last = (rows.num_open - 1).clamp(min=0), row
        # a complete solution has no slot left: what is done to it is never seen, but must stay inside the table
        slot = (instance.size - int(self.has_route) - rows.num_open).clamp(max=self.num_points - 1).unsqueeze(1)
        if is_kept is not None:
            num_open = torch.where(is_kept, rows.num_open, num_open)
            last = torch.where(is_kept, rows.last, last)
            kept = is_kept.unsqueeze(1)
            record = torch.where(kept, rows.history.gather(1, slot), record)
            chosen = rows.chosen.scatter(1, column, ~kept | rows.chosen.gather(1, column))
        else:
            chosen = rows.chosen.scatter(1, column, True)
        return DirectRows(chosen, rows.history.scatter(1, slot, record), last, num_open)

    def is_open(self, rows: DirectRows) -> Tensor:
        """Return [B, N] bool: the open rows."""
        return ~rows.chosen

    def views(self, rows: DirectRows) -> dict[str, Tensor]:
        """Return `kind` [B, N] and `visited` [B, N] int8, and of a route `first` and `last` [B, 1] int64."""
        kind = torch.where(rows.chosen, PAD, OPEN).to(torch.int8)
        seen = {"kind": kind, "visited": rows.chosen.to(torch.int8)}
        if self.has_route:
            kind[:, 0] = DESTINATION
            seen["kind"] = kind.scatter(1, rows.last.unsqueeze(1), ORIGIN)
            seen["first"] = torch.zeros_like(rows.last).unsqueeze(1)
            seen["last"] = rows.last.unsqueeze(1)
        return seen

    def numbers(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, N] int32: the node in each row, which is the row itself, -1 in padding."""
        return torch.where(self.points < instance.size.unsqueeze(1), self.points, -1).int()

    def row_of(self, rows: DirectRows, number: Tensor) -> Tensor:
        """Return [B] int64 the row of an open node: its number."""
        return number

    def history(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, N] int64: the choices in order, -1 behind them."""
        return rows.history.long()
