"""Who labels captions: scripted rules, or a language model in a thread of its own. Training never waits for a label."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from polyathlon.envs.errors import UsageError

# one caption (is it helpful?), or two (which one is more?)
Request = bytes | tuple[bytes, bytes]
# 1 helpful, 0 not; of two: 0 the first, 1 the second, 0.5 neither; None: no label came of it
Label = float | None
ALLOWED = (0.0, 0.5, 1.0)
_TAG = re.compile(r"\b(FOO|BAR)\b")


class Annotator(Protocol):
    """Labels requests some time later."""

    def submit(self, requests: Sequence[Request]) -> None:
        """Ask for labels; returns at once. The last request is the newest."""

    def poll(self) -> list[tuple[Request, Label]]:
        """Return the answers that came since the last call; a request that was given up comes with None."""

    def close(self) -> None:
        """Stop; a second call does nothing."""


class ScriptedAnnotator:
    """Labels by a rule, a fixed number of polls later, so that a run is a function of its seed.

    Args:
        rule: request -> label.
        delay: number of further polls that an answer takes; 0 answers at the next one.
        batch: number of answers that are given at once; fewer wait for more.

    Raises:
        UsageError: the delay is negative, or the batch not positive.
    """

    def __init__(self, rule: Callable[[Any], Label], delay: int = 0, batch: int = 1) -> None:
        if batch < 1:
            raise UsageError(f"batch is a number of answers, at least 1, got {batch!r}")
        if delay < 0:
            raise UsageError(f"delay is a number of polls, at least 0, got {delay!r}")
        self.rule, self.delay, self.batch = rule, delay, batch
        self._polls = 0
        self._waiting: deque[tuple[int, Request]] = deque()

    def submit(self, requests: Sequence[Request]) -> None:
        """Note the requests."""
        self._waiting.extend((self._polls + self.delay, request) for request in requests)

    def poll(self) -> list[tuple[Request, Label]]:
        """Answer those whose time has come."""
        due = sum(when <= self._polls for when, _ in self._waiting)
        self._polls += 1
        if due < self.batch:
            return []
        requests = [self._waiting.popleft()[1] for _ in range(due)]
        return [(request, self.rule(request)) for request in requests]

    def close(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


class ThreadAnnotator:
    """Labels in a thread of its own, the newest requests first.

    A labeller that hangs keeps its thread and nothing else: requests pile up to `most`, the oldest are given up, and the
    thread ends with the process. One that raises, or answers with another number of labels or with none of 0, 0.5 and 1, leaves
    its requests unlabelled.

    Args:
        labeller: list of requests -> their labels, in order.
        batch: number of requests in one call.
        most: number of requests that wait at most; older ones are given up as stale.

    Attributes:
        failures: number of calls that raised or answered nonsense.
        error: what the last failure said.

    Raises:
        UsageError: a number is not positive.
    """

    def __init__(self, labeller: Callable[[list[Any]], Sequence[Any]], batch: int = 100, most: int = 10_000) -> None:
        for name, value in (("batch", batch), ("most", most)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a positive integer, got {value!r}")
        self.labeller, self.batch, self.most = labeller, batch, most
        self.failures, self.error = 0, ""
        self._queue: OrderedDict[Request, None] = OrderedDict()  # the newest last
        self._answers: list[tuple[Request, Label]] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, daemon=True, name="annotator")
        self._thread.start()

    def submit(self, requests: Sequence[Request]) -> None:
        """Ask for labels; returns at once.

        Raises:
            UsageError: the annotator is closed.
        """
        with self._changed:
            if self._is_closed:
                raise UsageError("the annotator is closed; make a new one")
            for request in requests:
                self._queue[request] = None
                self._queue.move_to_end(request)
            while len(self._queue) > self.most:
                stale, _ = self._queue.popitem(last=False)
                self._answers.append((stale, None))
            self._changed.notify()

    def poll(self) -> list[tuple[Request, Label]]:
        """Return the answers that came since the last call."""
        with self._changed:
            found, self._answers = self._answers, []
        return found

    def close(self) -> None:
        """Let the thread end after the call that runs, without waiting for it."""
        with self._changed:
            self._is_closed = True
            self._queue.clear()
            self._changed.notify()

    def _take(self) -> list[Request] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or bool(self._queue))
            if self._is_closed:
                return None
            return [self._queue.popitem(last=True)[0] for _ in range(min(self.batch, len(self._queue)))]

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            labels = self._labels(taken)
            with self._changed:
                self._answers += zip(taken, labels, strict=True)

    def _labels(self, taken: list[Request]) -> list[Label]:
        try:
            given = list(self.labeller(taken))
        except Exception as error:  # whatever goes wrong outside must not stop the training
            return self._fail(taken, f"{type(error).__name__}: {error}")
        if len(given) != len(taken):
            return self._fail(taken, f"{len(given)} labels for {len(taken)} requests")
        labels = [checked_label(one) for one in given]
        if None in labels:
            self._fail(taken, f"{given[labels.index(None)]!r} is no label")
        return labels

    def _fail(self, taken: list[Request], error: str) -> list[Label]:
        self.failures += 1
        self.error = error
        return [None] * len(taken)


def checked_label(given: Any) -> Label:
    """Return a label as a float, or None for what is none of 0, 0.5 and 1."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        return None
    return number if number in ALLOWED else None


def prompt_for(request: Request, goal: str) -> str:
    """Ask a language model for a label; the answer is to end in FOO or BAR."""
    if isinstance(request, tuple):
        first, second = (shown(one) for one in request)
        return (
            f"You play NetHack. Goal: {goal}\nFirst message: {first}\nSecond message: {second}\n"
            "Which message tells of more progress towards the goal? Answer FOO for the first, BAR for the second."
        )
    return (
        f"You play NetHack. Goal: {goal}\nMessage of the game: {shown(request)}\n"
        "Does this message tell of progress towards the goal? Answer FOO if it does, BAR if it does not."
    )


def shown(caption: bytes) -> str:
    """Return a caption as text."""
    return caption.decode("latin-1")


def read_label(answer: str, request: Request) -> float:
    """Read a label from a model's answer: its last FOO or BAR; unreadable answers are 0, or a tie between two."""
    found = _TAG.findall(answer)
    if isinstance(request, tuple):
        return 0.5 if not found else float(found[-1] == "BAR")
    return float(bool(found) and found[-1] == "FOO")


def language_labeller(agent: Any, goal: str) -> Callable[[list[Any]], list[float]]:
    """Make a labeller of a language agent, which answers each request by its `predict`.

    Args:
        agent: a `LanguageAgent`, or anything whose `predict(text)` returns (text, state). It must not be the agent in training.
        goal: what the game is about, in words.
    """

    def label(requests: list[Any]) -> list[float]:
        return [read_label(str(agent.predict(prompt_for(one, goal))[0]), one) for one in requests]

    return label


def phrases(*helpful: str) -> Callable[[Any], float]:
    """Make the rule of a `ScriptedAnnotator`: a caption helps if it holds one of these texts; of two the one that does.

    Args:
        helpful: texts, in any case of letters.
    """
    wanted = [text.lower().encode("latin-1") for text in helpful]

    def helps(caption: bytes) -> bool:
        return any(text in caption.lower() for text in wanted)

    def rule(request: Any) -> float:
        if isinstance(request, tuple):
            first, second = (helps(one) for one in request)
            return 0.5 if first == second else float(second)
        return float(helps(request))

    return rule
