"""What is seen of the synthetic page: the table of what can be done, and its picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .features import (
    ARGUMENT_PLACE,
    CLICK,
    DOWN,
    FILL_VERB,
    GAP,
    HEIGHT,
    MATCHED,
    NAMED,
    NEXT,
    NUM_FEATURES,
    OPEN,
    PAGE_HEIGHT,
    PAGE_WIDTH,
    SAME,
    SCROLL,
    SELECT_VERB,
    SHARE,
    TEXT_PLACE,
    USED,
    VALUE,
    VERBS,
    WIDTH,
    X,
    Y,
)
from .widget_kinds import ALWAYS, FIELD, FIXED, NUM_ELEMENTS, NUM_PHRASES, OPTION, OTHER, TAGS
from .widget_tables import PHRASE, TAG_COLUMN, TEXTS, VIEW, WORD_COLUMN, Tables

if TYPE_CHECKING:
    from .widgets import WidgetState

NUM_FIXED = len(FIXED)
COLUMNS, LINES = 3, NUM_ELEMENTS // 3
# elements on the page of 160 x 210
LEFT, TOP, CELL_WIDTH, CELL_HEIGHT, BOX_WIDTH, BOX_HEIGHT = 1.0, 52.0, 53.0, 26.0, 51.0, 22.0
# the picture, and the cells of the grid form
SIDE, HEAD, SLOT_WIDTH, SLOT_HEIGHT = 84, 12, 28, 12
GRID_COLUMNS, GRID_LINES = 6, 7
NUM_CELLS = GRID_COLUMNS * GRID_LINES
_LETTER_WIDTH, _LETTER_HEIGHT, _LETTERS = 4, 5, 7
# letters of 3 x 5 points, each line an octal digit from the top
_FONT = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        [
            "25755",
            "65656",
            "34443",
            "65556",
            "74647",
            "74644",
            "34553",
            "55755",
            "72227",
            "11152",
            "55655",
            "44447",
            "57755",
            "75555",
            "25552",
            "65644",
            "25563",
            "65655",
            "34216",
            "72222",
            "55553",
            "55552",
            "55775",
            "55255",
            "55222",
            "71247",
        ],
    )
)
_TAG_COLOURS = (
    (208, 220, 240),
    (255, 255, 255),
    (255, 250, 220),
    (226, 240, 217),
    (240, 226, 240),
    (222, 222, 222),
    (250,) * 3,
)
_INK, _LINK_INK, _PAPER, _MARK = (20, 20, 20), (20, 40, 200), (252, 252, 252), (230, 60, 40)


def visible(state: WidgetState) -> Tensor:
    """Return which elements are seen now, [N, E] bool."""
    view = state.page[..., VIEW]
    return (state.page[..., TAG_COLUMN] >= 0) & ((view == ALWAYS) | (view == state.view.unsqueeze(1)))


def can_scroll(state: WidgetState, tables: Tables) -> Tensor:
    """Return whether the page scrolls down and up, [N, 2] bool."""
    views = tables.views[state.number]
    return torch.stack([state.view < views - 1, (state.view > 0) & (views > 0)], 1)


def possible(state: WidgetState, tables: Tables) -> Tensor:
    """Return which rows of the table can be done, [N, 32] bool."""
    seen = visible(state)
    has_field = (state.fields >= 0) & seen.gather(1, state.fields.clamp(min=0))
    fills = has_field.unsqueeze(-1) & (state.phrases >= 0).unsqueeze(1)
    return torch.cat([seen, fills.flatten(1), can_scroll(state, tables)], 1)


class Rows(NamedTuple):
    """What decides the numbers of one row of the table; every combination has a row in `make_rows`.

    Attributes:
        place: place of the element, 0 to E - 1.
        tag: kind of the element.
        text: 1 + the place of the element's word among the phrases, 0 for none.
        argument: 1 + the place of what is written, 0 where nothing is.
        named: the goal names this kind of element.
        is_next: it does what the goal says next.
        used: the element was acted on.
        value: it is checked, chosen or filled.
        same: writing would change nothing.
    """

    place: Tensor
    tag: Tensor
    text: Tensor
    argument: Tensor
    named: Tensor
    is_next: Tensor
    used: Tensor
    value: Tensor
    same: Tensor


_SIZES = (NUM_ELEMENTS, len(TAGS), NUM_PHRASES + 1, 1, 2, 2, 2, 2, 1)  # of clicks
_FILL_SIZES = (NUM_ELEMENTS, 1, NUM_PHRASES + 1, NUM_PHRASES, 2, 2, 2, 2, 2)  # of texts for fields
_NUM_CLICKS = math.prod(_SIZES)
_NUM_FILLS = math.prod(_FILL_SIZES)
_FIRST_SCROLL = _NUM_CLICKS + _NUM_FILLS
_NOTHING = _FIRST_SCROLL + 2


def _number(rows: Rows, sizes: tuple[int, ...]) -> Tensor:
    """Return the number of each combination, counted as digits of a number."""
    total = rows.place
    for part, size in zip(rows[1:], sizes[1:]):
        if size > 1:
            total = total * size + part
    return total


def _combinations(sizes: tuple[int, ...], device: torch.device) -> Rows:
    """Return all combinations in the order of their numbers."""
    rest = torch.arange(math.prod(sizes), device=device)
    parts = []
    for size in reversed(sizes):
        parts.append(rest % size)
        rest = rest // size
    return Rows(*reversed(parts))


def make_rows(device: torch.device) -> Tensor:
    """Return the features of every row that a table can hold, [C, F] float32; the last is empty."""
    clicks = _combinations(_SIZES, device)
    fills = _combinations(_FILL_SIZES, device)
    fills = fills._replace(tag=fills.tag + FIELD, argument=fills.argument + 1)
    is_option = clicks.tag == OPTION
    scroll = torch.zeros((3, NUM_FEATURES), device=device)
    scroll[:2, SCROLL] = scroll[:2, len(VERBS) + OTHER] = scroll[0, DOWN] = 1.0
    scroll[:2, GAP] = 0.5
    _write_boxes(scroll[:2], torch.tensor([[0.0, 50.0, 160.0, 160.0]], device=device))
    written = (
        _features(clicks, torch.where(is_option, SELECT_VERB, CLICK)),
        _features(fills, fills.place * 0 + FILL_VERB),
    )
    return torch.cat([*written, scroll])


def _features(rows: Rows, verb: Tensor) -> Tensor:
    """Return the features [C, F] of rows; see `features.choice_table`."""
    nodes = torch.zeros((len(verb), NUM_FEATURES), device=verb.device)
    nodes[:, : len(VERBS)] = torch.eye(len(VERBS), device=verb.device)[verb]
    nodes[:, len(VERBS) : len(VERBS) + len(TAGS)] = torch.eye(len(TAGS), device=verb.device)[rows.tag]
    has_both = (rows.text > 0) & (rows.argument > 0)
    columns = {
        MATCHED: rows.text > 0,
        SHARE: rows.text > 0,
        TEXT_PLACE: rows.text / 8,
        ARGUMENT_PLACE: rows.argument / 8,
        GAP: torch.where(has_both, 0.5 + (rows.argument - rows.text) / 16, 0.5),
        NAMED: rows.named,
        NEXT: rows.is_next,
        USED: rows.used,
        VALUE: rows.value,
        SAME: rows.same,
    }
    for column, numbers in columns.items():
        nodes[:, column] = numbers.to(torch.float32)
    _write_boxes(nodes, element_boxes(verb.device)[rows.place])
    return nodes


def table(state: WidgetState, tables: Tables, rows: Tensor) -> dict[str, Tensor]:
    """Return `nodes` [N, 32, F], `kind` [N, 32] and `goal` [N, T]; see `features.choice_table`.

    Args:
        state: the pages.
        tables: the kinds of goals.
        rows: [C, F] from `make_rows`.
    """
    is_open = possible(state, tables)
    first_open = (~state.used & (state.phrases >= 0)).to(torch.int8)
    following = torch.where(first_open.any(1), first_open.argmax(1), -2).unsqueeze(1)
    named = tables.named[state.number]
    numbers = torch.cat([_clicks(state, named, following), _fills(state, named, following), _scrolls(state)], 1)
    numbers = torch.where(is_open, numbers, _NOTHING)
    nodes = rows.index_select(0, numbers.flatten()).unflatten(0, numbers.shape)
    counted = (state.phrases >= 0).sum(1)
    tail = torch.stack([counted / 8, (state.t / 16).clamp(max=1.0)], 1)
    goal = torch.cat([tables.topics[state.number], tail.to(torch.float32)], 1)
    return {"goal": goal, "kind": is_open.to(torch.int8) * OPEN, "nodes": nodes}


def _clicks(state: WidgetState, named: Tensor, following: Tensor) -> Tensor:
    """Return the numbers of the rows of clicks, [N, E] int64."""
    tag = state.page[..., TAG_COLUMN].clamp(min=0).to(torch.int64)
    text = state.page[..., PHRASE].to(torch.int64)
    nothing = torch.zeros_like(tag)
    seen = Rows(
        torch.arange(NUM_ELEMENTS, device=tag.device).expand_as(tag),
        tag,
        text + 1,
        nothing,
        named.gather(1, tag),
        (text == following).to(torch.int64),
        state.touched.to(torch.int64),
        (state.value > 0).to(torch.int64),
        nothing,
    )
    return _number(seen, _SIZES)


def _fills(state: WidgetState, named: Tensor, following: Tensor) -> Tensor:
    """Return the numbers of the rows of texts for fields, [N, fields * phrases] int64."""
    at = state.fields.clamp(min=0)
    phrase = torch.arange(NUM_PHRASES, device=at.device)
    value = state.value.gather(1, at)
    label = state.page[..., PHRASE].gather(1, at).to(torch.int64)
    parts = Rows(
        at.unsqueeze(-1),
        at.unsqueeze(-1),
        label.unsqueeze(-1) + 1,
        phrase,
        named[:, FIELD].reshape(-1, 1, 1),
        (phrase == following).to(torch.int64).unsqueeze(1),
        state.touched.gather(1, at).to(torch.int64).unsqueeze(-1),
        (value > 0).to(torch.int64).unsqueeze(-1),
        (value.unsqueeze(-1) == state.phrases.unsqueeze(1) + 1).to(torch.int64),
    )
    return _NUM_CLICKS + _number(parts, _FILL_SIZES).flatten(1)


def _scrolls(state: WidgetState) -> Tensor:
    """Return the numbers of the rows that scroll down and up, [N, 2] int64."""
    both = torch.arange(_FIRST_SCROLL, _NOTHING, device=state.t.device)
    return both.expand(state.t.shape[0], 2)


def _write_boxes(nodes: Tensor, boxes: Tensor) -> None:
    """Write centres and sizes of boxes [..., 4] (left, top, width, height)."""
    nodes[..., X] = (boxes[..., 0] + boxes[..., 2] / 2) / PAGE_WIDTH
    nodes[..., Y] = (boxes[..., 1] + boxes[..., 3] / 2) / PAGE_HEIGHT
    nodes[..., WIDTH], nodes[..., HEIGHT] = boxes[..., 2] / PAGE_WIDTH, boxes[..., 3] / PAGE_HEIGHT


def element_boxes(device: torch.device) -> Tensor:
    """Return left, top, width and height of the places, [E, 4] float32."""
    place = torch.arange(NUM_ELEMENTS, device=device)
    column, line = place % COLUMNS, place // COLUMNS
    size = torch.tensor([BOX_WIDTH, BOX_HEIGHT], device=device).expand(NUM_ELEMENTS, 2)
    corner = torch.stack([LEFT + CELL_WIDTH * column, TOP + CELL_HEIGHT * line], 1)
    return torch.cat([corner, size], 1)


def cell_places(device: torch.device) -> Tensor:
    """Return the place of an element that each cell of the grid lies on, [cells] int64, -1 for none."""
    cell = torch.arange(NUM_CELLS, device=device)
    line, column = cell // GRID_COLUMNS - 1, cell % GRID_COLUMNS * COLUMNS // GRID_COLUMNS
    return torch.where(line >= 0, line * COLUMNS + column, -1)


class Pictures(NamedTuple):
    """What pictures are made of.

    Attributes:
        words: [W + 1, 6, 28] uint8, 1 where a word has ink; the last word is empty.
        tags: [tags + 1, 3] uint8, colour of an element; the last is the paper.
        inks: [tags + 1, 3] uint8.
        texts: [V, 3] uint8, colour of the goal, one for each text.
    """

    words: Tensor
    tags: Tensor
    inks: Tensor
    texts: Tensor


def make_pictures(device: torch.device, tables: Tables) -> Pictures:
    """Return what the pictures of a page are made of."""
    ink_of = np.zeros((len(TEXTS) + 1, 6, SLOT_WIDTH), np.uint8)
    for number, text in enumerate(TEXTS):
        for i, letter in enumerate(text.lower()[:_LETTERS]):
            for line, digit in enumerate(_FONT[letter]):
                for point in range(3):
                    ink_of[number, line + 1, i * _LETTER_WIDTH + point] = int(digit) >> (2 - point) & 1
    inks = [_INK, _LINK_INK, *[_INK] * (len(TAGS) - 2), _INK]
    known = {text: i for i, text in enumerate(dict.fromkeys(tables.text))}
    hues = torch.tensor([known[text] for text in tables.text])
    # three digits to the base 4, each a shade, tell the text
    texts = torch.stack([150 + 35 * (hues // 4**i % 4) for i in range(3)], 1)
    return Pictures(
        torch.from_numpy(ink_of).to(device),
        torch.tensor([*_TAG_COLOURS, _PAPER], dtype=torch.uint8, device=device),
        torch.tensor(inks, dtype=torch.uint8, device=device),
        texts.to(torch.uint8).to(device),
    )


def draw(state: WidgetState, pictures: Pictures) -> Tensor:
    """Draw the pages, [N, 84, 84, 3] uint8: the phrases of the goal above, then the elements in their places.

    An element shows its word, below it a field the word in it; a mark on the left tells that a box is checked, an option
    chosen or a field in focus.
    """
    rows = state.t.shape[0]
    empty = pictures.words.shape[0] - 1
    head = _lettered(torch.where(state.phrases >= 0, state.phrases, empty), pictures)
    head = head.unflatten(1, (2, COLUMNS)).transpose(2, 3).reshape(rows, HEAD, SIDE)
    shade = pictures.texts[state.number][:, None, None]
    ink = torch.tensor(_INK, dtype=torch.uint8, device=head.device)
    top = torch.where(head.bool().unsqueeze(-1), ink, shade)
    seen = visible(state)
    tag = state.page[..., TAG_COLUMN]
    kind = torch.where(seen, tag, len(TAGS)).to(torch.int64)
    written = torch.where(seen & (tag == FIELD) & (state.value > 0), state.value - 1, empty)
    words = torch.where(seen, state.page[..., WORD_COLUMN], empty)
    letters = torch.cat([_lettered(words, pictures), _lettered(written, pictures)], 2).bool()
    body = torch.where(
        letters.unsqueeze(-1), pictures.inks[kind][:, :, None, None], pictures.tags[kind][:, :, None, None]
    )
    focused = state.focus.unsqueeze(1) == torch.arange(NUM_ELEMENTS, device=seen.device)
    marked = seen & (((tag != FIELD) & (state.value > 0)) | focused)
    mark = torch.tensor(_MARK, dtype=torch.uint8, device=seen.device)
    body[:, :, SLOT_HEIGHT // 2 + 1 : -1, 1:5] = torch.where(
        marked[:, :, None, None, None], mark, body[:, :, SLOT_HEIGHT // 2 + 1 : -1, 1:5]
    )
    body = body.unflatten(1, (LINES, COLUMNS)).transpose(2, 3).reshape(rows, SIDE - HEAD, SIDE, 3)
    return torch.cat([top, body], 1)


def _lettered(words: Tensor, pictures: Pictures) -> Tensor:
    """Return the ink of words [N, K] as [N, K, 6, 28] uint8."""
    return pictures.words[words.to(torch.int64)]
