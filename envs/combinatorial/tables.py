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

from .node_kinds import DESTINATION, OPEN, ORIGIN, PADDING

ORIGIN_ROW, DESTINATION_ROW = 0, 1
_MANY = 256  # rows
_PAIRS = {torch.float32: torch.int64, torch.float64: torch.complex128}  # a type that holds two numbers of a type


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


def rows_of(table: Tensor, row: Tensor) -> Tensor:
    """Return [B, F] one row, [B] int64, of each table of [B, R, F]."""
    batch, num_rows, width = table.shape
    start = torch.arange(0, batch * num_rows, num_rows, device=row.device)
    return table.reshape(-1, width).index_select(0, start + row)


def as_words(nodes: Tensor) -> Tensor:
    """View tables [B, R, F] as one long table [B R, F], or [B R] where two features of a row can pass for one number.

    Numbers are picked and written several times faster than rows of numbers, and what they mean does not matter there.
    For few rows it does not pay: compiled code, which is for these, knows no such views.
    """
    batch, _, width = nodes.shape
    flat = nodes.reshape(-1, width)
    return flat.view(_PAIRS[nodes.dtype]).squeeze(1) if width == 2 and batch >= _MANY else flat


def in_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Stack two tables [B, R] of numbers or flags as [B, R, 2]; of many rows, `torch.stack` takes several times as long."""
    if a.shape[0] < _MANY:
        return torch.stack((a, b), dim=2)
    if a.dtype is not torch.bool:
        return torch.view_as_real(torch.complex(a, b))
    # a flag is a byte: the halves of a number of 16 bits, the lower one first
    both = (b.to(torch.int16) << 8).bitwise_or_(a.to(torch.int16))
    return both.view(torch.bool).view(*a.shape, 2)


def spread(row_wise: Tensor, like: Tensor) -> Tensor:
    """Copy [B] into every column of [B, R]: operations that broadcast along short rows are several times slower."""
    return row_wise.unsqueeze(1).expand_as(like).contiguous()


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
        self.kinds = torch.where(is_open, OPEN, PADDING).to(torch.int8)
        if has_route:
            self.kinds[:, ORIGIN_ROW], self.kinds[:, DESTINATION_ROW] = ORIGIN, DESTINATION
        self.open_rows = is_open
        self.masks = is_open | (num_open == 0)
        self.padding = self.kinds == PADDING
        step = torch.arange(num_points, device=device)
        # by number of open nodes at the start: the slot where each choice lies; by number of choices: which were made
        self.slots = ((self.first_open - 1) + num_open - step).clamp(min=0, max=self.num_rows - 1)
        self.is_made = step < num_open

    def begin(self, instance: Any) -> ReducedRows:
        """Lay an instance out; a route starts at node 0 and ends there."""
        batch, size = instance.nodes.shape[0], instance.size
        numbers = torch.arange(self.num_points, dtype=torch.int32, device=size.device)
        numbers = torch.where(numbers < size.unsqueeze(1), numbers, 0)
        if not self.has_route:
            return ReducedRows(instance.nodes, numbers, size)
        nodes = torch.cat([instance.nodes[:, :1], instance.nodes], dim=1)
        return ReducedRows(nodes, torch.cat([numbers.new_zeros(batch, 1), numbers], dim=1), size - 1)

    def nodes(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, R, F] the features of all rows."""
        return rows.nodes

    def origin(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route stands."""
        return rows.nodes[:, ORIGIN_ROW]

    def destination(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route must end."""
        return rows.nodes[:, DESTINATION_ROW]

    def ends(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, 2, F] the features of where the route stands and of where it must end."""
        return rows.nodes[:, : self.first_open]

    def origin_number(self, rows: ReducedRows) -> Tensor:
        """Return [B] int64 the number of the node where the route stands."""
        return rows.orig[:, ORIGIN_ROW].long()

    def number(self, rows: ReducedRows, row: Tensor) -> Tensor:
        """Return [B] int64 the number of the node in one row of each instance, [B] int64."""
        return rows.orig.gather(1, row.unsqueeze(1)).squeeze(1).long()

    def take(
        self, rows: ReducedRows, instance: Any, row: Tensor, extra: Tensor | None = None, is_kept: Tensor | None = None
    ) -> tuple[ReducedRows, Tensor, Tensor]:
        """Choose a row of each instance.

        Args:
            rows: the table before.
            instance: the instance.
            row: [B] int64 the open row chosen.
            extra: [B] int64, a bit that the history records with the number of the node, as 2 number + extra; None
                records the number alone.
            is_kept: [B] bool, instances that stay as they are; None for none.

        Returns:
            The table after, the features [B, F] and the number [B] int32 of the node chosen.
        """
        batch, num_rows, width = rows.nodes.shape
        # rows of all instances in one long table: picking and writing there is several times faster
        start = torch.arange(0, batch * num_rows, num_rows, device=row.device)
        nodes, orig, num_open = as_words(rows.nodes), rows.orig.reshape(-1), rows.num_open
        chosen, last = start + row, start + (num_open + (self.first_open - 1))
        if is_kept is not None:
            last = torch.where(is_kept, chosen, last)
        pair = torch.cat((chosen, last))
        words, moved = nodes.index_select(0, pair).split(batch)
        number, moved_number = orig.index_select(0, pair).split(batch)
        record = number if extra is None else 2 * number + extra.to(torch.int32)
        # what was freed is written last: where the chosen row is the last one, it must win
        nodes = nodes.index_copy(0, chosen, moved)
        orig = orig.index_copy(0, chosen, moved_number).index_copy_(0, last, record)
        picked = words.view(rows.nodes.dtype).view(batch, width)
        if is_kept is None:
            nodes.index_fill_(0, last, 0)
            there, standing, num_open = picked, number, (num_open - 1).clamp(min=0)
        else:
            nodes.index_copy_(0, last, as_words((picked * is_kept.unsqueeze(1)).unsqueeze(1)))
            there = torch.where(is_kept.unsqueeze(1), rows.nodes[:, ORIGIN_ROW], picked)
            standing = torch.where(is_kept, rows.orig[:, ORIGIN_ROW], number)
            num_open = num_open - 1 + is_kept.to(num_open.dtype)
        nodes, orig = nodes.view(rows.nodes.dtype).view(batch, num_rows, width), orig.view(batch, num_rows)
        if self.has_route:
            nodes[:, ORIGIN_ROW] = there
            orig[:, ORIGIN_ROW] = standing
        return ReducedRows(nodes, orig, num_open), picked, number

    def is_open(self, rows: ReducedRows) -> Tensor:
        """Return [B, R] bool: the open rows."""
        return self.open_rows.index_select(0, rows.num_open)

    def is_padding(self, rows: ReducedRows) -> Tensor:
        """Return [B, R] bool: the rows without a node."""
        return self.padding.index_select(0, rows.num_open)

    def views(self, rows: ReducedRows) -> dict[str, Tensor]:
        """Return what is seen beside the features: `kind` [B, R] int8."""
        return {"kind": self.kinds.index_select(0, rows.num_open)}

    def numbers(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, R] int32: the number of the node in each row, -1 in padding."""
        return torch.where(self.is_padding(rows), -1, rows.orig)

    def row_of(self, rows: ReducedRows, number: Tensor) -> Tensor:
        """Return [B] int64 the row of an open node, given its number, [B] int64."""
        return ((rows.orig == number.unsqueeze(1)) & self.is_open(rows)).int().argmax(1)

    def history(self, rows: ReducedRows, instance: Any) -> Tensor:
        """Return [B, N] int64: the choices in order, -1 behind them."""
        at_start = instance.size - 1 if self.has_route else instance.size
        chosen = rows.orig.gather(1, self.slots.index_select(0, at_start))
        is_made = self.is_made.index_select(0, at_start - rows.num_open)
        return torch.where(is_made, chosen, -1).long()


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

    def origin(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route stands."""
        return rows_of(instance.nodes, rows.last)

    def destination(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, F] the features of where the route must end."""
        first: Tensor = instance.nodes[:, 0]
        return first

    def ends(self, rows: DirectRows, instance: Any) -> Tensor:
        """Return [B, 2, F] the features of where the route stands and of where it must end."""
        return torch.stack((self.origin(rows, instance), self.destination(rows, instance)), dim=1)

    def origin_number(self, rows: DirectRows) -> Tensor:
        """Return [B] int64 the number of the node where the route stands."""
        return rows.last

    def number(self, rows: DirectRows, row: Tensor) -> Tensor:
        """Return [B] int64 the number of the node in one row of each instance: the row itself."""
        return row

    def take(
        self, rows: DirectRows, instance: Any, row: Tensor, extra: Tensor | None = None, is_kept: Tensor | None = None
    ) -> tuple[DirectRows, Tensor, Tensor]:
        """Choose a row of each instance; see `ReducedTable.take`."""
        column, number = row.unsqueeze(1), row.to(torch.int32)
        record = (number if extra is None else 2 * number + extra.to(torch.int32)).unsqueeze(1)
        # a complete solution has no slot left: what is done to it is never seen, but must stay inside the table
        slot = (instance.size - int(self.has_route) - rows.num_open).clamp(max=self.num_points - 1).unsqueeze(1)
        if is_kept is None:
            num_open, last = (rows.num_open - 1).clamp(min=0), row
            chosen = rows.chosen.scatter(1, column, True)
        else:
            kept = is_kept.unsqueeze(1)
            num_open, last = rows.num_open - 1 + is_kept.to(torch.int64), torch.where(is_kept, rows.last, row)
            record = torch.where(kept, rows.history.gather(1, slot), record)
            chosen = rows.chosen.scatter(1, column, ~kept | rows.chosen.gather(1, column))
        history = rows.history.scatter(1, slot, record)
        return DirectRows(chosen, history, last, num_open), rows_of(instance.nodes, row), number

    def is_open(self, rows: DirectRows) -> Tensor:
        """Return [B, N] bool: the open rows."""
        return ~rows.chosen

    def views(self, rows: DirectRows) -> dict[str, Tensor]:
        """Return `kind` [B, N] and `visited` [B, N] int8, and of a route `first` and `last` [B, 1] int64."""
        kind = torch.where(rows.chosen, PADDING, OPEN).to(torch.int8)
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
