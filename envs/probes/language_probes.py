"""Probes in words: tiny language tasks whose values are known, each of which fails when one part of an agent is wrong.

| probe | fails when | exact values |
|---|---|---|
| `FixedAnswer` | a language agent does not reinforce what was rewarded | "y" pays 1, anything else 0 |
| `CopyAnswer` | the answer does not depend on the prompt | the letter of the prompt pays 1, anything else 0 |

`TableTask` is the task of the table language model ("table:P,T,V"): numbered prompts and tokens, any score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name
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


_MOST_DIGITS = 18  # Python refuses to read the longest integers
Score = Callable[[int, list[int]], "float | Verdict"]


class TableTask(LanguageTask):
    """Numbered prompts, answered by tokens that are numbers: a bandit where an answer has one token.

    The prompt x is the text "px", the answer "3 0 7" the tokens 3, 0, 7, as the model "table:P,T,V" reads and writes them:
    `TokenAction(TableTask(64, 1, 16), model="table:64,1,16", max_new_tokens=1)`.

    Args:
        prompts: P.
        length: tokens of a right answer.
        tokens: V.
        score: function (prompt, tokens of the answer) to a number or a `Verdict`; a number of 1 and more is right. None pays 1
            for `targets`, with the share of right tokens as the part "share".
        seed: of the targets.

    Attributes:
        targets: (P, length), the right tokens, drawn evenly.

    Raises:
        UsageError: a size is no positive integer.
    """

    def __init__(
        self, prompts: int = 64, length: int = 1, tokens: int = 16, score: Score | None = None, seed: int = 0
    ) -> None:
        check_positive_int(prompts=prompts, length=length, tokens=tokens)
        super().__init__()
        self.prompts, self.length, self.tokens, self.score = prompts, length, tokens, score
        self.targets = np.random.default_rng(seed).integers(tokens, size=(prompts, length))

    @property
    def task_ids(self) -> Sequence[int]:
        """Ids of all tasks."""
        return range(self.prompts)

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw a prompt."""
        return int(rng.integers(self.prompts))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Show the prompt.

        Raises:
            UsageError: there is no such prompt.
        """
        if not isinstance(task_id, int) or not 0 <= task_id < self.prompts:
            raise UsageError(f"the tasks are the numbers of prompts, 0 to {self.prompts - 1}, got {task_id!r}")
        return TaskEpisode(task_id, f"p{task_id}")

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Score the tokens of the answer."""
        words = text.split()
        if not words or not all(word.isdecimal() and len(word) <= _MOST_DIGITS for word in words):
            return self.refuse(episode, "an answer is numbers with blanks between")
        prompt, answer = int(str(episode.task)), [int(word) for word in words]
        verdict = self._by_target(prompt, answer) if self.score is None else self.score(prompt, answer)
        if not isinstance(verdict, Verdict):
            verdict = Verdict(verdict >= 1, float(verdict), False, f"scored {verdict:g}")
        return TaskReply("", verdict.score, True, verdict)

    def _by_target(self, prompt: int, answer: list[int]) -> Verdict:
        target = self.targets[prompt].tolist()
        share = sum(a == b for a, b in zip(answer, target)) / self.length
        is_right = answer == target
        return Verdict(is_right, float(is_right), False, "right" if is_right else "wrong", {"share": share})

    def solution(self, task_id: TaskId) -> str | None:
        """Return the target; None where a score of one's own decides."""
        return " ".join(map(str, self.targets[int(str(task_id))])) if self.score is None else None

    def worked(self, task_id: TaskId) -> str | None:
        """Return the target as text, to show its beginning (`Hinted(task, announcement=" ", continues=True)`)."""
        return self.solution(task_id)


TEXT_PROBES: dict[str, type[LanguageTask]] = {probe.__name__: probe for probe in (FixedAnswer, CopyAnswer)}
