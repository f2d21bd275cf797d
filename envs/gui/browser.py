"""One browser for a process, and the pages in it: shared, with deadlines, and replaced when they break."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from polyathlon.envs.errors import UsageError, require, require_program

from .loop import LoopThread
from .tabs import PageFailure, Renderer, Tab, listen

T = TypeVar("T")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 500, 320  # with a smaller one, dialogs of the tasks land outside the page
START_TIME = 1_700_000_000_000  # what a frozen clock says at the start of every episode, in ms
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
    "--process-per-site",
)
_LAUNCH_SECONDS = 60.0
OPEN_SECONDS = 30.0  # for opening and loading a page, of which many may be asked for at once
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class BrowserOptions:
    """How the browser is started.

    Attributes:
        executable_path: the program; None looks for it.
        headless: without windows.
    """

    executable_path: str | None = None
    headless: bool = True


def find_browser(executable_path: str | None = None) -> str | None:
    """Return the browser's program: the one given, else chromium or Chrome on the PATH; None for Playwright's own.

    Raises:
        ImportError: there is none; the message is the commands that install one.
    """
    if executable_path is not None:
        found = shutil.which(executable_path)
        if found is None:
            raise require_program(executable_path, "apt-get install chromium", "playwright install chromium")
        return found
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """The browser of this process, with Playwright's asynchronous interface on a loop of its own.

    Use `Browser.get`. A fork starts its own at first use; a browser that was lost is started again.

    Args:
        options: how it is started.

    Raises:
        ImportError: Playwright or a browser is missing.
    """

    _known: ClassVar[dict[BrowserOptions, Browser]] = {}

    def __init__(self, options: BrowserOptions) -> None:
        require("playwright.async_api", "gui")
        self.options = options
        self.program = find_browser(options.executable_path)
        self.thread = LoopThread("polyathlon-browser")
        self._playwright: Any = None
        self._browser: Any = None
        self._starting, self._opening = asyncio.Lock(), asyncio.Lock()
        self._renderers: list[Renderer] = []
        self._has_run = False

    @classmethod
    def get(cls, options: BrowserOptions | None = None) -> Browser:
        """Return the browser of this process with these options."""
        chosen = options or BrowserOptions()
        if chosen not in cls._known:
            cls._known[chosen] = cls(chosen)
        return cls._known[chosen]

    @classmethod
    def forget_all(cls) -> None:
        """Let go of the browsers of the process that this one was forked from, without touching them."""
        for browser in cls._known.values():
            # an open end here would keep that browser alive after its own process; asked for now, since the number of a pipe
            # that was closed meanwhile may be that of another file, such as a pipe to the program that this child will run
            for pipe in _driver_pipes(browser._playwright):
                with contextlib.suppress(OSError):
                    os.close(pipe)
        cls._known.clear()

    @classmethod
    def close_all(cls) -> None:
        """Close the browsers of this process."""
        for browser in list(cls._known.values()):
            browser.close()

    def run(self, awaitable: Awaitable[T], timeout: float) -> T:
        """Wait for a coroutine on the browser's loop.

        Raises:
            TimeoutError: it takes longer than `timeout` seconds.
        """
        return self.thread.run(_coroutine(awaitable), timeout)

    def close(self) -> None:
        """Close the browser; the next use starts one again."""
        self._known.pop(self.options, None)
        with contextlib.suppress(Exception):
            self.run(self._stop(), _CLOSE_SECONDS)
        self.thread.stop()

    @property
    def is_connected(self) -> bool:
        """Whether the browser runs."""
        return self._browser is not None and bool(self._browser.is_connected())

    # ------------------------------------------------------------------------------------------- on the loop

    async def start(self) -> Any:
        """Return Playwright's browser, starting it where it does not run.

        Raises:
            PageFailure: it does not start again after it was lost.
            UsageError: it has never started: the program is no browser, or there is no display.
        """
        async with self._starting:
            if not self.is_connected:
                await self._stop()
                try:
                    await asyncio.wait_for(self._launch(), _LAUNCH_SECONDS)
                except Exception as error:
                    await self._stop()
                    if "Executable doesn't exist" in str(error):
                        raise require_program(
                            "chromium", "apt-get install chromium", "playwright install chromium"
                        ) from error
                    message = f"{self.program or 'chromium'} did not start: {first_line(error)}"
                    if self._has_run:
                        raise PageFailure("browser", message) from error
                    raise UsageError(f"{message}\n{self._advice()}") from error
                self._has_run = True
        return self._browser

    def _advice(self) -> str:
        has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
        if not self.options.headless and sys.platform.startswith("linux") and not has_display:
            return "headless=False needs a display and there is none: leave it out, or run under xvfb-run"
        return (
            "executable_path= must be Chromium or Chrome; without it the first of these on the PATH is taken: "
            + ", ".join(PROGRAMS)
        )

    async def _launch(self) -> None:
        from playwright.async_api import async_playwright

        self._playwright = await async_playwright().start()
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
        self._browser = await self._playwright.chromium.launch(
            executable_path=self.program,
            headless=self.options.headless,
            chromium_sandbox=not is_root,
            handle_sigint=False,  # Ctrl-C ends a run where its state is whole, and its pages are needed until then
            args=[*_FLAGS, *(["--no-sandbox"] if is_root else [])],
        )

    async def _stop(self) -> None:
        for renderer in self._renderers:
            renderer.failure = renderer.failure or PageFailure("browser", "the browser was closed")
        self._renderers = []
        browser, playwright = self._browser, self._playwright
        self._browser = self._playwright = None
        for thing, method in ((browser, "close"), (playwright, "stop")):
            if thing is not None:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(getattr(thing, method)(), _CLOSE_SECONDS / 2)

    async def new_tab(self, capacity: int, is_frozen: bool, is_offline: bool, **context: Any) -> Tab:
        """Open a page in a renderer with room, or in a new one.

        Args:
            capacity: most pages of a renderer; 1 for a page that may do anything.
            is_frozen: its clock moves only when it is told to.
            is_offline: no network at all.
            context: further arguments of Playwright's `new_context`.

        Raises:
            PageFailure: the browser is lost or does not answer.
        """
        browser = await self.start()
        try:
            return await asyncio.wait_for(self._open(browser, capacity, is_frozen, is_offline, context), OPEN_SECONDS)
        except (PageFailure, ImportError):
            raise
        except Exception as error:
            raise self.failure_of(error) from error

    async def _open(
        self, browser: Any, capacity: int, is_frozen: bool, is_offline: bool, context: dict[str, Any]
    ) -> Tab:
        async with self._opening:  # one at a time: those who come after find room in the context that is made here
            renderer = self._with_room(capacity, is_frozen) if not context else None
            if renderer is None:
                renderer = await self._new_renderer(browser, capacity, is_frozen, is_offline, context)
            tab = Tab(None, renderer)
            renderer.tabs.append(tab)
        tab.page = await renderer.context.new_page()
        tab.session = await renderer.context.new_cdp_session(tab.page)
        listen(tab)
        return tab

    async def _new_renderer(
        self, browser: Any, capacity: int, is_frozen: bool, is_offline: bool, context: dict[str, Any]
    ) -> Renderer:
        made = await browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT}, offline=is_offline, accept_downloads=False, **context
        )
        renderer = Renderer(made, capacity, is_frozen)
        if is_offline:
            # a route for everything would stop pages of files too
            await made.route(_is_remote, _abort)
        if is_frozen:
            await made.clock.install(time=START_TIME / 1000)
            await made.clock.pause_at(START_TIME / 1000)
        self._renderers.append(renderer)
        return renderer

    def _with_room(self, capacity: int, is_frozen: bool) -> Renderer | None:
        for renderer in self._renderers:
            fits = renderer.capacity == capacity and renderer.is_frozen == is_frozen and renderer.failure is None
            if fits and capacity > 1 and len(renderer.tabs) < capacity:
                return renderer
        return None

    async def guard(self, tab: Tab, awaitable: Awaitable[T], deadline: float) -> T:
        """Wait for something that a page does.

        A page that does not answer in time has its context closed: pages of one context may share a process, so it stops
        all of them, and closing the page alone frees none.

        Raises:
            PageFailure: the page, its renderer or the browser is lost.
        """
        if tab.broken is not None:
            _dispose(awaitable)
            raise tab.broken
        try:
            return await asyncio.wait_for(_coroutine(awaitable), deadline)
        except TimeoutError:
            failure = PageFailure("renderer", f"the page did not answer within {deadline:g} seconds")
        except Exception as error:
            if tab.broken is None and not _is_loss(error):
                raise
            failure = tab.broken or self.failure_of(error)
        await self.break_renderer(tab.renderer, failure)
        raise failure

    def failure_of(self, error: BaseException) -> PageFailure:
        """Return what an error of Playwright says that was lost."""
        if not self.is_connected:
            return PageFailure("browser", f"the browser was lost: {first_line(error)}")
        if isinstance(error, asyncio.TimeoutError | TimeoutError):
            return PageFailure("deadline", "the browser did not answer in time")
        return PageFailure("renderer", f"the page was lost: {first_line(error)}")

    async def break_renderer(self, renderer: Renderer, failure: PageFailure) -> None:
        """Give up a renderer with all its pages."""
        renderer.failure = renderer.failure or failure
        await self.close_renderer(renderer)

    async def close_renderer(self, renderer: Renderer) -> None:
        """Close a context and its pages."""
        if renderer in self._renderers:
            self._renderers.remove(renderer)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(renderer.context.close(), _CLOSE_SECONDS)

    async def close_tab(self, tab: Tab) -> None:
        """Close a page, and its context when it was the last."""
        renderer = tab.renderer
        if tab in renderer.tabs:
            renderer.tabs.remove(tab)
        tab.failure = tab.failure or PageFailure("page", "the page was closed")
        if renderer.failure is None:
            if not renderer.tabs:
                renderer.failure = PageFailure("page", "the context was closed")
                await self.close_renderer(renderer)
                return
            with contextlib.suppress(Exception):
                await asyncio.wait_for(tab.page.close(), _CLOSE_SECONDS)


def _is_remote(url: str) -> bool:
    return url.split(":", 1)[0].lower() in ("http", "https", "ws", "wss")


async def _abort(route: Any) -> None:
    with contextlib.suppress(Exception):
        await route.abort()


def _is_loss(error: BaseException) -> bool:
    """Tell errors by which a page, a context or the browser is lost from those about an action."""
    text = str(error)
    return any(
        word in text for word in ("crashed", "has been closed", "Connection closed", "disconnected", "Target closed")
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


async def _coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _dispose(awaitable: Any) -> None:
    if hasattr(awaitable, "close"):
        awaitable.close()


def _driver_pipes(playwright: Any) -> list[int]:
    """Return the ends of the pipes to Playwright's driver that this process holds open."""
    found: list[int] = []
    for number in (0, 1):
        # AttributeError: private names; without them a fork holds the pipes open, and nothing else changes. ValueError: closed
        with contextlib.suppress(AttributeError, ValueError):
            driver = playwright.stop.__self__._client._transport._proc._transport
            found.append(driver.get_pipe_transport(number).get_extra_info("pipe").fileno())
    return found


atexit.register(Browser.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Browser.forget_all)
