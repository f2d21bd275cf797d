"""A right action on the synthetic page, from its inner state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import widget_view as views
from .widget_kinds import ALWAYS, FIELD, NUM_ELEMENTS, NUM_PHRASES, STEP, SUBMIT
from .widget_tables import EFFECT, GOTO, ORDER, TAG_COLUMN, TARGET, VIEW
from .widgets import FIRST_FILL, SCROLL_DOWN, SCROLL_UP

if TYPE_CHECKING:
    from .widget_tables import Tables
    from .widgets import Widgets, WidgetState


def solve(task: Widgets, state: WidgetState) -> Tensor:
    """Return a right action for each row, [N] int64, in the form of `task`; any action where the goal is spoilt."""
    row, place = solve_rows(state, task.tables)
    return row if task.action == "element" else _as_cells(state, row, place)


def solve_rows(state: WidgetState, tables: Tables) -> tuple[Tensor, Tensor]:
    """Return a right action of the element form for each row, [N] int64, and the place that it acts on."""
    page = state.page
    lacking = (page[..., TARGET] >= 0) & (state.value != page[..., TARGET])
    is_last = (page[..., EFFECT] == SUBMIT) | (
        (page[..., EFFECT] == STEP) & (page[..., ORDER] == state.progress.unsqueeze(1))
    )
    candidates = torch.where(lacking.any(1, keepdim=True), lacking, is_last & (page[..., TAG_COLUMN] >= 0))
    seen = views.visible(state)
    # what can be done in this view goes first
    place = (candidates.to(torch.int8) + (candidates & seen).to(torch.int8)).argmax(1)
    wanted_view = page[..., VIEW].gather(1, place[:, None])[:, 0].to(torch.int64)
    opens = seen & (page[..., GOTO] == wanted_view.unsqueeze(1)) & (page[..., GOTO] != ALWAYS)
    is_hidden = ~seen.gather(1, place[:, None])[:, 0]
    place = torch.where(is_hidden, opens.to(torch.int8).argmax(1), place)
    row = _row_of(state, place)
    scroll = torch.where(wanted_view > state.view, SCROLL_DOWN, SCROLL_UP)
    return torch.where(is_hidden & (tables.views[state.number] > 0), scroll, row), place


def _row_of(state: WidgetState, place: Tensor) -> Tensor:
    """Return the row of the table that acts on a place as the goal wants it."""
    is_field = state.page[..., TAG_COLUMN].gather(1, place[:, None])[:, 0] == FIELD
    word = state.page[..., TARGET].gather(1, place[:, None])[:, 0] - 1
    phrase = (state.phrases == word.unsqueeze(1)).to(torch.int8).argmax(1)
    number = (state.fields == place.unsqueeze(1)).to(torch.int8).argmax(1)
    return torch.where(is_field, FIRST_FILL + number * NUM_PHRASES + phrase, place)


def _as_cells(state: WidgetState, row: Tensor, place: Tensor) -> Tensor:
    """Turn rows of the table into cells and keys: a field is clicked before it is written into."""
    line, column = place // views.COLUMNS + 1, place % views.COLUMNS * views.GRID_COLUMNS // views.COLUMNS
    cell = line * views.GRID_COLUMNS + column
    is_fill = (row >= NUM_ELEMENTS) & (row < SCROLL_DOWN)
    key = views.NUM_CELLS + (row - FIRST_FILL) % NUM_PHRASES
    action = torch.where(is_fill & (state.focus == place), key, cell)
    action = torch.where(row == SCROLL_DOWN, views.NUM_CELLS + NUM_PHRASES, action)
    return torch.where(row == SCROLL_UP, views.NUM_CELLS + NUM_PHRASES + 1, action)
