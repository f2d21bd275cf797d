"""A call carried out on a page with real input."""

from __future__ import annotations

import contextlib
from typing import Any

from .browser import HEIGHT, WIDTH
from .calls import Call
from .tabs import Tab, call_in

_VALUE_TYPES = ("date", "time", "month", "week", "datetime-local", "color", "range")
_NAMED_KEYS = frozenset(
    [
        "Enter",
        "Tab",
        "Escape",
        "Backspace",
        "Delete",
        "Home",
        "End",
        "PageUp",
        "PageDown",
        "ArrowUp",
        "ArrowDown",
        "ArrowLeft",
        "ArrowRight",
        "Space",
        "Insert",
        "F1",
        "F2",
        "F3",
        "F4",
        "F5",
        "F6",
        "F7",
        "F8",
        "F9",
        "F10",
        "F11",
        "F12",
    ]
)
_MODIFIERS = ("Control", "Shift", "Alt", "Meta")
_DRAG_STEPS = 5
# moves of the pointer and events of scrolling come with a frame; of the pages in a window Chromium gives those behind the
# first one a second
MOVING = ("drag", "hover", "scroll")


async def perform(tab: Tab, call: Call, leaves: Any) -> str | None:
    """Carry out a call.

    Args:
        tab: the page; for calls in `MOVING` the caller holds `tab.renderer.front`.
        call: what to do.
        leaves: function address -> reason why the page must not go there, or None.

    Returns:
        Why it could not be done, or None.
    """
    name, given, page = call.name, call.arguments, tab.page
    if name in MOVING:
        await _bring_to_front(tab)
    if name in ("click", "dblclick", "hover", "focus", "fill"):
        return await _on_element(tab, name, given)
    if name == "select":
        return _error(await call_in(tab, "__polyathlon.select", *given))
    if name == "type":
        await page.keyboard.type(given[0])
    elif name == "press":
        return await _press(page, given[0])
    elif name == "click_at":
        outside = _outside(given)
        if outside is None:
            await page.mouse.click(*given)
        return outside
    elif name == "drag":
        return await _drag(tab, given)
    elif name == "scroll":
        await call_in(tab, "__polyathlon.scroll", *given)
    elif name == "goto":
        reason = leaves(given[0])
        if reason is None:
            await page.goto(given[0], wait_until="load")
        return reason
    elif name == "tab" and given[0] != 1:
        return "there is one tab, number 1"
    return None


def _error(answer: Any) -> str | None:
    return answer.get("error") if isinstance(answer, dict) else None


async def _bring_to_front(tab: Tab) -> None:
    if len(tab.renderer.tabs) > 1:
        await tab.page.bring_to_front()


async def _point_of(tab: Tab, name: str, ref: int) -> dict[str, Any]:
    """Return where an element can be clicked, scrolling to it where it cannot be seen; or {"error"}."""
    wants = "field" if name == "fill" else None
    at: dict[str, Any] = await call_in(tab, "__polyathlon.point", ref, wants, False)
    if "scrolls" not in at:
        return at
    async with contextlib.nullcontext() if name in MOVING else tab.renderer.front:
        await _bring_to_front(tab)
        found: dict[str, Any] = await call_in(tab, "__polyathlon.point", ref, wants, True)
    return found


async def _on_element(tab: Tab, name: str, given: tuple[Any, ...]) -> str | None:
    page = tab.page
    at = await _point_of(tab, name, given[0])
    if "error" in at:
        return str(at["error"])
    if name == "hover":
        await page.mouse.move(at["x"], at["y"])
    elif name == "dblclick":
        await page.mouse.dblclick(at["x"], at["y"])
    elif name != "fill" or at["type"] not in _VALUE_TYPES:
        await page.mouse.click(at["x"], at["y"])
    if name == "fill":
        return await _fill(tab, given[0], given[1], at["type"])
    return None


async def _fill(tab: Tab, ref: int, text: str, kind: str) -> str | None:
    page = tab.page
    if kind in _VALUE_TYPES:
        return _error(await call_in(tab, "__polyathlon.assign", ref, text))
    await call_in(tab, "__polyathlon.clear", ref)
    await page.keyboard.press("Delete")
    if len(text) <= 64:
        await page.keyboard.type(text)
    else:
        await page.keyboard.insert_text(text)
    return None


async def _press(page: Any, keys: str) -> str | None:
    *modifiers, key = keys.split("+") if len(keys) > 1 else [keys]
    known = key in _NAMED_KEYS or (len(key) == 1 and key.isprintable())
    if not known or any(one not in _MODIFIERS for one in modifiers):
        return f'there is no key {keys!r}; keys are "Enter", "Tab", "a", "Control+a" and the like'
    await page.keyboard.press(keys)
    return None


def _outside(point: tuple[float, ...]) -> str | None:
    x, y = point
    return None if 0 <= x < WIDTH and 0 <= y < HEIGHT else f"({x}, {y}) is outside the page of {WIDTH} x {HEIGHT}"


async def _drag(tab: Tab, given: tuple[float, ...]) -> str | None:
    outside = _outside(given[:2]) or _outside(given[2:])
    if outside is None:
        mouse = tab.page.mouse
        await mouse.move(*given[:2])
        await mouse.down()
        await mouse.move(*given[2:], steps=_DRAG_STEPS)
        await mouse.up()
    return outside
