"""Playing episodes on pages: loading, starting, acting, and the pool of pages that are free."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError

from .acting import MOVING, perform
from .browser import HEIGHT, OPEN_SECONDS, WIDTH, Browser, BrowserOptions, first_line
from .calls import CALLS, REF
from .page_places import allowed_place
from .recording import UNCOVERED, Recorder, decoded
from .scripts import HAS_HOOK, INSTALL, PASS_AND_LOOK, START, WARM
from .tabs import PageFailure, Tab, call_in, move_pointer

WARM_UP = 500  # ms that each of the two episodes runs that a fresh page plays first
_CLIP = {"x": 0, "y": 0, "width": 160, "height": 210}
_SPARE_SECONDS = 90.0


@dataclass
class Play:
    """An episode on a page.

    Attributes:
        tab: the page.
        look: what it shows: done, reward, goal, elements.
        outcome: what the next answer leads to, where `prepare` carried it out: (answer, look or None, fault).
        used: numbers of the elements that were acted on.
        used_phrases: texts that were clicked or written.
        steps: answers so far.
        next_ref: number of the next element, above all that the episode has given.
        tree: the accessibility tree, where the task shows it.
        picture: the last picture before the end (210, 160, 3) uint8, where the task takes them.
        end: how the page looked when it was given back (210, 160, 3) uint8, where the task is drawn.
        recorder: what keeps the episode, or None.
    """

    tab: Tab | None
    look: dict[str, Any]
    outcome: tuple[str, dict[str, Any] | None, str | None] | None = None
    used: set[int] = field(default_factory=set)
    used_phrases: set[str] = field(default_factory=set)
    steps: int = 0
    next_ref: int = 1
    tree: str = ""
    picture: np.ndarray | None = None
    end: np.ndarray | None = None
    recorder: Recorder | None = None


@dataclass(frozen=True)
class PageSettings:
    """What is played, and how.

    Attributes:
        url: address of the page.
        folder: what addresses begin with that the page may go to.
        is_own: a page of the user's own, which has a context to itself.
        is_reloaded: the page is loaded anew for every episode.
        is_frozen: its clock stands still between steps.
        capacity: most pages that share a renderer.
        step_time: ms that pass in a step.
        deadline: seconds that a page may take to answer.
        shows_tree: read the accessibility tree.
        takes_pictures: take a picture in every step.
        is_drawn: keep how a page looks when it is given back, for the last picture of a film.
        record: folder for traces and films, or None.
    """

    url: str
    folder: str
    is_own: bool
    is_reloaded: bool
    is_frozen: bool
    capacity: int
    step_time: int
    deadline: float
    shows_tree: bool = False
    takes_pictures: bool = False
    is_drawn: bool = False
    record: str | None = None


class PageDriver:
    """Plays episodes on pages of the process's browser.

    Args:
        options: how the browser is started.
        settings: what is played.

    Raises:
        ImportError: Playwright or a browser is missing.
    """

    def __init__(self, options: BrowserOptions, settings: PageSettings) -> None:
        self.options, self.settings = options, settings
        Browser.get(options)  # says now what is missing
        self._free: list[Tab] = []
        self._finalizer = weakref.finalize(self, close_tabs, options, self._free)

    def start(self, seeds: Sequence[int]) -> list[Play | PageFailure | UsageError]:
        """Start an episode for each seed, all at once; what fails takes the place of its episode."""
        tabs = [self._take() for _ in seeds]
        return self._run(gathered([self._start(seed, tab) for seed, tab in zip(seeds, tabs)]))

    def act(self, jobs: Sequence[tuple[Play, Any]]) -> list[tuple[dict[str, Any], str | None] | PageFailure]:
        """Carry out a call in each episode, all at once; returns what the page shows then, and why the call could not be done."""
        return self._run(gathered([self._act(play, call) for play, call in jobs])) if jobs else []

    def pictures(self, plays: Sequence[Play]) -> list[np.ndarray]:
        """Return the pictures of pages, (210, 160, 3) uint8 each; the last one, or black, where a page was given back."""
        found = self._run(gathered([self._shot(play) for play in plays]))
        kept = [[one for one in (play.end, play.picture) if one is not None] for play in plays]
        black = np.zeros((210, 160, 3), np.uint8)
        return [one if isinstance(one, np.ndarray) else [*last, black][0] for one, last in zip(found, kept)]

    def give_back(self, play: Play, name: str) -> None:
        """Take the page of an episode back; writes its records under `name`."""
        if play.tab is not None and self.settings.is_drawn:
            play.end = self._run(self._shot(play))
        tab, play.tab = play.tab, None
        if tab is None:
            return
        if play.recorder is not None:
            try:
                self._run(play.recorder.save_trace(tab, name))
                play.recorder.save_film(name)
            except Exception as error:  # a record that cannot be written ends no training
                warnings.warn(
                    f"the record of episode {name} in {self.settings.record} is not whole: {error!r}", stacklevel=2
                )
            self._run(Browser.get(self.options).close_tab(tab))
        elif tab.broken is None:
            self._free.append(tab)

    def close(self) -> None:
        """Close the pages that are free."""
        close_tabs(self.options, self._free)

    def _take(self) -> Tab | None:
        while self._free:
            tab = self._free.pop()
            if tab.broken is None:
                return tab
        return None

    def _run(self, coroutine: Any) -> Any:
        return Browser.get(self.options).run(coroutine, 8 * self.settings.deadline + _SPARE_SECONDS)

    async def _start(self, seed: int, tab: Tab | None) -> Play:
        browser = Browser.get(self.options)
        try:
            return await self._start_on(browser, seed, tab)
        except PageFailure:
            # what its renderer broke of is not this episode's; a page that loops at its start fails again
            return await self._start_on(browser, seed, None)

    async def _start_on(self, browser: Browser, seed: int, tab: Tab | None) -> Play:
        is_fresh = tab is None
        if tab is None:
            tab = await browser.new_tab(self.settings.capacity, self.settings.is_frozen, not _is_web(self.settings.url))
        try:
            if is_fresh:
                await browser.guard(tab, tab.page.add_init_script(INSTALL), self.settings.deadline)
            return await self._start_in(browser, seed, tab)
        except (PageFailure, UsageError):
            raise
        except Exception as error:
            await browser.close_tab(tab)
            message = f"the page {self.settings.url} cannot be started: {first_line(error)}"
            raise UsageError(message) if self.settings.is_own else PageFailure("page", message) from error

    async def _start_in(self, browser: Browser, seed: int, tab: Tab) -> Play:
        recorder = Recorder(Path(self.settings.record)) if self.settings.record is not None else None
        if recorder is not None:
            await browser.guard(tab, recorder.start(tab), self.settings.deadline)
        if tab.url != self.settings.url or self.settings.is_own or self.settings.is_reloaded:
            await self._load(browser, tab)
        tab.said.clear()
        # what lies under the pointer may look otherwise, and it stays where the last episode left it
        await browser.guard(tab, move_pointer(tab, WIDTH - 1, HEIGHT - 1), self.settings.deadline)
        settle = 0 if not self.settings.is_own else self.settings.step_time
        look = await browser.guard(tab, call_in(tab, START, str(seed), settle), self.settings.deadline)
        play = Play(tab, look, recorder=recorder)
        play.next_ref = max([1, *(one["ref"] + 1 for one in look["elements"])])
        await self._more(browser, play)
        return play

    async def _load(self, browser: Browser, tab: Tab) -> None:
        page, deadline = tab.page, max(self.settings.deadline, OPEN_SECONDS)
        await browser.guard(tab, page.goto(self.settings.url, wait_until="load"), deadline)
        if not await browser.guard(tab, page.evaluate(HAS_HOOK), deadline):
            await browser.close_tab(tab)
            raise UsageError(
                f"the page {self.settings.url} has no hook: it must offer globalThis.polyathlon = {{reset(seed), status() -> "
                "{done, reward, goal}}"
            )
        if not self.settings.is_own and not self.settings.is_reloaded:
            await browser.guard(tab, page.evaluate(WARM, WARM_UP), deadline)
        tab.url = self.settings.url

    async def _act(self, play: Play, call: Any) -> tuple[dict[str, Any] | None, str | None]:
        browser, tab = Browser.get(self.options), play.tab
        if tab is None:
            raise PageFailure("page", "the page was given back")
        with contextlib.suppress(KeyError, IndexError):
            self._note(play, call)
        try:
            async with tab.renderer.front if call.name in MOVING else contextlib.nullcontext():
                fault = await browser.guard(tab, perform(tab, call, self._leaves), self.settings.deadline)
        except PageFailure:
            raise
        except Exception as error:
            fault = f"the action failed: {first_line(error)[:200]}"
        look = await self._look(browser, tab, play)
        play.look, before = look, play.look
        await self._more(browser, play)
        play.look = before
        return look, fault

    async def _look(self, browser: Browser, tab: Tab, play: Play) -> dict[str, Any]:
        for attempt in range(3):
            try:
                look: dict[str, Any] = await browser.guard(
                    tab,
                    call_in(tab, PASS_AND_LOOK, self.settings.step_time if attempt == 0 else 0, play.next_ref),
                    self.settings.deadline,
                )
                break
            except PageFailure:
                raise
            except Exception as error:  # the page was replaced by another while it was read
                if attempt == 2:
                    raise PageFailure("page", f"the page cannot be read: {first_line(error)[:200]}") from error
                with contextlib.suppress(Exception):
                    await browser.guard(tab, tab.page.wait_for_load_state("load"), self.settings.deadline)
        reason = allowed_place(look["url"], self.settings.folder)
        if reason is not None:
            tab.url = ""
            await browser.break_renderer(tab.renderer, PageFailure("page", reason)) if self.settings.is_own else None
            raise PageFailure("page", reason)
        play.next_ref = max([play.next_ref, *(one["ref"] + 1 for one in look["elements"])])
        return look

    async def _more(self, browser: Browser, play: Play) -> None:
        """Read the accessibility tree and take a frame of the film, where they are wanted."""
        try:
            await self._take_more(browser, play)
        except PageFailure:
            raise
        except Exception as error:
            raise PageFailure("page", f"the page cannot be read: {first_line(error)[:200]}") from error

    async def _take_more(self, browser: Browser, play: Play) -> None:
        tab = play.tab
        assert tab is not None
        if self.settings.takes_pictures and not play.look["done"]:
            data = await browser.guard(
                tab, tab.page.screenshot(clip=_CLIP, animations="disabled"), self.settings.deadline
            )
            play.picture = decoded(data)
        if self.settings.shows_tree:
            play.tree = await browser.guard(tab, self._tree(tab), self.settings.deadline)
        if play.recorder is not None:
            await browser.guard(tab, play.recorder.frame(tab), self.settings.deadline)

    async def _tree(self, tab: Tab) -> str:
        """Read the accessibility tree; empty where the page has no body, for which a snapshot would wait in vain."""
        body = tab.page.locator("body")
        if not await body.count():
            return ""
        # a body that goes in between ends as an error of the page, before the deadline of the browser
        return str(await body.aria_snapshot(timeout=500 * self.settings.deadline))

    def _leaves(self, address: str) -> str | None:
        if not self.settings.is_own:
            return "this page leads nowhere else"
        return allowed_place(address, self.settings.folder)

    def _note(self, play: Play, call: Any) -> None:
        """Remember what was acted on, for the features of choices."""
        texts = {one["ref"]: one["text"] for one in play.look["elements"]}
        if CALLS[call.name][:1] == (REF,):
            play.used.add(call.arguments[0])
            play.used_phrases.add(texts[call.arguments[0]])
        play.used_phrases.update(part for part in call.arguments if isinstance(part, str))

    async def _shot(self, play: Play) -> np.ndarray | None:
        tab = play.tab
        if tab is None or tab.broken is not None:
            return None
        with contextlib.suppress(PageFailure):
            data = await Browser.get(self.options).guard(
                tab, tab.page.screenshot(clip=_CLIP, animations="disabled", style=UNCOVERED), self.settings.deadline
            )
            return decoded(data)
        return None


def _is_web(url: str) -> bool:
    return url.startswith(("http:", "https:"))


async def gathered(jobs: Sequence[Any]) -> list[Any]:
    """Wait for all; a failure takes the place of its result, any other error is raised."""
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, PageFailure | UsageError):
            raise one
    return found


def close_tabs(options: BrowserOptions, tabs: list[Tab]) -> None:
    """Close the pages of a pool, in the browser that has them."""
    browser = Browser._known.get(options)
    gone, tabs[:] = list(tabs), []
    if browser is None or not gone or not browser.is_connected:
        return
    with contextlib.suppress(Exception):
        browser.run(gathered([browser.close_tab(tab) for tab in gone]), 10.0)
