"""Pages and renderers of the browser, and what breaks them."""

from __future__ import annotations

import contextlib
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
        failure: what broke it, or None.
    """

    context: Any
    capacity: int
    is_frozen: bool
    tabs: list[Tab] = field(default_factory=list)
    failure: PageFailure | None = None


@dataclass(eq=False)
class Tab:
    """A page that an episode plays on.

    Attributes:
        page: Playwright's page.
        renderer: the context that it belongs to.
        url: what is loaded, "" for nothing yet.
        said: what the page said by dialogs and did to windows since it was last asked.
        failure: what broke it, or None.
    """

    page: Any
    renderer: Renderer
    url: str = ""
    said: list[str] = field(default_factory=list)
    failure: PageFailure | None = None

    @property
    def broken(self) -> PageFailure | None:
        """What broke the page or its renderer, or None."""
        return self.failure or self.renderer.failure


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
