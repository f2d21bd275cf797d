"""Judging as a task: which of two answers is better, or whether an action is right and what should be done instead."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.tags import tagged

from .right_and_wrong import AnswerSource, as_text, read_records

KINDS = ("preference", "critique")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_TO_SCORE, _TO_SUGGESTION = re.compile(r"</thinking>\s*<score>"), re.compile(r"</score>\s*<suggestion>")


def judge_prompt(question: str, first: str, second: str) -> str:
    """Return the text that asks which of two answers is better, as `Judge` and `SelfCritique` write it."""
    return (
        f"Question:\n{question}\n\nAnswer 1:\n{first}\n\nAnswer 2:\n{second}\n\nWhich answer is better? Think inside <think> </think>, "
        "then write 1 or 2 in \\boxed{}."
    )


def critique_prompt(question: str, action: str) -> str:
    """Return the text that asks whether an action is right."""
    return (
        f"Task:\n{question}\n\nProposed action:\n{action}\n\nIs the action right? Write <thinking>...</thinking>"
        "<score>Correct or Incorrect</score><suggestion>the right action</suggestion>."
    )


def choice_of(text: str) -> int | None:
    """Return the answer, 1 or 2, that a judge's text names: in its last box, or alone behind the reasoning; None outside the format."""
    boxed = _BOXED.findall(text)
    said = boxed[-1].strip() if boxed else text.rpartition("</think>")[2].strip()
    return int(said) if said in ("1", "2") else None


def tag_of(text: str, name: str) -> str | None:
    """Return what the last <name>...</name> of a text holds, without outer blanks; None without one."""
    found = tagged(text, name)
    return found[-1].strip() if found else None


def is_thought_and_boxed(text: str) -> bool:
    r"""Whether a text is <think>...</think>, anything, and \boxed{...} without braces in it at the end; outer blanks aside."""
    text = text.strip()
    thought, box = text.find("</think>"), text.rfind("\\boxed{")
    is_whole = text.startswith("<think>") and thought > 0 and thought + len("</think>") <= box
    return is_whole and _BOXED.fullmatch(text, box) is not None


def is_critique(text: str) -> bool:
    """Whether a text is <thinking>...</thinking><score>...</score><suggestion>...</suggestion>, blanks between and around aside."""
    text = text.strip()
    end = len(text) - len("</suggestion>")
    if not (text.startswith("<thinking>") and text.endswith("</suggestion>")):
        return False
    first = _TO_SCORE.search(text, len("<thinking>"))
    second = first and _TO_SUGGESTION.search(text, first.end())
    return second is not None and second.end() <= end


@dataclass(frozen=True)
class Case:
    """What is judged: the question, the better or right answer, the other one, and what would be right."""

    question: str
    right: str
    wrong: str
    suggestion: str

    def shows_right(self, order: int) -> bool:
        """Whether the action that is shown is right; a record of a right action knows no wrong one."""
        return order == 0 or self.right == self.wrong


class Judge(LanguageTask):
    r"""Say which of two answers is better, or whether an action is right and what would be.

    Description:
        "preference" (Wang et al. 2025, LLaVA-Critic-R1, arXiv 2509.00676) shows a question and two answers; the judge thinks and
        writes 1 or 2 in \boxed{}. "critique" (Wanyan et al. 2025, GUI-Critic-R1, arXiv 2506.04614) shows a task and an action in words, right
        or wrong; the judge writes <thinking>, <score>Correct|Incorrect</score> and <suggestion>.
        Pairs come from a file, or from right and wrong answers of any language task. The order of answers, and whether an action is
        right, are drawn evenly: a judge that always says the same earns half of the verdict's part.
    Action space:
        `Utterance`: the judgement.
    Observation space:
        `Utterance`: what is to be judged.
    Rewards:
        "preference": 0.9 if the box holds the label, 0.1 for the format. "critique": the mean, by `weights`, of format, verdict and
        suggestion; a suggestion counts if the task itself judges it right (of records: if it is the text there). What is outside the
        format counts as a wrong verdict, and as `format` 0 in the parts of the verdict, which are logged.
    Starting state:
        A pair and an order that depend on (seed, episode) alone.
    Episode end:
        Terminated by the judgement.

    Args:
        pairs: file of records (JSON lines or parquet). "preference": question, chosen, rejected, or question, answers (two), label (1 or
            2). "critique": question, action, label ("Correct" or "Incorrect"), suggestion. None takes `task`.
        task: a language task or its id, whose right and wrong answers make the pairs.
        task_kwargs: options of the task that an id names.
        kind: "preference" or "critique".
        weights: of format, verdict and suggestion in critiques.
        render_mode: only None.

    Raises:
        UsageError: an unknown kind, a task without right answers, pairs that are equal or lack a label, weights that are no weights.
    """

    def __init__(
        self,
        pairs: str | Path | None = None,
        task: str | gym.Env[str, str] = "polyathlon/Reasoning-v0",
        task_kwargs: Mapping[str, Any] | None = None,
        kind: Literal["preference", "critique"] = "preference",
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise UsageError(f"judging is text and draws nothing; render_mode must be None, got {render_mode!r}")
        if kind not in KINDS:
            raise unknown_name("kind of judging", str(kind), KINDS)
        is_weights = isinstance(weights, Sequence) and len(weights) == 3 and all(isinstance(w, Real) for w in weights)
        if not (is_weights and all(0 <= w < math.inf for w in weights) and sum(weights) > 0):
            raise UsageError(
                f"weights are those of format, verdict and suggestion, finite and at least 0, such as (1, 1, 1); got {weights!r}"
            )
        if kind != "critique" and tuple(weights) != (1.0, 1.0, 1.0):
            raise UsageError(f"weights have no effect on kind={kind!r}: give kind='critique', or leave them out")
        super().__init__(max_turns=1, max_bytes=1 << 18)
        self.kind, self.weights = kind, tuple(float(w) for w in weights)
        self.cases = None if pairs is None else _cases(pairs, kind)
        self.source = AnswerSource(task, task_kwargs) if pairs is None else None

    def draw(self, rng: np.random.Generator) -> TaskId:
        """Draw (what is judged, number that wrong answers are drawn by, order)."""
        if self.source is not None:
            which: TaskId = self.source.task.draw(rng)
        else:
            assert self.cases is not None
            which = int(rng.integers(len(self.cases)))
        return which, int(rng.integers(1 << 30)), int(rng.integers(2))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Show two answers, the better one first where the order is 0; or an action, right where it is 0.

        Raises:
            UsageError: the id is none of `draw`.
        """
        which, number, order = _parts(task_id)
        case = self._case(which, number)
        if self.kind == "preference":
            both = (case.right, case.wrong) if order == 0 else (case.wrong, case.right)
            return TaskEpisode(task_id, judge_prompt(case.question, *both), data=case)
        action = case.right if order == 0 else case.wrong
        return TaskEpisode(task_id, critique_prompt(case.question, action), data=case)

    def _case(self, which: TaskId, number: int) -> Case:
        if self.cases is not None:
            if not isinstance(which, int) or not 0 <= which < len(self.cases):
                raise UsageError(f"there are pairs 0 to {len(self.cases) - 1}, got {which!r}")
            return self.cases[which]
        assert self.source is not None
        right = self.source.right(which)
        wrong = self.source.wrong(which, np.random.default_rng(number))[0]
        return Case(self.source.question(which), right, wrong, right)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Judge a judgement."""
        which, _, order = _parts(episode.task)
        verdict = (
            self._preference(text, order) if self.kind == "preference" else self._critique(episode, text, which, order)
        )
        return TaskReply("", verdict.score, True, verdict)

    def _preference(self, text: str, order: int) -> Verdict:
        said = choice_of(text)
        is_right, has_format = said == order + 1, is_thought_and_boxed(text)
        reason = "outside the format" if said is None else "right" if is_right else "wrong"
        parts = {"verdict": float(is_right), "format": float(has_format)}
        return Verdict(is_right, 0.9 * is_right + 0.1 * has_format, said is None, reason, parts)

    def _critique(self, episode: TaskEpisode, text: str, which: TaskId, order: int) -> Verdict:
        said, suggestion = tag_of(text, "score"), tag_of(text, "suggestion")
        is_known = said in ("Correct", "Incorrect")
        is_right = is_known and (said == "Correct") == episode.data.shows_right(order)
        parts = {
            "format": float(is_known and is_critique(text)),
            "verdict": float(is_right),
            "suggestion": float(suggestion is not None and self._is_right(episode.data, which, suggestion)),
        }
        numbers = [parts[name] for name in ("format", "verdict", "suggestion")]
        score = sum(w * x for w, x in zip(self.weights, numbers, strict=True)) / sum(self.weights)
        reason = "outside the format" if not is_known else "right" if is_right else "wrong"
        return Verdict(is_right, score, not is_known, reason, parts)

    def _is_right(self, case: Case, which: TaskId, suggestion: str) -> bool:
        if self.source is not None:
            return self.source.is_right(which, suggestion)
        return suggestion == case.suggestion.strip()

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Count an answer that cannot be read as outside the format."""
        names = ("verdict", "format") if self.kind == "preference" else ("format", "verdict", "suggestion")
        return TaskReply("", 0.0, True, Verdict(False, 0.0, True, reason, dict.fromkeys(names, 0.0)))

    def solution(self, task_id: TaskId) -> str:
        """Return a right judgement."""
        which, number, order = _parts(task_id)
        if self.kind == "preference":
            return f"<think>Answer {order + 1} is right.</think>\\boxed{{{order + 1}}}"
        case = self._case(which, number)
        score = "Correct" if case.shows_right(order) else "Incorrect"
        return f"<thinking>The action is {score.lower()}.</thinking><score>{score}</score><suggestion>{case.suggestion}</suggestion>"

    def swapped(self, task_id: TaskId) -> TaskId:
        """Return the id of the same pair in the other order."""
        which, number, order = _parts(task_id)
        return which, number, 1 - order


def _parts(task_id: TaskId) -> tuple[TaskId, int, int]:
    is_whole = isinstance(task_id, tuple | list) and len(task_id) == 3
    if not is_whole or task_id[2] not in (0, 1):  # type: ignore[index]
        raise UsageError(f"the tasks of Judge-v0 are (what is judged, number, order 0 or 1), got {task_id!r}")
    return task_id[0], int(task_id[1]), int(task_id[2])  # type: ignore[index]


def _cases(path: str | Path, kind: str) -> list[Case]:
    needed = ("question",) if kind == "preference" else ("question", "action", "label", "suggestion")
    return [_case_of(row, i, kind) for i, row in enumerate(read_records(path, needed), 1)]


def _case_of(row: Mapping[str, Any], number: int, kind: str) -> Case:
    question = as_text(row["question"], "question", number)
    if kind == "critique":
        label, action, better = row["label"], *(as_text(row[key], key, number) for key in ("action", "suggestion"))
        if label not in ("Correct", "Incorrect"):
            raise UsageError(f"record {number}: label must be 'Correct' or 'Incorrect', got {label!r}")
        if (action == better) != (label == "Correct"):
            raise UsageError(
                f"record {number}: an action is right if it is the suggestion, and {label!r} says otherwise"
            )
        return Case(question, better, action, better)
    if "chosen" in row and "rejected" in row:
        right, wrong = (as_text(row[key], key, number) for key in ("chosen", "rejected"))
    elif len(row.get("answers") or ()) == 2 and row.get("label") in (1, 2):
        right, wrong = (as_text(row["answers"][row["label"] - k], "an answer", number) for k in (1, 2))
    else:
        raise UsageError(
            f"record {number} lacks a label: give chosen and rejected, or answers (two) and label (1 or 2)"
        )
    if right.strip() == wrong.strip():
        raise UsageError(f"record {number}: both answers are {right!r}; leave equal pairs out")
    return Case(question, right, wrong, right)
