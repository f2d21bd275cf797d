"""Probes in words: tiny language tasks whose values are known, each of which fails when one part of an agent is wrong.

| probe | fails when | exact values |
|---|---|---|
| `FixedAnswer` | a language agent does not reinforce what was rewarded | "y" pays 1, anything else 0 |
| `CopyAnswer` | the answer does not depend on the prompt | the letter of the prompt pays 1, anything else 0 |
"""

from __future__ import annotations

import numpy as np

from polyathlon.envs.errors import unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict


class _LetterTask(LanguageTask):
    """One question, answered by one letter; the first letter of the answer counts."""

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw one of the letters."""
        return self.letters[int(rng.integers(len(self.letters)))]

    letters: tuple[str, ...] = ("y",)

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask for the letter.

        Raises:
            UsageError: the id is none of the letters.
        """
        if task_id not in self.letters:
            raise unknown_name("task", str(task_id), self.letters)
        return TaskEpisode(task_id, self.question(str(task_id)))

    def question(self, letter: str) -> str:
        """Return the text that asks for a letter."""
        raise NotImplementedError

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Pay 1 for the letter, 0 for anything else, and end."""
        is_right = text[:1] == episode.task
        reason = "the letter asked for" if is_right else f"expected {episode.task!r}"
        return TaskReply("", float(is_right), True, Verdict(is_right, float(is_right), False, reason))

    def solution(self, task_id: TaskId) -> str:
        """Return the letter."""
        return str(task_id)


class FixedAnswer(_LetterTask):
    """The answer is always "y". The expected reward is the probability of "y"; its optimum is 1."""

    def question(self, letter: str) -> str:
        """Ask the same question each time."""
        return "y or n?"


class CopyAnswer(_LetterTask):
    """The answer is the letter of the prompt, "a" or "b". An answer that does not read the prompt earns at most 1/2."""

    letters = ("a", "b")

    def question(self, letter: str) -> str:
        """Show the letter."""
        return f"{letter}?"


TEXT_PROBES: dict[str, type[LanguageTask]] = {probe.__name__: probe for probe in (FixedAnswer, CopyAnswer)}
