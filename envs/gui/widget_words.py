"""The synthetic page in words, as `polyathlon/Web-v0` writes real pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch

from . import widget_view as views
from .calls import Call, CallError, listed_element, read_call
from .features import CLICK, FILL_VERB, PAGE_HEIGHT, PAGE_WIDTH, SCROLL, SELECT_VERB, Choice
from .widget_kinds import ALWAYS, BOX, FIELD, NUM_ELEMENTS, NUM_PHRASES, OPTION, OTHER, TAGS
from .widget_tables import TAG_COLUMN, TEXTS, VIEW, WORD_COLUMN, fill_in
from .widgets import FIRST_FILL, SCROLL_DOWN, SCROLL_UP

if TYPE_CHECKING:
    from .widgets import Widgets, WidgetState

LIST = NUM_ELEMENTS + 1  # the reference of the list; those of elements are their places counted from 1
_SCROLL_BY = 100


def goal_text(task: Widgets, state: WidgetState, i: int) -> str:
    """Return the goal of row i in words."""
    words, number = [TEXTS[word] for word in state.phrases[i].tolist() if word >= 0], int(state.number[i])
    return fill_in(task.tables.text[number], words, int(task.tables.wanted[number]))


def _seen(state: WidgetState, i: int) -> list[tuple[int, int, str]]:
    """Return place, tag and text of the elements seen in row i."""
    view = int(state.view[i])
    rows = state.page[i].tolist()
    return [
        (place, row[TAG_COLUMN], TEXTS[row[WORD_COLUMN]])
        for place, row in enumerate(rows)
        if row[TAG_COLUMN] >= 0 and row[VIEW] in (ALWAYS, view)
    ]


def tell_state(task: Widgets, state: WidgetState, i: int) -> str:
    """Write the goal and, an element a line, what is seen in row i."""
    lines, options = [], []
    for place, tag, text in _seen(state, i):
        value = int(state.value[i, place])
        if tag == OPTION:
            options.append(f'"{text}"' + (" (chosen)" if value else "") + _where(task, place))
            continue
        shown = TEXTS[value - 1] if tag == FIELD and value else ""
        line = listed_element(place + 1, TAGS[tag], text, shown, value > 0 if tag == BOX else None)
        lines.append(line + _where(task, place))
    if options:
        lines.append(f"[{LIST}] list: {', '.join(options)}")
    down, up = views.can_scroll(state, task.tables)[i].tolist()
    if down or up:
        lines.append(f"(the page goes on {' and '.join(['below'] * down + ['above'] * up)})")
    return "\n".join([goal_text(task, state, i), *lines])


def _where(task: Widgets, place: int) -> str:
    """Return where an element stands, for the form that clicks by coordinates."""
    if task.action == "element":
        return ""
    x, y = _centre(place)
    return f" at ({x}, {y})"


def _centre(place: int) -> tuple[int, int]:
    left, top, width, height = views.element_boxes(torch.device("cpu"))[place].tolist()
    return round(left + width / 2), round(top + height / 2)


def describe_widgets(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Write the goal and the page, an element a line."""
    bare: Any = env.unwrapped
    return tell_state(bare.task, bare.state, 0)


def call_of(task: Widgets, state: WidgetState, i: int, action: int) -> str:
    """Write an action as a call."""
    if task.action == "grid":
        return _grid_call(state, i, action)
    if action in (SCROLL_DOWN, SCROLL_UP):
        return f"scroll(0, {_SCROLL_BY if action == SCROLL_DOWN else -_SCROLL_BY})"
    if action >= FIRST_FILL:
        number, phrase = divmod(action - FIRST_FILL, NUM_PHRASES)
        return f'fill({int(state.fields[i, number]) + 1}, "{TEXTS[int(state.phrases[i, phrase])]}")'
    tag, word = state.page[i, action, TAG_COLUMN].item(), state.page[i, action, WORD_COLUMN].item()
    return f'select({LIST}, "{TEXTS[int(word)]}")' if tag == OPTION else f"click({action + 1})"


def _grid_call(state: WidgetState, i: int, action: int) -> str:
    if action < views.NUM_CELLS:
        line, column = divmod(action, views.GRID_COLUMNS)
        x = (column + 0.5) * PAGE_WIDTH / views.GRID_COLUMNS
        y = views.TOP + (line - 0.5) * views.CELL_HEIGHT if line else views.TOP / 2
        return f"click_at({round(x)}, {round(y)})"
    key = action - views.NUM_CELLS
    if key < NUM_PHRASES:
        return f'type("{TEXTS[int(state.phrases[i, key])]}")'
    return f"scroll(0, {_SCROLL_BY if key == NUM_PHRASES else -_SCROLL_BY})"


def _grid_action(call: Call, words: list[str | None]) -> int:
    if call.name == "click_at":
        x, y = call.arguments
        if not (0 <= x < PAGE_WIDTH and 0 <= y < PAGE_HEIGHT):
            raise CallError(f"({x}, {y}) is outside the page of {PAGE_WIDTH} x {PAGE_HEIGHT}")
        line = min(1 + int((y - views.TOP) // views.CELL_HEIGHT), views.GRID_LINES - 1) if y >= views.TOP else 0
        return line * views.GRID_COLUMNS + int(x * views.GRID_COLUMNS // PAGE_WIDTH)
    if call.name == "type":
        return views.NUM_CELLS + _place_of_phrase(call.arguments[0], words)
    if call.name == "scroll":
        return views.NUM_CELLS + NUM_PHRASES + int(call.arguments[1] <= 0)
    raise CallError(f"this page knows click_at, type and scroll, not {call.name}")


def _place_of_phrase(text: str, words: list[str | None]) -> int:
    if text not in words:
        raise CallError(f"{text!r} is no phrase of the goal, which is all that can be written here")
    return words.index(text)


def parse_widgets(text: str, info: dict[str, Any], env: gym.Env[Any, Any]) -> Any:
    """Read a call and return the action.

    Raises:
        CallError: it is none, or nothing of the page answers to it.
    """
    bare: Any = env.unwrapped
    task, state = bare.task, bare.state
    words = [TEXTS[word] if word >= 0 else None for word in state.phrases[0].tolist()]
    call = read_call(text)
    if task.action == "grid":
        return np.int64(_grid_action(call, words))
    return np.int64(_action_of(call, task, state, words))


def _action_of(call: Call, task: Widgets, state: WidgetState, words: list[str | None]) -> int:
    seen = {place + 1: tag for place, tag, _ in _seen(state, 0)}
    if call.name == "scroll":
        down = call.arguments[1] > 0
        if not views.can_scroll(state, task.tables)[0, int(not down)]:
            raise CallError(f"the page does not scroll {'down' if down else 'up'} from here")
        return SCROLL_DOWN if down else SCROLL_UP
    if call.name not in ("click", "fill", "select"):
        raise CallError(f"this page knows click, fill, select and scroll, not {call.name}")
    ref = call.arguments[0]
    if call.name == "select":
        return _option(call, state)
    if ref not in seen or seen[ref] == OPTION:
        raise CallError(f"there is no element [{ref}] on the page now")
    if call.name == "click":
        return int(ref) - 1
    if seen[ref] != FIELD:
        raise CallError(f"[{ref}] is no field to write into")
    number = state.fields[0].tolist().index(int(ref) - 1)
    return FIRST_FILL + number * NUM_PHRASES + _place_of_phrase(call.arguments[1], words)


def _option(call: Call, state: WidgetState) -> int:
    ref, text = call.arguments
    options = {word: place for place, tag, word in _seen(state, 0) if tag == OPTION}
    if ref != LIST or not options:
        raise CallError(f"[{ref}] is no list on the page now")
    if text not in options:
        raise CallError(f"the list has no option {text!r}")
    return options[text]


def solution(observation: Any, info: dict[str, Any], env: gym.Env[Any, Any]) -> str:
    """Return a right call."""
    bare: Any = env.unwrapped
    return call_of(bare.task, bare.state, 0, int(bare.task.solve(bare.state)[0]))


def choices_of(task: Widgets, state: WidgetState, i: int) -> tuple[list[int], list[Choice]]:
    """Return the actions that can be done in row i, and what each is, in the words that real pages are described by."""
    boxes = views.element_boxes(state.t.device).tolist()
    found: list[tuple[int, Choice]] = []
    seen = _seen(state, i)
    for place, tag, text in seen:
        verb = SELECT_VERB if tag == OPTION else CLICK
        done = dict(value=int(state.value[i, place]) > 0, used=bool(state.touched[i, place]), box=tuple(boxes[place]))
        found.append((place, Choice(verb, tag, text, **done)))  # type: ignore[arg-type]
    texts = {place: text for place, _, text in seen}
    for number, place in enumerate(state.fields[i].tolist()):
        for phrase, word in enumerate(state.phrases[i].tolist()):
            if place in texts and word >= 0:
                value = int(state.value[i, place])
                done = dict(value=value > 0, same=value == word + 1, used=bool(state.touched[i, place]))
                choice = Choice(FILL_VERB, FIELD, texts[place], TEXTS[word], box=tuple(boxes[place]), **done)  # type: ignore[arg-type]
                found.append((FIRST_FILL + number * NUM_PHRASES + phrase, choice))
    for action, can in zip((SCROLL_DOWN, SCROLL_UP), views.can_scroll(state, task.tables)[i].tolist()):
        if can:
            box = (0.0, 50.0, 160.0, 160.0)
            found.append((action, Choice(SCROLL, OTHER, "", box=box, down=action == SCROLL_DOWN)))
    return [action for action, _ in found], [choice for _, choice in found]
