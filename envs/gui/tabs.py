"""Pages and renderers of the browser, and what breaks them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import weakref
from dataclasses import dataclass, field
from typing import Any


class PageFailure(Exception):
    """Something broke that no action is to blame for.

    Args:
        kind: "page", "renderer", "browser" or "deadline".
        message: what happened.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


@dataclass(eq=False)
class Renderer:
    """A browser context whose pages may share one process, and break together.

    Attributes:
        context: Playwright's context.
        capacity: most pages.
        is_frozen: its clock stands still between steps.
        tabs: the pages in it.
        front: held by the page that needs to be in front of the others.
        failure: what broke it, or None.
    """

    context: Any
    capacity: int
    is_frozen: bool
    tabs: list[Tab] = field(default_factory=list)
    front: asyncio.Lock = field(default_factory=asyncio.Lock)
    failure: PageFailure | None = None


@dataclass(eq=False)
class Tab:
    """A page that an episode plays on.

    Attributes:
        page: Playwright's page.
        renderer: the context that it belongs to.
        session: Playwright's session of the browser's own protocol with the page.
        url: what is loaded, "" for nothing yet.
        said: what the page said by dialogs and did to windows since it was last asked.
        failure: what broke it, or None.
    """

    page: Any
    renderer: Renderer
    session: Any = None
    url: str = ""
    said: list[str] = field(default_factory=list)
    failure: PageFailure | None = None

    @property
    def broken(self) -> PageFailure | None:
        """What broke the page or its renderer, or None."""
        return self.failure or self.renderer.failure


class ScriptError(Exception):
    """An error that a script raised inside a page."""


async def call_in(tab: Tab, function: str, *given: Any) -> Any:
    """Call a function inside a page.

    What it returns crosses as one text: Playwright's own `evaluate` takes values apart in the page, in its driver and here,
    which takes twice the processor time.

    Args:
        tab: the page, whose scripts are installed.
        function: a JavaScript function, which may be asynchronous.
        given: its arguments, which JSON can hold.

    Returns:
        What it returns, of which JSON can hold everything; lone surrogates in texts are U+FFFD.

    Raises:
        ScriptError: it raised, or the page was replaced and has no scripts yet.
    """
    arguments = json.dumps(given)
    answer = await tab.session.send(
        "Runtime.evaluate",
        {
            "expression": f"(async () => __polyathlon.text(await ({function})(...{arguments})))()",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    if "exceptionDetails" in answer:
        details = answer["exceptionDetails"]
        raise ScriptError(
            details.get("exception", {}).get("description") or details.get("text", "an error of the page")
        )
    return json.loads(answer["result"]["value"])


async def move_pointer(tab: Tab, x: float, y: float) -> None:
    """Move the pointer without waiting for the page's next frame.

    Moves of the pointer wait for a frame, and Chromium gives a page that is not in front of its window one frame a second. A
    key does not wait and takes what came before it along: Shift, which nobody holds, is let go of.
    """
    key = {"type": "keyUp", "key": "Shift", "code": "ShiftLeft", "windowsVirtualKeyCode": 16}
    await asyncio.gather(
        tab.session.send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y, "button": "none"}),
        tab.session.send("Input.dispatchKeyEvent", key),
    )


def listen(tab: Tab) -> None:
    """Answer dialogs, close windows that the page opens, and note crashes."""
    tab_ref = weakref.ref(tab)

    def note(text: str) -> None:
        found = tab_ref()
        if found is not None and len(found.said) < 8:
            found.said.append(text)

    async def answer(dialog: Any) -> None:
        note(f"the page asked ({dialog.type}): {dialog.message[:200]}")
        with contextlib.suppress(Exception):
            await (dialog.accept() if dialog.type in ("alert", "beforeunload") else dialog.dismiss())

    async def close_window(page: Any) -> None:
        note("the page opened a window, which was closed")
        with contextlib.suppress(Exception):
            await page.close()

    def crash(_: Any) -> None:
        found = tab_ref()
        if found is not None:
            found.failure = found.failure or PageFailure("renderer", "the page crashed")

    tab.page.on("dialog", answer)
    tab.page.on("popup", close_window)
    tab.page.on("crash", crash)
