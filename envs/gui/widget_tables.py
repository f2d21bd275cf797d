"""The kinds of goals of the synthetic page as tensors: all pages that may be drawn, but for their words and places."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .features import tags_named, topics_of
from .widget_goals import GOALS
from .widget_kinds import (
    FIELD,
    FIXED,
    MANY,
    NUM_DRAWN,
    NUM_ELEMENTS,
    NUM_FIELDS,
    NUM_PHRASES,
    STEP,
    TOGGLE,
    WORDS,
    Goal,
    Widget,
)

# columns of an element of a page
TAG_COLUMN, WORD_COLUMN, EFFECT, VIEW, GOTO, TARGET, ORDER, PHRASE = range(8)
_EMPTY = (-1, 0, 0, -1, -1, -1, -1, -1)
FIRST_WORD = 2  # a wanted value from here on is 2 + the word that is wanted, as `Widget.word` numbers it
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# the text of a word by its number: those drawn, then the fixed ones
TEXTS = (*WORDS, *FIXED)


def sources_of(text: str, wanted: int, many: int) -> list[int]:
    """Return the words of a goal's text in order, as `Widget.word` numbers them, with the wanted of the many in their place."""
    found: list[int] = []
    for name in _PLACEHOLDER.findall(text):
        if name == "many":
            found += range(many, many + wanted)
        else:
            found.append(int(name) if name.isdigit() else NUM_DRAWN + FIXED.index(name))
    return found


def fill_in(text: str, words: list[str], wanted: int) -> str:
    """Write a goal: `words` stand in its places in order, `wanted` of them in that of the many."""
    rest = iter(words)

    def quoted(match: re.Match[str]) -> str:
        if match[0] != MANY:
            return f'"{next(rest)}"'
        several = [f'"{next(rest)}"' for _ in range(wanted)]
        return several[0] if wanted == 1 else f"{', '.join(several[:-1])} and {several[-1]}"

    return _PLACEHOLDER.sub(quoted, text)


@dataclass(frozen=True)
class Tables:
    """V pages, those of one kind of goal one after another.

    Attributes:
        first: [G] int64, the first page of each kind.
        number: [G] int64, how many there are of it.
        elements: [V, E, 8] int16: tag (-1 for none), word, effect, view, view that it opens, wanted value, order, phrase.
        start: [V, E] int16, values at the start.
        fields: [V, F] int64, which elements are text fields, -1 for none.
        phrases: [V, P] int64, the words of the goal in order, -1 for none.
        wanted: [V] int64, how many of the many are wanted.
        total: [V] int64, clicks wanted in turn.
        view: [V] int64, the first view.
        views: [V] int64, views that scrolling goes through.
        topics: [V, topics] float32.
        named: [V, tags] int64, which kinds of elements the text names.
        text: the texts of the V goals.
    """

    first: Tensor
    number: Tensor
    elements: Tensor
    start: Tensor
    fields: Tensor
    phrases: Tensor
    wanted: Tensor
    total: Tensor
    view: Tensor
    views: Tensor
    topics: Tensor
    named: Tensor
    text: tuple[str, ...]

    def to(self, device: torch.device) -> Tables:
        """Return the tables on a device."""
        moved: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            moved[part.name] = value.to(device) if isinstance(value, Tensor) else value
        return Tables(**moved)


def _row(widget: Widget, wanted: int, phrases: list[int]) -> tuple[int, ...]:
    is_wanted = 0 <= widget.member < wanted
    target, order = widget.target, widget.order
    if is_wanted and widget.effect == TOGGLE:
        target = 1 - target
    if widget.target_word >= 0:
        target = FIRST_WORD + widget.target_word
    if widget.member >= 0:
        order = widget.member if is_wanted else -1
    phrase = phrases.index(widget.word) if widget.word in phrases else -1
    return widget.tag, widget.word, widget.effect, widget.view, widget.goto, target, order, phrase


def _padded(values: list[int], size: int) -> list[int]:
    assert len(values) <= size
    return values + [-1] * (size - len(values))


def _page(goal: Goal, text: str, count: int, wanted: int) -> dict[str, object]:
    """Return a row of each of the tables."""
    phrases = sources_of(text, wanted, 0 if goal.many is None else goal.many.word)
    there = [widget for widget in goal.elements() if widget.member < count]
    clicks_many = goal.many is not None and goal.many.effect == STEP
    empty = NUM_ELEMENTS - len(there)
    shown = text
    for word in FIXED:
        shown = shown.replace(f"{{{word}}}", f'"{word}"')
    shown = fill_in(shown, ["x"] * len(_PLACEHOLDER.findall(shown)), 1)
    return {
        "elements": [_row(widget, wanted, phrases) for widget in there] + [_EMPTY] * empty,
        "start": [widget.start for widget in there] + [0] * empty,
        "fields": _padded([i for i, widget in enumerate(there) if widget.tag == FIELD], NUM_FIELDS),
        "phrases": _padded(phrases, NUM_PHRASES),
        "wanted": wanted,
        "total": goal.clicks + (wanted if clicks_many else 0),
        "view": goal.first,
        "views": goal.views,
        "topics": topics_of(shown).tolist(),
        "named": tags_named(shown).tolist(),
    }


_TYPES = {"elements": torch.int16, "start": torch.int16, "topics": torch.float32}


@functools.cache  # each row of a task in words is a copy of the task, and all of them read the same tables
def make_tables() -> Tables:
    """Return the tables of all goals; nobody writes into them."""
    pages, texts, numbers = [], [], []
    for goal in GOALS:
        several = list(
            product(
                goal.texts,
                range(goal.count[0], goal.count[1] + 1),
                range(goal.wanted[0], goal.wanted[1] + 1),
            )
        )
        pages += [_page(goal, *one) for one in several]
        texts += [one[0] for one in several]
        numbers.append(len(several))
    tables = {
        name: torch.tensor([page[name] for page in pages], dtype=_TYPES.get(name, torch.int64)) for name in pages[0]
    }
    number = torch.tensor(numbers)
    return Tables(first=number.cumsum(0) - number, number=number, text=tuple(texts), **tables)
