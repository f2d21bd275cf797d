"""Multiple-choice questions with one or several right options, paid by how much of the right set is named (TW-GRPO)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, check_finite, check_fraction, check_non_negative, check_positive_int
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.tags import tagged

from .right_and_wrong import AnswerSource, as_text, read_records

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FORM = re.compile(r"\s*(<think>.*?</think>\s*)?<answer>[^<>]*</answer>\s*", re.DOTALL)
_NEGATIONS = (
    ("did not ", "did "), ("is not ", "is "), ("are not ", "are "), ("was not ", "was "), ("were not ", "were "), ("does not ", "does "),
    ("do not ", "do "), ("can not ", "can "), ("will not ", "will "), ("has not ", "has "), ("have not ", "have "),
)  # fmt: skip


def letters_of(text: str) -> set[str]:
    """Return the options that an answer names: letters with commas or blanks between, in the last <answer> or as the whole text."""
    found = tagged(text, "answer")
    held = found[-1] if found else text.rpartition("</think>")[2]
    # an empty name counts as one option that does not exist
    return {part.strip().upper() for part in re.split(r"[,\s]+", held.strip().strip("."))}


def soft_subset(said: set[str], right: set[str]) -> float:
    """|S| / |Y| if S is a subset of Y, else 0 (Dang et al. 2025, arXiv 2505.24718, section 3.3)."""
    return len(said) / len(right) if said <= right else 0.0


def negated(question: str) -> str:
    """Return a question whose right answers are those that were wrong: its first verb negated, else asked for what is not right."""
    padded = f" {question} "
    for without, with_it in _NEGATIONS:
        if f" {without}" in padded:
            return padded.replace(f" {without}", f" {with_it}", 1).strip()
    places = [(padded.find(f" {verb}"), verb) for _, verb in _NEGATIONS if f" {verb}" in padded]
    if places:
        _, verb = min(places)
        return padded.replace(f" {verb}", f" {verb}not ", 1).strip()
    return f"Which of these is no right answer? {question}"


@dataclass(frozen=True)
class Question:
    """A question, its options in order, and the letters of the right ones."""

    text: str
    options: tuple[str, ...]
    right: frozenset[str]

    def prompt(self) -> str:
        """Return what is asked."""
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join(
            [
                self.text,
                *lines,
                "Write the letters of all right options, with commas between, inside <answer> </answer>.",
            ]
        )


class MultipleChoice(LanguageTask):
    """Name all right options of a question.

    Description:
        Questions come from a file of records, or from a language task: its right answer among wrong ones. Options are shuffled by what was
        drawn. With `invert` some questions of one right option are turned round (question-answer inversion): the question is negated, the
        old right option is the only wrong one, beside a random number of those that were wrong.
    Action space:
        `Utterance`: letters with commas between, alone or inside `<answer>...</answer>`.
    Observation space:
        `Utterance`: the question and its options, a line each.
    Rewards:
        (set + format_weight * format) / (1 + format_weight). set: 1 for the right set; with `soft` the share of the right set that a subset
        of it names; else 0. format: 1 if the answer stands in tags, after nothing but reasoning.
    Starting state:
        A question, its order and whether it is inverted depend on (seed, episode) alone.
    Episode end:
        Terminated by the answer.

    Args:
        questions: file of records (JSON lines or parquet): question, options (texts), answers (texts, letters or indices of the right ones).
            None takes `task`.
        task: a language task or its id.
        task_kwargs: options of the task that an id names.
        options: how many a question of `task` has.
        soft: pay parts of the right set.
        invert: share of the questions of one right option that are turned round.
        format_weight: weight of the format; 0 pays the set alone.
        render_mode: only None.

    Raises:
        UsageError: an option means nothing, options without a right or without a wrong one, a task without right answers.
    """

    def __init__(
        self,
        questions: str | Path | None = None,
        task: str | gym.Env[str, str] = "polyathlon/Reasoning-v0",
        task_kwargs: Mapping[str, Any] | None = None,
        options: int = 4,
        soft: bool = True,
        invert: float = 0.0,
        format_weight: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise UsageError(f"questions are text and draw nothing; render_mode must be None, got {render_mode!r}")
        check_positive_int(options=options)
        if not 2 <= options <= len(LETTERS):
            raise UsageError(f"options must lie in 2..{len(LETTERS)}, got {options}")
        check_fraction(invert=invert)
        check_non_negative(format_weight=format_weight)
        check_finite(format_weight=format_weight)
        super().__init__(max_turns=1, max_bytes=1 << 18)
        self.options, self.soft, self.invert, self.format_weight = options, soft, invert, format_weight
        self.records = None if questions is None else _questions(questions)
        self.source = AnswerSource(task, task_kwargs) if questions is None else None

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw (question, number by which options are drawn and shuffled)."""
        if self.source is not None:
            return self.source.task.draw(rng), int(rng.integers(1 << 30))
        assert self.records is not None
        return int(rng.integers(len(self.records))), int(rng.integers(1 << 30))

    def question(self, task_id: TaskId) -> Question:
        """Return a question as it is asked.

        Raises:
            UsageError: the id is none of `draw`.
        """
        if not isinstance(task_id, tuple | list) or len(task_id) != 2:
            raise UsageError(f"the tasks of MultipleChoice-v0 are (question, number), got {task_id!r}")
        which, number = task_id
        rng = np.random.default_rng(int(number))
        text, right, wrong = self._right_and_wrong(which, rng)
        if len(right) == 1 and rng.random() < self.invert:
            count = int(rng.integers(1, len(wrong) + 1))
            chosen = [wrong[i] for i in rng.permutation(len(wrong))[:count]]
            text, right, wrong = negated(text), chosen, right
        shown = [*right, *wrong]
        order = rng.permutation(len(shown))
        letters = frozenset(LETTERS[k] for k, i in enumerate(order) if i < len(right))
        return Question(text, tuple(shown[i] for i in order), letters)

    def _right_and_wrong(self, which: TaskId, rng: np.random.Generator) -> tuple[str, list[str], list[str]]:
        if self.source is not None:
            wrong = self.source.wrong(which, rng, self.options - 1)
            return self.source.question(which), [self.source.right(which)], wrong
        assert self.records is not None
        if not isinstance(which, int) or not 0 <= which < len(self.records):
            raise UsageError(f"there are questions 0 to {len(self.records) - 1}, got {which!r}")
        text, right, wrong = self.records[which]
        return text, list(right), list(wrong)

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask a question."""
        question = self.question(task_id)
        return TaskEpisode(task_id, question.prompt(), data=question)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Compare the letters with the right ones."""
        said, right = letters_of(text), set(episode.data.right)
        is_right = said == right
        paid = soft_subset(said, right) if self.soft else float(is_right)
        form = float(bool(_FORM.fullmatch(text)))
        score = (paid + self.format_weight * form) / (1 + self.format_weight)
        is_invalid = said.isdisjoint(LETTERS[: len(episode.data.options)])
        reason = (
            "right" if is_right else "names no option" if is_invalid else "part of the right set" if paid else "wrong"
        )
        return TaskReply("", score, True, Verdict(is_right, score, is_invalid, reason, {"set": paid, "format": form}))

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Pay nothing for an answer that cannot be read."""
        return TaskReply("", 0.0, True, Verdict(False, 0.0, True, reason, {"set": 0.0, "format": 0.0}))

    def solution(self, task_id: TaskId) -> str:
        """Return the right letters in their tags."""
        return f"<answer>{', '.join(sorted(self.question(task_id).right))}</answer>"


def _questions(path: str | Path) -> list[tuple[str, list[str], list[str]]]:
    rows = read_records(path, ("question", "options", "answers"))
    return [_question_of(row, number) for number, row in enumerate(rows, 1)]


def _question_of(row: Mapping[str, Any], number: int) -> tuple[str, list[str], list[str]]:
    options = [as_text(option, "an option", number) for option in row["options"]]
    given = (
        row["answers"]
        if isinstance(row["answers"], Sequence) and not isinstance(row["answers"], str)
        else [row["answers"]]
    )
    if len(set(options)) != len(options) or len(options) > len(LETTERS):
        raise UsageError(f"record {number}: options are at most {len(LETTERS)} different texts, got {options}")
    right = {_place(answer, options, number) for answer in given}
    if not right or len(right) == len(options):
        raise UsageError(
            f"record {number}: {len(right)} of {len(options)} options are right; there must be a right and a wrong one"
        )
    return (
        as_text(row["question"], "question", number),
        [options[i] for i in sorted(right)],
        [o for i, o in enumerate(options) if i not in right],
    )


def _place(answer: Any, options: Sequence[str], number: int) -> int:
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return answer
    if str(answer) in options:
        return options.index(str(answer))
    if isinstance(answer, str) and len(answer) == 1 and answer.upper() in LETTERS[: len(options)]:
        return LETTERS.index(answer.upper())
    raise UsageError(
        f"record {number}: the answer {answer!r} is none of its options: give texts, letters or indices from 0"
    )
