"""Tasks on web pages in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from polyathlon.envs.errors import UsageError, check_int, check_positive, is_integer, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict

from . import web_words
from .acting import perform
from .browser import Browser, BrowserOptions, PageFailure, Tab
from .calls import CallError, read_call
from .page_files import RELOADED, page_url
from .page_places import allowed_place, folder_of, own_url
from .recording import Recorder, decoded
from .scripts import HAS_HOOK, INSTALL, PASS_AND_LOOK, START, WARM

REWARDS = ("raw", "binary", "original")
TIMES = ("frozen", "real")
OBSERVATIONS = ("elements", "axtree")
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
        tree: the accessibility tree, where the task shows it.
        picture: the last picture before the end (210, 160, 3) uint8, where the task takes them.
        recorder: what keeps the episode, or None.
    """

    tab: Tab | None
    look: dict[str, Any]
    outcome: tuple[str, dict[str, Any] | None, str | None] | None = None
    used: set[int] = field(default_factory=set)
    used_phrases: set[str] = field(default_factory=set)
    steps: int = 0
    tree: str = ""
    picture: np.ndarray | None = None
    recorder: Recorder | None = None


class WebTask(LanguageTask):
    """A task on a web page, in words.

    Description:
        The 130 pages of MiniWoB++ (Liu et al. 2018; Shi et al. 2017) or pages of one's own, in Chromium through Playwright. The
        first text says the goal and lists the page's elements, a line each: `[ref] kind "text" value "..."`; later ones what
        changed, and what was wrong with the last action.
    Action space:
        `Utterance`: one call. `click(ref)`, `dblclick(ref)`, `hover(ref)`, `focus(ref)`, `fill(ref, "text")`, `select(ref, "option")`,
        `press("Enter")`, `type("text")`, `click_at(x, y)`, `drag(x, y, x2, y2)`, `scroll(dx, dy)`, `goto("address")`, `tab(1)`,
        `noop()`. It is read, never run. What cannot be done is a verdict, costs `penalty`, and the episode goes on.
    Observation space:
        `Utterance`: see above.
    Rewards:
        What the page gives at its end: "raw" in [-1, 1]; "binary", 1 where raw is above 0, else 0; "original", raw times the share
        of the page's time that is left. 0 before.
    Starting state:
        A seed for the page's own random numbers, which is the task's id.
    Episode end:
        The page says so; truncated after `max_steps`. A lost page or browser, or one that does not answer within `deadline`, is no
        reward: truncated, with `info["failure"]` = {"kind", "message"}.

    With `time="frozen"` the page's clock moves by `step_time` in every step and not otherwise, so an episode depends on its seed
    and actions alone. Pages of MiniWoB++ share renderers, `envs_per_renderer` each; pages of one's own have a context each.

    Args:
        task: the name of a page of MiniWoB++.
        page: a page of one's own instead: a file, a folder with index.html, or an address on loopback. It offers the hook
            `globalThis.polyathlon = {reset(seed), status() -> {done, reward, goal}}`.
        reward: "raw", "binary" or "original".
        time: "frozen" or "real".
        step_time: ms that pass in a step.
        max_steps: answers after which an episode is truncated.
        observation: "elements", or "axtree", the page's accessibility tree as Playwright writes it, with the elements' numbers.
        penalty: reward of an answer that cannot be carried out.
        deadline: seconds that a page may take to answer.
        envs_per_renderer: most pages that share one renderer, and fail together.
        max_candidates: most answers that are offered to choose from.
        max_answer: the longest answer that is read, in characters.
        executable_path: the browser's program; None looks for chromium or Chrome.
        headless: without a window.
        record: folder for Playwright's trace and a film of every episode.
        render_mode: "rgb_array" (the page as a picture) or None.

    Raises:
        ImportError: Playwright or a browser is missing.
        UsageError: an option is unknown or out of range, or the pages of MiniWoB++ were not fetched.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 2}  # type: ignore[misc]

    def __init__(
        self,
        task: str = "click-test",
        *,
        page: str | None = None,
        reward: str = "raw",
        time: str = "frozen",
        step_time: int = 500,
        max_steps: int = 20,
        observation: str = "elements",
        penalty: float = 0.0,
        deadline: float = 10.0,
        envs_per_renderer: int = 8,
        max_candidates: int = 32,
        max_answer: int = 4096,
        executable_path: str | None = None,
        headless: bool = True,
        record: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        for name, value, allowed in (
            ("reward", reward, REWARDS),
            ("time", time, TIMES),
            ("observation", observation, OBSERVATIONS),
        ):
            if value not in allowed:
                raise unknown_name(name, str(value), allowed)
        if render_mode not in (None, "rgb_array"):
            raise unknown_name("render_mode", str(render_mode), ("rgb_array",))
        check_int(0, step_time=step_time)
        check_int(1, max_steps=max_steps, envs_per_renderer=envs_per_renderer)
        check_int(2, max_candidates=max_candidates)
        check_positive(deadline=deadline)
        if isinstance(penalty, bool) or not isinstance(penalty, int | float):
            raise UsageError(f"penalty must be a number, got {penalty!r}")
        super().__init__(max_turns=max_steps, max_answer=max_answer, max_bytes=1 << 17)
        self.options = BrowserOptions(executable_path, headless)
        Browser.get(self.options)  # says now what is missing
        self._arguments = given
        self.task, self.reward, self.time, self.observation = task, reward, time, observation
        self.step_time, self.penalty, self.deadline = int(step_time), float(penalty), float(deadline)
        self.max_candidates, self.record, self.render_mode = int(max_candidates), record, render_mode
        self.url = page_url(task) if page is None else own_url(page)
        self.is_own = page is not None
        self.folder = folder_of(self.url, self.is_own)
        self.capacity = 1 if self.is_own or record else int(envs_per_renderer)
        self.takes_pictures = False
        self._free: list[Tab] = []
        self._ready: list[tuple[int, Play | PageFailure | UsageError]] = []
        self._finalizer = weakref.finalize(self, _close_tabs, self.options, self._free)

    # ------------------------------------------------------------------------------------------------ episodes

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw the seed of a page."""
        return int(rng.integers(1 << 31))

    def prepare_starts(self, task_ids: Sequence[TaskId]) -> None:
        """Start the episodes of several seeds at once."""
        seeds = [_seed(task_id) for task_id in task_ids]
        tabs = [self._take() for _ in seeds]
        plays = self._run(_gathered([self._start(seed, tab) for seed, tab in zip(seeds, tabs)]))
        self._ready += list(zip(seeds, plays))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Start the page of a seed.

        Raises:
            UsageError: the id is no seed, or a page of one's own lacks the hook.
        """
        seed = _seed(task_id)
        if not any(known == seed for known, _ in self._ready):
            self.prepare_starts([seed])
        place = next(i for i, (known, _) in enumerate(self._ready) if known == seed)
        play = self._ready.pop(place)[1]
        if isinstance(play, UsageError):
            raise play
        if isinstance(play, PageFailure):
            episode = TaskEpisode(seed, f"The page could not be started: {play.message}", Play(None, _BLANK))
            self.fail(episode, play.kind, play.message)
            return episode
        return TaskEpisode(seed, web_words.first_text(play.look, play.tree), play)

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Carry out the actions of several episodes at once."""
        acting: list[tuple[TaskEpisode, str]] = []
        jobs = []
        for episode, text in answers:
            play: Play = episode.data
            if episode.over or episode.failure is not None or not isinstance(text, str) or len(text) > self.max_answer:
                continue
            try:
                call = read_call(text)
            except CallError as error:
                play.outcome = (text, None, str(error))
                continue
            acting.append((episode, text))
            jobs.append(self._act(play, call))
        for (episode, text), found in zip(acting, self._run(_gathered(jobs)) if jobs else ()):
            if isinstance(found, PageFailure):
                self.fail(episode, found.kind, found.message)
            else:
                look, fault = found
                episode.data.outcome = (text, look, fault)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Tell what an action led to."""
        play: Play = episode.data
        if play.outcome is None or play.outcome[0] != text:
            self.prepare([(episode, text)])
        if episode.failure is not None:
            return self.fail(episode, **episode.failure)
        assert play.outcome is not None
        _, look, fault = play.outcome
        play.outcome = None
        return self._reply(play, look, fault)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Judge an answer that cannot be read: nothing happens on the page."""
        return self._reply(episode.data, None, reason)

    def _reply(self, play: Play, look: dict[str, Any] | None, fault: str | None) -> TaskReply:
        play.steps += 1
        before, now = play.look, look or play.look
        play.look = now
        raw = float(now["reward"]) if now["done"] else 0.0
        reward = (
            {"raw": raw, "binary": float(raw > 0), "original": float(now["timed"])}[self.reward] if now["done"] else 0.0
        )
        if fault is not None:
            reward += self.penalty
        said = list(play.tab.said) if play.tab is not None else []
        if play.tab is not None:
            play.tab.said.clear()
        text = "" if now["done"] else web_words.later_text(before, now, fault, said, play.tree)
        reason = fault or (
            "the page ended: " + (now["reason"] or ("reached" if raw > 0 else "not reached")) if now["done"] else "done"
        )
        parts = {"raw": raw, "time_scaled": float(now["timed"]) if now["done"] else 0.0}
        return TaskReply(
            text, reward, bool(now["done"]), Verdict(raw > 0, max(raw, 0.0), fault is not None, reason, parts)
        )

    def release(self, episode: TaskEpisode) -> None:
        """Take the page of an episode back into the pool."""
        play: Play = episode.data
        tab, play.tab = play.tab, None
        if tab is None:
            return
        if play.recorder is not None:
            with contextlib.suppress(Exception):
                self._run(play.recorder.save(tab, episode))
            self._run(Browser.get(self.options).close_tab(tab))
        elif tab.broken is None:
            self._free.append(tab)

    def close(self) -> None:
        """Give up the running episode and close the pages; a second call does nothing."""
        super().close()
        for _, play in self._ready:
            if isinstance(play, Play) and play.tab is not None:
                self._free.append(play.tab)
        self._ready.clear()
        _close_tabs(self.options, self._free)

    # ------------------------------------------------------------------------------------------------ on the page

    def _take(self) -> Tab | None:
        while self._free:
            tab = self._free.pop()
            if tab.broken is None:
                return tab
        return None

    def _run(self, coroutine: Any) -> Any:
        return Browser.get(self.options).run(coroutine, 8 * self.deadline + _SPARE_SECONDS)

    async def _start(self, seed: int, tab: Tab | None) -> Play:
        browser = Browser.get(self.options)
        try:
            return await self._start_on(browser, seed, tab)
        except PageFailure:
            # what its renderer broke of is not this episode's; a page that loops at its start fails again
            return await self._start_on(browser, seed, None)

    async def _start_on(self, browser: Browser, seed: int, tab: Tab | None) -> Play:
        if tab is None:
            is_frozen = self.time == "frozen"
            tab = await browser.new_tab(self.capacity, is_frozen, not _is_web(self.url), self.deadline)
            await browser.guard(tab, tab.page.add_init_script(INSTALL), self.deadline)
        recorder = Recorder(Path(self.record)) if self.record is not None else None
        if recorder is not None:
            await browser.guard(tab, recorder.start(tab), self.deadline)
        if tab.url != self.url or self.is_own or self.task in RELOADED:
            await self._load(browser, tab)
        tab.said.clear()
        settle = 0 if not self.is_own else self.step_time
        look = await browser.guard(tab, tab.page.evaluate(START, [str(seed), settle]), self.deadline)
        play = Play(tab, look, recorder=recorder)
        await self._more(browser, play)
        return play

    async def _load(self, browser: Browser, tab: Tab) -> None:
        page, deadline = tab.page, self.deadline
        await browser.guard(tab, page.goto(self.url, wait_until="load"), deadline)
        if not await browser.guard(tab, page.evaluate(HAS_HOOK), deadline):
            await browser.close_tab(tab)
            raise UsageError(
                f"the page {self.url} has no hook: it must offer globalThis.polyathlon = {{reset(seed), status() -> "
                "{done, reward, goal}}"
            )
        if not self.is_own and self.task not in RELOADED:
            await browser.guard(tab, page.evaluate(WARM, WARM_UP), deadline)
        tab.url = self.url

    async def _act(self, play: Play, call: Any) -> tuple[dict[str, Any] | None, str | None]:
        browser, tab = Browser.get(self.options), play.tab
        if tab is None:
            raise PageFailure("page", "the page was given back")
        with contextlib.suppress(KeyError, IndexError):
            self._note(play, call)
        try:
            fault = await browser.guard(tab, perform(tab.page, call, self._leaves), self.deadline)
        except PageFailure:
            raise
        except Exception as error:
            fault = f"the action failed: {str(error).splitlines()[0][:200]}"
        look = await self._look(browser, tab)
        play.look, before = look, play.look
        await self._more(browser, play)
        play.look = before
        return look, fault

    async def _look(self, browser: Browser, tab: Tab) -> dict[str, Any]:
        for attempt in range(3):
            try:
                look: dict[str, Any] = await browser.guard(
                    tab, tab.page.evaluate(PASS_AND_LOOK, self.step_time if attempt == 0 else 0), self.deadline
                )
                break
            except PageFailure:
                raise
            except Exception as error:  # the page was replaced by another while it was read
                if attempt == 2:
                    raise PageFailure("page", f"the page cannot be read: {str(error).splitlines()[0][:200]}") from error
                with contextlib.suppress(Exception):
                    await browser.guard(tab, tab.page.wait_for_load_state("load"), self.deadline)
        reason = allowed_place(look["url"], self.folder)
        if reason is not None:
            tab.url = ""
            await browser.break_renderer(tab.renderer, PageFailure("page", reason)) if self.is_own else None
            raise PageFailure("page", reason)
        return look

    async def _more(self, browser: Browser, play: Play) -> None:
        """Read the accessibility tree and take a frame of the film, where they are wanted."""
        tab = play.tab
        assert tab is not None
        if self.takes_pictures and not play.look["done"]:
            data = await browser.guard(tab, tab.page.screenshot(clip=_CLIP), self.deadline)
            play.picture = decoded(data)
        if self.observation == "axtree":
            play.tree = await browser.guard(
                tab, tab.page.locator("body").aria_snapshot(timeout=1000 * self.deadline), self.deadline
            )
        if play.recorder is not None:
            await browser.guard(tab, play.recorder.frame(tab), self.deadline)

    def _leaves(self, address: str) -> str | None:
        if not self.is_own:
            return "this page leads nowhere else"
        return allowed_place(address, self.folder)

    def _note(self, play: Play, call: Any) -> None:
        """Remember what was acted on, for the features of choices."""
        texts = {one["ref"]: one["text"] for one in play.look["elements"]}
        if call.arguments and isinstance(call.arguments[0], int):
            play.used.add(call.arguments[0])
            play.used_phrases.add(texts[call.arguments[0]])
        play.used_phrases.update(part for part in call.arguments if isinstance(part, str))

    # ------------------------------------------------------------------------------------------------ seen

    def screenshots(self, episodes: Sequence[TaskEpisode]) -> list[np.ndarray]:
        """Return the pictures of pages, (210, 160, 3) uint8 each; black where a page is lost."""
        return [np.zeros((210, 160, 3), np.uint8) if one is None else one for one in self._run(_shots(self, episodes))]

    async def _shot(self, episode: TaskEpisode) -> np.ndarray | None:
        tab = episode.data.tab
        if tab is None or tab.broken is not None or episode.failure is not None:
            return None
        with contextlib.suppress(PageFailure):
            data = await Browser.get(self.options).guard(tab, tab.page.screenshot(clip=_CLIP), self.deadline)
            return decoded(data)
        return None

    def render(self) -> Any:
        """Return the page as (210, 160, 3) uint8; None without a render mode.

        Raises:
            UsageError: there was no reset.
        """
        if self.render_mode is None:
            return None
        if self._row is None or self._row.episode is None:
            raise UsageError("render() was called before reset(); call reset() first")
        return self.screenshots([self._row.episode])[0]

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return calls to choose from: clicks, phrases of the goal written into fields, options, scrolling."""
        from .web_choices import choices_of

        return [call for call, _ in choices_of(episode.data, self.max_candidates)]

    def solution(self, task_id: TaskId) -> str | None:
        """Return the right first call of a scripted page, or None."""
        from .web_oracles import ORACLES, next_call

        if self.is_own or self.task not in ORACLES:
            return None
        episode = self.begin(task_id)
        try:
            return None if episode.failure is not None else next_call(self.task, episode.data.look, [])
        finally:
            self.give_up(episode)

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._arguments, self.get_state(), self.spec)


_BLANK: dict[str, Any] = {
    "done": False,
    "reward": 0.0,
    "timed": 0.0,
    "goal": "",
    "reason": None,
    "url": "",
    "elements": [],
}


def _rebuild(cls: type[WebTask], arguments: dict[str, Any], state: dict[str, Any], spec: Any) -> WebTask:
    env = cls(**arguments)
    env.set_state(state)
    env.spec = spec
    return env


def _is_web(url: str) -> bool:
    return url.startswith(("http:", "https:"))


def _seed(task_id: TaskId) -> int:
    if not is_integer(task_id, 0):
        raise UsageError(f"the id of a page's task is its seed, an integer of at least 0, got {task_id!r}")
    return int(task_id)  # type: ignore[call-overload]


async def _gathered(jobs: Sequence[Any]) -> list[Any]:
    """Wait for all; a failure takes the place of its result, any other error is raised."""
    found = await asyncio.gather(*jobs, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, PageFailure | UsageError):
            raise one
    return found


async def _shots(task: WebTask, episodes: Sequence[TaskEpisode]) -> list[Any]:
    return list(await asyncio.gather(*(task._shot(episode) for episode in episodes)))


def _close_tabs(options: BrowserOptions, tabs: list[Tab]) -> None:
    """Close the pages of a pool, in the browser that has them."""
    browser = Browser._known.get(options)
    gone, tabs[:] = list(tabs), []
    if browser is None or not gone or not browser.is_connected:
        return
    with contextlib.suppress(Exception):
        browser.run(_gathered([browser.close_tab(tab) for tab in gone]), 10.0)
