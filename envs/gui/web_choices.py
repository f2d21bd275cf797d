"""What can be done on a real page, to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .calls import quoted_text
from .features import (
    CLICK,
    FILL_VERB,
    OPEN,
    SCROLL,
    SELECT_VERB,
    Choice,
    choice_space,
    choice_table,
    goal_row,
    phrases_of,
)
from .widget_kinds import BOX, BUTTON, FIELD, LINK, OPTION, OTHER, TAB

if TYPE_CHECKING:
    from .web import Play

_TAGS = {"button": BUTTON, "link": LINK, "field": FIELD, "box": BOX, "tab": TAB}
_MOST_PHRASES = 6
_VIEW = (0.0, 50.0, 160.0, 160.0)


def phrases(look: dict[str, Any]) -> list[str]:
    """Return the phrases of the goal that are quoted there or stand on the page."""
    texts = [element["text"] for element in look["elements"]]
    texts += [option for element in look["elements"] for option in element.get("options", ())]
    return phrases_of(look["goal"], texts)


def said_in(goal: str, phrase: str) -> str:
    """Return a phrase with the capitals that it has in the goal."""
    flat = " ".join(goal.split())
    at = flat.lower().find(phrase)
    return flat[at : at + len(phrase)] if at >= 0 else phrase


def choices_of(play: Play, most: int) -> list[tuple[str, Choice]]:
    """Return calls and what each does, in the order of the page, at most `most`.

    Where there are more, elements that take no part (plain text that the goal does not name) are left out first.
    """
    look = play.look
    known = phrases(look)
    found: list[tuple[int, str, Choice]] = []
    for element in look["elements"]:
        if not element.get("disabled"):
            found += _of_element(element, known, look["goal"], play)
    if any(element["tag"] == "textarea" or "scroll" in element.get("names", "") for element in look["elements"]):
        found += [(1, f"scroll(0, {by})", Choice(SCROLL, OTHER, "", box=_VIEW, down=by > 0)) for by in (100, -100)]
    if len(found) > most:
        kept = sorted(range(len(found)), key=lambda i: (found[i][0], i))[:most]
        found = [found[i] for i in sorted(kept)]
    return [(call, choice) for _, call, choice in found] or [("noop()", Choice(CLICK, OTHER, ""))]


def _of_element(element: dict[str, Any], known: list[str], goal: str, play: Play) -> list[tuple[int, str, Choice]]:
    """Return (rank, call, choice) of an element; a low rank is kept longest."""
    ref, text, box = element["ref"], element["text"], tuple(element["box"])
    used = ref in play.used
    if element["tag"] == "list":
        chosen = set(element["chosen"])
        return [
            (
                0,
                f"select({ref}, {quoted_text(option)})",
                Choice(SELECT_VERB, OPTION, option, value=option in chosen, used=option in play.used_phrases, box=box),
            )
            for option in element["options"]
        ]
    tag = _TAGS.get(element["tag"], OTHER)
    value = bool(element.get("value")) or bool(element.get("checked"))
    rank = 0 if tag != OTHER or " ".join(text.lower().split()) in known else 2
    found = [(rank, f"click({ref})", Choice(CLICK, tag, text, value=value, used=used, box=box))]
    if tag == FIELD:
        for phrase in known[:_MOST_PHRASES]:
            written = said_in(goal, phrase)
            choice = Choice(FILL_VERB, FIELD, text, phrase, value, element.get("value") == written, used, box)
            found.append((0, f"fill({ref}, {quoted_text(written)})", choice))
    return found


def observation(play: Play, rows: int) -> dict[str, np.ndarray]:
    """Return `nodes`, `kind` and `goal` of a page, as `polyathlon/Widgets-v0` gives them for its own."""
    space = choice_space(rows)
    choices = [choice for _, choice in choices_of(play, rows)]
    known = phrases(play.look)
    shape = space["nodes"].shape
    assert shape is not None
    nodes = np.zeros(shape, np.float32)
    nodes[: len(choices)] = choice_table(play.look["goal"], known, choices, play.used_phrases)
    kind = np.zeros(rows, np.int8)
    kind[: len(choices)] = OPEN
    return {"goal": goal_row(play.look["goal"], len(known), play.steps), "kind": kind, "nodes": nodes}
