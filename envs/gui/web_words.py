"""A real page in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .calls import listed_element, quoted_text

_MOST_LINES = 80
_PLAIN = {"span", "div", "p", "td", "th", "li", "label", "h1", "h2", "h3", "h4", "b", "i", "strong", "em", "t"}


def line_of(element: dict[str, Any]) -> str:
    """Write an element in a line."""
    tag = "text" if element["tag"] in _PLAIN and element["text"] else element["tag"]
    more = ""
    if element["tag"] == "list":
        chosen = set(element["chosen"])
        options = (quoted_text(one) + (" (chosen)" if one in chosen else "") for one in element["options"])
        more = ": " + ", ".join(options)
    if not element["text"] and element.get("names") and element["tag"] not in ("field", "box", "list"):
        more += f" #{element['names']}"
    if element.get("shape"):
        more += f" {element['shape']['fill']}"
    if element.get("disabled"):
        more += " (disabled)"
    if element.get("focused"):
        more += " (focused)"
    return listed_element(element["ref"], tag, element["text"], element.get("value", ""), element.get("checked"), more)


def _page(look: dict[str, Any], tree: str) -> list[str]:
    lines = [line_of(element) for element in look["elements"]]
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"({len(lines) - _MOST_LINES} more elements)"]
    return [*lines, tree] if tree else lines


def first_text(look: dict[str, Any], tree: str = "") -> str:
    """Write the goal, and the page an element a line."""
    return "\n".join([look["goal"], *_page(look, tree)])


def later_text(
    before: dict[str, Any], now: dict[str, Any], fault: str | None, said: Sequence[str], tree: str = ""
) -> str:
    """Write what an action led to: what was wrong, what the page said, and what changed on it."""
    lines = [f"error: {fault}"] if fault is not None else []
    lines += said
    if now["goal"] != before["goal"]:
        lines.append(now["goal"])
    old = {element["ref"]: line_of(element) for element in before["elements"]}
    new = {element["ref"]: line_of(element) for element in now["elements"]}
    lines += [line for ref, line in new.items() if old.get(ref) != line][:_MOST_LINES]
    gone = [str(ref) for ref in old if ref not in new]
    if gone:
        lines.append(f"gone: {', '.join(gone[:_MOST_LINES])}")
    if not lines:
        lines.append("Nothing changed.")
    return "\n".join([*lines, tree] if tree else lines)
