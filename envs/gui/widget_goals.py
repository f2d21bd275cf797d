"""The goals of the synthetic page: what stands on it, what is wanted, and how it is said."""

from __future__ import annotations

from dataclasses import replace

from .widget_kinds import (
    ALWAYS,
    BOX,
    BUTTON,
    CANCEL_WORD,
    FIELD,
    FILL,
    LINK,
    NOTHING,
    OK_WORD,
    OPTION,
    SEARCH_WORD,
    SELECT,
    STEP,
    SUBMIT,
    SUBMIT_WORD,
    TAB,
    TOGGLE,
    Goal,
    Widget,
)

SUBMIT_BUTTON = Widget(BUTTON, SUBMIT_WORD, SUBMIT)
CANCEL_BUTTON = Widget(BUTTON, CANCEL_WORD, STEP)
_BOX = Widget(BOX, 6, TOGGLE, target=0)
_CHECKED = Widget(BOX, 6, TOGGLE, start=1, target=1)


def _fields(*pairs: tuple[int, int], view: int = ALWAYS) -> tuple[Widget, ...]:
    """Return text fields: pairs of the word that names it and the word wanted in it."""
    return tuple(Widget(FIELD, name, FILL, view, target_word=wanted) for name, wanted in pairs)


def _options(first: int, number: int, view: int = ALWAYS) -> tuple[Widget, ...]:
    """Return the options of a list, of which the first is wanted."""
    return tuple(Widget(OPTION, first + i, SELECT, view, target=int(i == 0)) for i in range(number))


def _tabs(number: int) -> tuple[Widget, ...]:
    """Return tabs, each of which opens its view: the first word's is view 1."""
    return tuple(Widget(TAB, i, NOTHING, goto=i + 1) for i in range(number))


GOALS: tuple[Goal, ...] = (
    Goal(
        "click-button",
        ("Click the button {many}.", "Press the {many} button.", "Click on {many}."),
        many=Widget(BUTTON, 0),
        count=(2, 8),
        wanted=(1, 1),
    ),
    Goal(
        "click-link",
        ("Click the link {many}.", "Follow the link {many}."),
        widgets=(Widget(BUTTON, 14), Widget(BUTTON, 15)),
        many=Widget(LINK, 0),
        count=(3, 8),
        wanted=(1, 1),
    ),
    Goal(
        "click-twin",
        ("Click the link {0}.", "Follow the {0} link, not the other one."),
        widgets=(Widget(LINK, 0, order=0), Widget(BUTTON, 0), Widget(LINK, 1), Widget(BUTTON, 1)),
        clicks=1,
    ),
    Goal(
        "click-tab",
        ("Open the tab {many}.", "Switch to the {many} tab."),
        many=Widget(TAB, 0),
        count=(2, 5),
        wanted=(1, 1),
    ),
    Goal(
        "click-sequence",
        ("Click {many} in this order.", "Press the buttons {many}, one after the other."),
        many=Widget(BUTTON, 0),
        count=(6, 10),
        wanted=(3, 5),
    ),
    Goal(
        "check",
        ("Check {many} and click {Submit}.", "Tick the box {many}, then click {Submit}."),
        widgets=(SUBMIT_BUTTON,),
        many=_BOX,
        count=(2, 6),
        wanted=(1, 1),
    ),
    Goal(
        "check-several",
        ("Check {many} and click {Submit}.", "Tick the boxes {many}, then click {Submit}."),
        widgets=(SUBMIT_BUTTON,),
        many=_BOX,
        count=(5, 9),
        wanted=(2, 4),
    ),
    Goal(
        "uncheck",
        ("Uncheck {many} and click {Submit}.", "Clear the boxes {many}, then click {Submit}."),
        widgets=(SUBMIT_BUTTON,),
        many=_CHECKED,
        count=(5, 8),
        wanted=(2, 3),
    ),
    Goal(
        "enter-text",
        ("Enter {0} into the field and click {Submit}.", "Write {0} and click {Submit}."),
        widgets=(*_fields((1, 0)), SUBMIT_BUTTON, CANCEL_BUTTON),
    ),
    Goal(
        "fill-form",
        (
            "Enter {2} into {0} and {3} into {1}, then click {Submit}.",
            "Write {2} into the field {0}, write {3} into the field {1}, click {Submit}.",
        ),
        widgets=(*_fields((0, 2), (1, 3)), SUBMIT_BUTTON, CANCEL_BUTTON),
    ),
    Goal(
        "choose",
        ("Choose {6} from the list and click {Submit}.", "Select {6} and click {Submit}."),
        widgets=(*_options(6, 5), SUBMIT_BUTTON),
    ),
    Goal(
        "choose-and-check",
        ("Choose {0} from the list, check {many} and click {Submit}.", "Select {0}, tick {many}, click {Submit}."),
        widgets=(*_options(0, 4), SUBMIT_BUTTON),
        many=_BOX,
        count=(4, 6),
        wanted=(1, 1),
    ),
    Goal(
        "tab-link",
        ("Open the tab {1} and click the link {many}.", "On the {1} tab, follow the link {many}."),
        widgets=(*_tabs(3), Widget(LINK, 3, view=1), Widget(LINK, 4, view=1), Widget(LINK, 5, view=3)),
        many=Widget(LINK, 6, view=2),
        count=(3, 5),
        wanted=(1, 1),
        first=1,
    ),
    Goal(
        "tab-form",
        (
            "Open the tab {1}, enter {3} into the field, check {many} and click {Submit}.",
            "On the {1} tab, write {3}, tick {many} and click {Submit}.",
        ),
        widgets=(
            *_tabs(3),
            *_fields((4, 3), view=2),
            replace(SUBMIT_BUTTON, view=2),
            Widget(LINK, 5, view=1),
            Widget(BUTTON, 14, view=3),
        ),
        many=replace(_BOX, view=2),
        count=(3, 5),
        wanted=(1, 1),
        first=1,
    ),
    Goal(
        "scroll-click",
        ("Scroll until you find the link {11}, then click it.", "Look for the link {11} further down and click it."),
        widgets=(Widget(LINK, 11, order=0, view=2),),
        many=Widget(LINK, 0),
        count=(7, 11),
        clicks=1,
        views=3,
    ),
    Goal(
        "search",
        ("Enter {0}, click {Search}, and click the link {2}.", "Search: write {0}, click {Search}, follow {2}."),
        widgets=(
            *_fields((1, 0)),
            Widget(BUTTON, SEARCH_WORD, NOTHING, goto=1),
            Widget(LINK, 2, order=0, view=1),
        ),
        many=Widget(LINK, 6, view=1),
        count=(3, 6),
        clicks=1,
    ),
    Goal(
        "confirm",
        ("Click {many} and confirm with {OK}.", "Press the button {many}, then {OK}."),
        widgets=(Widget(BUTTON, OK_WORD, order=1, view=1), replace(CANCEL_BUTTON, view=1)),
        many=Widget(BUTTON, 0, view=0, goto=1),
        count=(3, 7),
        wanted=(1, 1),
        clicks=1,
    ),
    Goal(
        "whole-form",
        (
            "Open the tab {1}, enter {4} into the field, choose {10}, check {many} and click {Submit}.",
            "On the {1} tab, write {4}, select {10}, tick {many}, click {Submit}.",
        ),
        widgets=(
            *_tabs(2),
            *_fields((3, 4), view=2),
            *_options(10, 3, view=2),
            replace(SUBMIT_BUTTON, view=2),
            Widget(LINK, 5, view=1),
        ),
        many=replace(_BOX, view=2, word=13),
        count=(4, 5),
        wanted=(2, 2),
        first=1,
    ),
)
GOAL_NAMES = tuple(goal.name for goal in GOALS)
