"""Tasks on web pages in a real browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from polyathlon.envs.errors import UsageError, check_int, check_positive, is_integer, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict

from . import web_words
from .browser import BrowserOptions
from .calls import CallError, read_call
from .page_files import RELOADED, page_url
from .page_places import folder_of, own_url
from .tabs import PageFailure
from .web_driver import PageDriver, PageSettings, Play

REWARDS = ("raw", "binary", "original")
TIMES = ("frozen", "real")
OBSERVATIONS = ("elements", "axtree")


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
        time: "frozen" or "real", in which pages that share a window get animation frames once a second.
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
        takes_pictures: take a picture of the page in every step, for forms that observe it.
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
        takes_pictures: bool = False,
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
        if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not math.isfinite(penalty):
            raise UsageError(f"penalty must be a finite number, got {penalty!r}")
        super().__init__(max_turns=max_steps, max_answer=max_answer, max_bytes=1 << 17)
        self._arguments = given
        self.task, self.reward, self.penalty = task, reward, float(penalty)
        self.max_candidates, self.render_mode = int(max_candidates), render_mode
        self.is_own = page is not None
        url = page_url(task) if page is None else own_url(page)
        settings = PageSettings(
            url=url,
            folder=folder_of(url, self.is_own),
            is_own=self.is_own,
            is_reloaded=task in RELOADED,
            is_frozen=time == "frozen",
            capacity=1 if self.is_own or record else int(envs_per_renderer),
            step_time=int(step_time),
            deadline=float(deadline),
            shows_tree=observation == "axtree",
            takes_pictures=takes_pictures,
            is_drawn=render_mode is not None,
            record=record,
        )
        self.driver = PageDriver(BrowserOptions(executable_path, headless), settings)
        self._ready: list[tuple[int, Play | PageFailure | UsageError]] = []

    # ------------------------------------------------------------------------------------------------ episodes

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw the seed of a page."""
        return int(rng.integers(1 << 31))

    def prepare_starts(self, task_ids: Sequence[TaskId]) -> None:
        """Start the episodes of several seeds at once."""
        seeds = [_seed(task_id) for task_id in task_ids]
        self._ready += list(zip(seeds, self.driver.start(seeds)))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Start the page of a seed.

        Raises:
            UsageError: the id is no seed, or a page of one's own lacks the hook or cannot be started.
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
        jobs: list[tuple[Play, Any]] = []
        for episode, text in answers:
            play: Play = episode.data
            if episode.over or episode.failure is not None or not isinstance(text, str) or len(text) > self.max_answer:
                continue
            try:
                jobs.append((play, read_call(text)))
                acting.append((episode, text))
            except CallError as error:
                play.outcome = (text, None, str(error))
        for (episode, text), found in zip(acting, self.driver.act(jobs)):
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
        self.driver.give_back(episode.data, str(episode.task))

    def close(self) -> None:
        """Give up the running episode and close the pages; a second call does nothing."""
        super().close()
        for seed, play in self._ready:
            if isinstance(play, Play):
                self.driver.give_back(play, str(seed))
        self._ready.clear()
        self.driver.close()

    # ------------------------------------------------------------------------------------------------ seen

    def screenshots(self, episodes: Sequence[TaskEpisode]) -> list[np.ndarray]:
        """Return the pictures of pages, (210, 160, 3) uint8 each."""
        return self.driver.pictures([episode.data for episode in episodes])

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

    def current_look(self) -> dict[str, Any]:
        """Return what the page of the running episode shows: "goal", "elements" and more.

        Raises:
            UsageError: there was no reset.
        """
        if self._row is None or self._row.episode is None:
            raise UsageError("the environment has no episode yet: call reset first")
        look: dict[str, Any] = self._row.episode.data.look
        return look

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


def _seed(task_id: TaskId) -> int:
    if not is_integer(task_id, 0):
        raise UsageError(f"the id of a page's task is its seed, an integer of at least 0, got {task_id!r}")
    return int(task_id)  # type: ignore[call-overload]
