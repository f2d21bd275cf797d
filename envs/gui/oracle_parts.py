"""What oracles of pages are made of.

An oracle is a generator: it is given what the page shows and yields a call; it gets what the page shows then. `web_oracles.next_call` plays
it again over earlier calls, so the state of an oracle is the list of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

from .calls import quoted_text

Look = dict[str, Any]
Element = dict[str, Any]
Oracle = Callable[[Look], Generator[str, Look, None]]
ORACLES: dict[str, Oracle] = {}


def oracle(*names: str) -> Callable[[Oracle], Oracle]:
    """Register an oracle under the names of pages."""

    def register(function: Oracle) -> Oracle:
        for name in names:
            ORACLES[name] = function
        return function

    return register


class Stuck(Exception):
    """An oracle does not find what it looks for."""


def named(look: Look, text: str | None = None, tag: str | None = None, names: str = "") -> list[Element]:
    """Return the elements with a text (letter by letter), a tag and a part of their id or class."""
    return [
        one
        for one in look["elements"]
        if (text is None or one["text"].strip() == text.strip())
        and (tag is None or one["tag"] == tag)
        and names in one.get("names", "")
    ]


def one_of(look: Look, text: str | None = None, tag: str | None = None, names: str = "") -> Element:
    """Return the first such element.

    Raises:
        Stuck: there is none.
    """
    found = named(look, text, tag, names)
    if not found:
        raise Stuck(f"no element text={text!r} tag={tag!r} names={names!r}")
    return found[0]


def click(element: Element) -> str:
    """Return the call that clicks an element."""
    return f"click({element['ref']})"


def fill(element: Element, text: str) -> str:
    """Return the call that writes into a field."""
    return f"fill({element['ref']}, {quoted_text(text)})"


def quotes(look: Look) -> list[str]:
    """Return what stands in quotation marks in the goal."""
    return re.findall(r'"([^"]*)"', look["goal"])


def submit(look: Look) -> str:
    """Return the click on the button that sends a form."""
    for text in ("Submit", "submit", "Login", "Search"):
        if found := named(look, text):
            return click(found[0])
    return click(one_of(look, tag="button"))


def between(look: Look, pattern: str) -> tuple[str, ...]:
    """Return the groups of a pattern in the goal.

    Raises:
        Stuck: the goal has another form.
    """
    match = re.search(pattern, look["goal"])
    if match is None:
        raise Stuck(f"the goal {look['goal']!r} has another form")
    return match.groups()
