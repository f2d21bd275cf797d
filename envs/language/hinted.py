"""Problems with the beginning of their worked solution shown: ids of tasks are pairs (id, fraction)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name

from .task import LanguageTask, TaskEpisode, TaskId, TaskReply

ANNOUNCEMENT = "\n\nThe text below is the beginning of the answer; go on from it or start anew.\n"
UNITS = ("characters", "tokens")


class Hinted(LanguageTask):
    """A language task whose ids say how much of the worked solution is shown: (id, 0.0) is the problem itself.

    Nothing below changes: a hint is part of the first message. It is cut from `LanguageTask.worked`, which stands apart from the answer,
    so a hint of three quarters does not hand a short answer over. Problems that are drawn have no hint.

    Args:
        task: a language task with worked solutions.
        unit: in what the fraction is counted: characters (the authors' code), or tokens.
        tokenizer: of "tokens": `encode(text)` and `decode(ids)`, such as `TokenAction.tokenizer`.
        announcement: stands before the hint.
        continues: judge the hint and the answer as one text, for models that go on where the hint ends.

    Raises:
        UsageError: the task is no language task or has no worked solutions, or an option means nothing.
    """

    def __init__(
        self,
        task: gym.Env[str, str],
        unit: Literal["characters", "tokens"] = "characters",
        tokenizer: Any = None,
        announcement: str = ANNOUNCEMENT,
        continues: bool = False,
    ) -> None:
        inner = task.unwrapped
        if not isinstance(inner, LanguageTask):
            raise UsageError(f"Hinted takes a language task, got {task}")
        if not inner.has_worked:
            raise UsageError(f"{task} has no worked solutions to show the beginning of: give its class worked(task_id)")
        if unit not in UNITS:
            raise unknown_name("unit", str(unit), UNITS)
        if unit == "tokens" and tokenizer is None:
            raise UsageError("unit='tokens' cuts between tokens: give tokenizer=, such as TokenAction(task).tokenizer")
        room = getattr(inner.observation_space, "max_bytes", 1 << 18)
        super().__init__(max_turns=inner.max_turns, max_answer=inner.max_answer, max_bytes=2 * room)
        self.inner, self.unit, self.tokenizer = inner, unit, tokenizer
        self.announcement, self.continues = announcement, continues

    def hint(self, task_id: TaskId) -> str:
        """Return the first round(fraction n) of the n characters, or tokens, of the worked solution.

        Raises:
            UsageError: the id is no pair of an id and a fraction.
        """
        own, fraction = _pair(task_id)
        text = (self.inner.worked(own) or "") if fraction else ""
        if self.unit == "characters":
            return text[: round(fraction * len(text))]
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return str(self.tokenizer.decode(ids[: round(fraction * len(ids))]))

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw a problem, without a hint."""
        return self.inner.draw(rng), 0.0

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask the problem, with its hint in the first message."""
        own, fraction = _pair(task_id)
        episode, hint = self.inner.start(own), self.hint(task_id)
        if hint:
            said = self.announcement + hint
            episode.observation += said
            first = next(m for m in reversed(episode.messages) if m["role"] == "user")
            first["content"] += said
        episode.task = (own, fraction)
        return episode

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Judge an answer as the task does."""
        with self._as_inner(episode):
            return self.inner.judge(episode, text)

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Refuse an answer as the task does."""
        with self._as_inner(episode):
            return self.inner.refuse(episode, reason)

    def answer(self, episode: TaskEpisode, text: str) -> Any:
        """Advance an episode by one answer; see `LanguageTask.answer`."""
        begun = self.hint(episode.task) if self.continues and not episode.answers else ""
        return super().answer(episode, begun + text if begun else text)

    def prepare(self, answers: Sequence[tuple[TaskEpisode, str]]) -> None:
        """Do at once what judging needs."""
        tasks = [episode.task for episode, _ in answers]
        for episode, _ in answers:
            episode.task = _pair(episode.task)[0]
        try:
            self.inner.prepare(answers)
        finally:
            for (episode, _), task in zip(answers, tasks, strict=True):
                episode.task = task

    def prepare_starts(self, task_ids: Sequence[TaskId]) -> None:
        """Do at once what beginning needs."""
        self.inner.prepare_starts([_pair(task_id)[0] for task_id in task_ids])

    def release(self, episode: TaskEpisode) -> None:
        """Give back to the task what the episode holds of it."""
        with self._as_inner(episode):
            self.inner.release(episode)

    def close(self) -> None:
        """Give up the running episode, and close the task."""
        super().close()
        self.inner.close()

    def solution(self, task_id: TaskId) -> str | None:
        """Return the task's own answer."""
        return self.inner.solution(_pair(task_id)[0])

    def worked(self, task_id: TaskId) -> str | None:
        """Return the worked solution."""
        return self.inner.worked(_pair(task_id)[0])

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return the task's answers to choose from."""
        with self._as_inner(episode):
            return self.inner.candidates(episode)

    @property
    def has_candidates(self) -> bool:
        """Whether the task offers answers to choose from."""
        return self.inner.has_candidates

    @contextmanager
    def _as_inner(self, episode: TaskEpisode) -> Iterator[None]:
        """Show an episode to the task under the task's own id."""
        whole = episode.task
        episode.task = _pair(whole)[0]
        try:
            yield
        finally:
            episode.task = whole


def _pair(task_id: TaskId) -> tuple[TaskId, float]:
    is_pair = isinstance(task_id, tuple | list) and len(task_id) == 2
    fraction = task_id[1] if is_pair else None  # type: ignore[index]
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
        raise UsageError(f"the tasks of Hinted are pairs (id, fraction from 0 to 1), got {task_id!r}")
    return task_id[0], float(fraction)  # type: ignore[index]
