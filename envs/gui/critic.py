"""Judging an operation on a page before it is carried out: *Look Before You Leap*, GUI-Critic-R1 (NeurIPS 2025)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from polyathlon.envs.errors import UsageError, check_listed, check_non_negative
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.tags import tagged

from .calls import Call, CallError, read_call
from .tabs import PageFailure
from .web import WebTask
from .web_oracles import ORACLES, Stuck, next_call
from .web_words import line_of

PAGES = ("click-test-2", "click-button", "click-checkboxes", "click-option", "click-link", "enter-text", "login-user")
_TAGS = ("thinking", "score", "suggestion")
_ANSWER = re.compile(
    r"\s*<thinking>(.*)</thinking>\s*<score>\s*(Correct|Incorrect)\s*</score>\s*<suggestion>(.*)</suggestion>\s*",
    re.DOTALL,
)
_ASKED = (
    "Judge the proposed operation before it is carried out. Answer with <thinking>...</thinking>"
    "<score>Correct or Incorrect</score><suggestion>the right operation</suggestion>."
)
_LIMIT = 20
_TRIES = 8


class Situation(NamedTuple):
    """A page at some point of an episode, and an operation proposed there.

    Attributes:
        page: name of the page.
        seed: its seed.
        history: the calls so far.
        look: what it shows.
        proposal: the operation to be judged.
        right: a right operation there, the oracle's.
        is_correct: the episode can still end with a reward above 0 after the proposal, as the oracle goes on.
    """

    page: str
    seed: int
    history: tuple[str, ...]
    look: dict[str, Any]
    proposal: str
    right: str
    is_correct: bool

    @property
    def reference(self) -> str:
        """The operation that a suggestion should name: the proposal where it is correct, else the right one."""
        return self.proposal if self.is_correct else self.right


class Judgement(NamedTuple):
    """What an answer says; None where a part is missing."""

    is_formatted: bool
    is_correct: bool | None
    suggestion: str | None


def read_judgement(text: str) -> Judgement:
    """Read an answer: all three tags, each once and in order, are its format; the score counts without them too."""
    once = all(text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1 for tag in _TAGS)
    scores = re.findall(r"<score>\s*(Correct|Incorrect)\s*</score>", text)
    suggested = tagged(text, "suggestion")
    # with several tags the expression would try each pair of them
    is_formatted = once and _ANSWER.fullmatch(text) is not None
    is_correct = scores[0] == "Correct" if len(scores) == 1 else None
    return Judgement(is_formatted, is_correct, suggested[0].strip() if len(suggested) == 1 else None)


def same_operation(suggestion: str, reference: str, look: dict[str, Any]) -> bool:
    """Tell whether two calls do the same: one kind, one element (or a point in its box), equal texts but for case and spaces."""
    try:
        one, other = read_call(suggestion), read_call(reference)
    except CallError:
        return False
    if one.name == "click_at" and other.name == "click":
        box = next((e["box"] for e in look["elements"] if e["ref"] == other.arguments[0]), None)
        x, y = one.arguments
        return box is not None and box[0] <= x <= box[0] + box[2] and box[1] <= y <= box[1] + box[3]
    return one.name == other.name and list(map(_plain, one.arguments)) == list(map(_plain, other.arguments))


def _plain(argument: Any) -> Any:
    return " ".join(argument.lower().split()) if isinstance(argument, str) else argument


def critic_prompt(goal: str, history: Sequence[str], look: dict[str, Any], proposal: str) -> str:
    """Return what a critic reads: the instruction, the operations so far, the page, and the proposed operation."""
    lines = [line_of(element) + (" <- target" if _targets(proposal, element) else "") for element in look["elements"]]
    done = "; ".join(history) if history else "none"
    return (
        f"Instruction: {goal}\nOperations so far: {done}\nPage:\n"
        + "\n".join(lines)
        + f"\nProposed operation: {proposal}\n{_ASKED}"
    )


def _targets(proposal: str, element: dict[str, Any]) -> bool:
    try:
        call = read_call(proposal)
    except CallError:
        return False
    return (
        bool(call.arguments)
        and call.arguments[0] == element["ref"]
        and call.name not in ("click_at", "drag", "scroll", "tab")
    )


class Forks:
    """Situations on pages, entered again by seed and replay, which needs the frozen clock.

    Args:
        options: those of `WebTask`, such as `deadline`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._tasks: dict[str, WebTask] = {}

    def _task(self, page: str) -> WebTask:
        if page not in self._tasks:
            self._tasks[page] = WebTask(page, max_steps=4 * _LIMIT, **self._options)
        return self._tasks[page]

    def enter(self, page: str, seed: int, calls: Sequence[str]) -> tuple[WebTask, TaskEpisode, list[tuple[Any, str]]]:
        """Play calls from the start; returns the task, the episode, and (what was shown, call) of each."""
        task = self._task(page)
        episode = task.start(seed)
        done: list[tuple[Any, str]] = []
        for call in calls:
            if episode.failure is not None:
                raise PageFailure(**episode.failure)
            done.append((episode.data.look, call))
            task.answer(episode, call)
        if episode.failure is not None:
            raise PageFailure(**episode.failure)
        return task, episode, done

    def ends_well(self, page: str, seed: int, history: Sequence[str], proposal: str) -> bool:
        """Tell whether the oracle, after the proposal, still reaches a reward above 0.

        It goes on as if the proposal were its own operation, and as if nothing had been done in its place.
        """
        reached, was_over = self._ends_well(page, seed, history, proposal, True)
        # an episode that the proposal ended leaves nothing to go on with
        return reached or (not was_over and self._ends_well(page, seed, history, proposal, False)[0])

    def _ends_well(
        self, page: str, seed: int, history: Sequence[str], proposal: str, counts: bool
    ) -> tuple[bool, bool]:
        """Return whether a reward above 0 was reached, and whether the proposal ended the episode."""
        task, episode, done = self.enter(page, seed, [*history, proposal])
        was_over = bool(episode.over)
        done = done if counts else done[:-1]
        try:
            while not episode.over and len(done) < _LIMIT:
                look = episode.data.look
                call = next_call(page, look, done)
                done.append((look, call))
                task.answer(episode, call)
        except Stuck:
            pass
        reached = bool(episode.data.look["done"]) and float(episode.data.look["reward"]) > 0
        task.give_up(episode)
        return reached, was_over

    def close(self) -> None:
        """Close the pages."""
        for task in self._tasks.values():
            task.close()


def perturbed(right: str, look: dict[str, Any], history: Sequence[str], rng: np.random.Generator) -> str:
    """Return an operation that is likely wrong.

    Another element, another text, another kind, a repeated one, an early end, or a number that no element has.
    """
    call = read_call(right)
    refs = [element["ref"] for element in look["elements"]]
    others = [ref for ref in refs if ref != (call.arguments or (None,))[0]]
    kind = int(rng.integers(6))
    if kind == 0 and others and call.arguments:
        return str(Call(call.name, (int(rng.choice(others)), *call.arguments[1:])))
    if kind == 1 and call.name in ("fill", "select"):
        return str(Call(call.name, (call.arguments[0], call.arguments[1][::-1] + "x")))
    if kind == 2 and refs:
        ref = int(rng.choice(refs))
        return str(Call("click", (ref,)) if call.name != "click" else Call("fill", (ref, "abc")))
    if kind == 3 and history:
        return history[-1]
    if kind == 4:
        ends = [e["ref"] for e in look["elements"] if e["tag"] == "button"]
        return str(Call("click", (int(rng.choice(ends)),))) if ends else "noop()"
    return str(Call("click", (max(refs, default=0) + 7,)))


class WebCritic(LanguageTask):
    """Judge a proposed operation on a page before it is carried out.

    Description:
        A page of MiniWoB++ in the middle of an episode, and an operation proposed there: the oracle's, or a perturbed one. The
        label is exact: the page is entered again by its seed and the history replayed, the proposal is carried out and the
        oracle goes on; "Correct" is whatever still ends with a reward above 0. Half of the proposals are correct.
    Action space:
        `Utterance`: `<thinking>...</thinking><score>Correct|Incorrect</score><suggestion>call</suggestion>`.
    Observation space:
        `Utterance`: instruction, operations so far, the page an element a line (the target marked), the proposal.
    Rewards:
        `format` for all three tags once and in order, `label` for the right score, `suggestion` for a call that does what the
        reference does (the proposal where it is correct, else the oracle's): 0.1, 0.6 and 0.3 by default. The paper names the
        terms; the weights are a reconstruction.
    Starting state:
        Page, seed, history and proposal of the seed that is the task's id.
    Episode end:
        After one answer.

    Args:
        pages: names of pages with an oracle.
        format: reward of the format.
        label: reward of the label.
        suggestion: reward of the suggestion.
        max_answer: the longest answer that is read, in characters.
        **options: those of `WebTask`: deadline, step_time, executable_path, headless.

    Raises:
        ImportError: Playwright or a browser is missing.
        UsageError: a page has no oracle, or an option is out of range.
    """

    def __init__(
        self,
        pages: Sequence[str] = PAGES,
        *,
        format: float = 0.1,
        label: float = 0.6,
        suggestion: float = 0.3,
        max_answer: int = 4096,
        **options: Any,
    ) -> None:
        super().__init__(max_turns=1, max_answer=max_answer, max_bytes=1 << 17)
        check_non_negative(format=format, label=label, suggestion=suggestion)
        pages = (pages,) if isinstance(pages, str) else pages
        check_listed(pages=pages)
        pages = tuple(pages or ())
        unknown = [page for page in pages if page not in ORACLES]
        if unknown or not pages:
            raise UsageError(
                f"pages must have an oracle, got {unknown or pages}; there are: {', '.join(sorted(ORACLES))}"
            )
        self._arguments = {"pages": pages, "format": format, "label": label, "suggestion": suggestion}
        self._arguments |= {"max_answer": max_answer, **options}
        self.pages, self.weights = pages, {"format": format, "label": label, "suggestion": suggestion}
        WebTask(pages[0], **options).close()  # says now what is missing
        self.forks = Forks(**options)

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw the seed of a situation."""
        return int(rng.integers(1 << 31))

    def situation(self, task_id: TaskId) -> Situation:
        """Return the situation of a seed.

        Raises:
            PageFailure: the browser was lost.
        """
        rng = np.random.default_rng((int(task_id), 8))  # type: ignore[call-overload]
        wants_wrong = rng.random() < 0.5
        for _ in range(_TRIES):  # at some places nothing is wrong for good: the oracle mends it
            page, seed = self.pages[int(rng.integers(len(self.pages)))], int(rng.integers(1 << 31))
            done = self._right_play(page, seed)
            now = int(rng.integers(len(done)))
            history, (look, right) = [call for _, call in done[:now]], done[now]
            if not wants_wrong:
                break
            for _ in range(_TRIES):
                proposal = perturbed(right, look, history, rng)
                if not self.forks.ends_well(page, seed, history, proposal):
                    return Situation(page, seed, tuple(history), look, proposal, right, False)
        return Situation(page, seed, tuple(history), look, right, right, True)

    def _right_play(self, page: str, seed: int) -> list[tuple[dict[str, Any], str]]:
        """Let the oracle play; returns (what was shown, call) of each step."""
        task, episode, done = self.forks.enter(page, seed, ())
        while not episode.over and len(done) < _LIMIT:
            call = next_call(page, episode.data.look, done)
            done.append((episode.data.look, call))
            task.answer(episode, call)
        if episode.failure is not None:
            raise PageFailure(**episode.failure)
        task.give_up(episode)
        return done

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Enter the situation of a seed."""
        try:
            found = self.situation(task_id)
        except PageFailure as failure:
            episode = TaskEpisode(task_id, f"The page could not be entered: {failure.message}")
            self.fail(episode, failure.kind, failure.message)
            return episode
        text = critic_prompt(found.look["goal"], found.history, found.look, found.proposal)
        return TaskEpisode(task_id, text, found)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Compare an answer with the label."""
        found: Situation = episode.data
        said = read_judgement(text)
        parts = {
            "format": float(said.is_formatted),
            "verdict": float(said.is_correct is not None and said.is_correct == found.is_correct),
            "suggestion": float(
                said.suggestion is not None and same_operation(said.suggestion, found.reference, found.look)
            ),
        }
        paid = zip(("format", "label", "suggestion"), parts.values())
        reward = sum(self.weights[name] * part for name, part in paid)
        truth = "Correct" if found.is_correct else "Incorrect"
        reason = f"the operation {found.proposal} is {truth}; right is {found.reference}"
        return TaskReply(
            "", reward, True, Verdict(parts["verdict"] > 0, min(reward, 1.0), said.is_correct is None, reason, parts)
        )

    def solution(self, task_id: TaskId) -> str | None:
        """Return the right judgement."""
        found = self.situation(task_id)
        return worded_judgement(found.is_correct, found.reference)

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return judgements to choose from: both scores, each with the proposal and with other operations on the page."""
        found: Situation = episode.data
        rng = np.random.default_rng((found.seed, len(found.history)))
        calls = list(
            dict.fromkeys([found.proposal, found.right, perturbed(found.right, found.look, found.history, rng)])
        )
        return sorted(worded_judgement(is_correct, call) for is_correct in (True, False) for call in calls)

    def close(self) -> None:
        """Close the pages."""
        super().close()
        self.forks.close()

    def __reduce__(self) -> Any:
        return _rebuild, (self._arguments, self.get_state(), self.spec)


def worded_judgement(is_correct: bool, call: str) -> str:
    """Write a judgement in the form that is asked for."""
    score = "Correct" if is_correct else "Incorrect"
    return f"<thinking></thinking><score>{score}</score><suggestion>{call}</suggestion>"


def _rebuild(arguments: dict[str, Any], state: dict[str, Any], spec: Any) -> WebCritic:
    env = WebCritic(**arguments)
    env.set_state(state)
    env.spec = spec
    return env
