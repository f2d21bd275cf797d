"""Verifiable reasoning problems: the data sets of reasoning-gym as a language task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError, check_options
from polyathlon.envs.language import LanguageTask, TaskEpisode, TaskId, TaskReply, Verdict
from polyathlon.envs.language.tags import tagged

from .near_numbers import near_numbers
from .reasoning_items import LAST_PROBLEM, Items, dataset_names

__all__ = ["Reasoning", "constant_baselines", "dataset_names", "normalise"]

CANDIDATE_STREAM, CANDIDATE_TRIES = 7, 32
_MAX_RATIO = 4
MOST_LISTED = 1_000_000


def normalise(text: str) -> str:
    """Return the answer in a text: what the last `<answer>...</answer>` holds, or the whole text; outer blanks removed.

    A tag is closed by the first `</answer>` after it, and the next one begins after that.
    """
    found = tagged(text, "answer")
    return (found[-1] if found else text).strip()


class Reasoning(LanguageTask):
    """Answer a question whose answer can be checked.

    Description:
        Each episode asks one problem of a data set of reasoning-gym (arithmetic, logic, algorithms, games, ...). A
        problem has a number, its id: problem i is the first item of the data set opened with seed i.
    Action space:
        `Utterance`: the answer, alone or inside `<answer>...</answer>`.
    Observation space:
        `Utterance`: the question; after a wrong attempt, the feedback; after the last answer, the empty text.
    Rewards:
        strict: 1 if the scorer gives the normalised answer 1.0 (and it is at most four times as long as the reference
        answer, where reasoning-gym's default scorer is in use), else 0.
        Not strict: the scorer's partial score; the empty answer and one that cannot be read are worth 0. With several
        attempts each one is paid what it improves on the best so far, so an episode's rewards sum to its best score.
    Starting state:
        A problem drawn evenly from `first` to `first + size - 1`, which depends on (seed, episode) alone; or the one
        of `reset(options={"task": number})`.
    Episode end:
        Terminated by a right answer or after `max_turns` attempts. Never truncated.

    Args:
        task: name of a data set (`dataset_names()`); "composite" mixes several.
        config: options of the data set.
        strict: pay right answers alone.
        max_turns: number of attempts.
        size: number of different problems.
        first: number of the first problem; use another range to evaluate on fresh problems.
        max_answer: the longest answer that is read, in characters.
        render_mode: only None.

    Raises:
        UsageError: an unknown data set or option, `codeio`, which is not reproducible, or an impossible number.
        ImportError: reasoning-gym is not installed.
    """

    def __init__(
        self,
        task: str = "chain_sum",
        config: Mapping[str, Any] | None = None,
        strict: bool = True,
        max_turns: int = 1,
        size: int | None = None,
        first: int = 0,
        max_answer: int = 1 << 16,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            raise UsageError(
                f"a reasoning task is text and draws nothing; render_mode must be None, got {render_mode!r}"
            )
        if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < LAST_PROBLEM:
            raise UsageError(f"first must be the number of a problem, 0 to {LAST_PROBLEM - 1}, got {first!r}")
        most = LAST_PROBLEM - first
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= most):
            raise UsageError(f"size must be a number of problems from 1 to {most}, got {size!r}")
        check_options(config=config)
        super().__init__(max_turns=max_turns, max_answer=max_answer, max_bytes=1 << 18)
        self.task, self.config, self.strict = task, dict(config or {}), strict
        self.first, self.size = first, most if size is None else size
        self.items = Items(task, self.config)
        self.max_candidates = 8
        self._offers: bool | None = None

    @property
    def task_ids(self) -> Sequence[int] | None:
        """Numbers of all problems; None where there are more than a sampler of problems could keep apart."""
        return range(self.first, self.first + self.size) if self.size <= MOST_LISTED else None

    def draw(self, rng: np.random.Generator) -> int:
        """Draw the number of a problem."""
        return self.first + int(rng.integers(self.size))

    def begin(self, task_id: TaskId) -> TaskEpisode:
        """Ask problem `task_id`.

        Raises:
            UsageError: `task_id` is not the number of a problem.
        """
        number = _number(task_id)
        return TaskEpisode(number, self.items.item(number)["question"], data=0.0)

    def solution(self, task_id: TaskId) -> str | None:
        """Return the reference answer; None where the data set keeps none."""
        answer = self.items.item(_number(task_id))["answer"]
        return None if answer is None else str(answer).strip()

    @property
    def has_candidates(self) -> bool:
        """Whether answers can be offered to choose from: whether the data set keeps reference answers."""
        if self._offers is None:
            self._offers = self.solution(self.first) is not None
        return self._offers

    def candidates(self, episode: TaskEpisode) -> list[str]:
        """Return up to `max_candidates` answers to choose from: the reference, near numbers, references of other problems.

        Which ones, and their order, depend on the problem alone; all but one are wrong by the scorer.
        """
        number = _number(episode.task)
        right = self.solution(number)
        if right is None:
            return []
        rng = np.random.default_rng([number, CANDIDATE_STREAM])
        found = {right: None}
        offered = near_numbers(right, rng)[: self.max_candidates // 2 - 1]
        for k in range(len(offered) + CANDIDATE_TRIES):
            text = offered[k] if k < len(offered) else self.solution(self.draw(rng))
            if text is not None and text not in found and not self.verdict(number, text).correct:
                found[text] = None
            if len(found) == self.max_candidates:
                break
        answers = list(found)
        return [answers[i] for i in rng.permutation(len(answers))]

    @property
    def has_worked(self) -> bool:
        """Whether the data set has worked solutions: sums have ("chain_sum")."""
        return self.task == "chain_sum"

    def worked(self, task_id: TaskId) -> str | None:
        """Return the partial sums but the last, "57 + 87 = 144", a line each; None for other data sets."""
        item = self.items.item(_number(task_id))
        terms = str(item["metadata"].get("expression", "")).split() if self.has_worked else []
        lines, total = [], int(terms[0]) if terms else 0
        for sign, term in zip(terms[1::2], terms[2::2]):
            before, total = total, total + int(term) * (1 if sign == "+" else -1)
            lines.append(f"{before} {sign} {term} = {total}")
        return "\n".join([*lines[:-1], lines[-1].rpartition("=")[0] + "="]) if lines else None

    def verdict(self, task_id: TaskId, text: str) -> Verdict:
        """Judge a text as the answer to a problem, outside any episode."""
        item = self.items.item(_number(task_id))
        answer = normalise(text)
        if not answer:
            return Verdict(False, 0.0, True, "the answer is empty", {"scorer": 0.0})
        score, unread = self.items.score(answer, item)
        parts = {"scorer": score}
        if unread is not None:
            return Verdict(False, 0.0, True, unread, parts)
        gold = item["answer"]
        if gold is not None and len(answer) > _MAX_RATIO * len(str(gold)) and self.items.scores_by_default(item):
            return Verdict(False, 0.0, False, f"the answer is over {_MAX_RATIO} times as long as the right one", parts)
        if score == 1.0:
            return Verdict(True, 1.0, False, "right", parts)
        return Verdict(False, 0.0 if self.strict else score, False, "wrong" if score == 0 else "not fully right", parts)

    def judge(self, episode: TaskEpisode, text: str) -> TaskReply:
        """Judge an attempt."""
        return self._attempt(episode, self.verdict(episode.task, text))

    def refuse(self, episode: TaskEpisode, reason: str) -> TaskReply:
        """Count an answer that cannot be read as a wrong attempt."""
        return self._attempt(episode, Verdict(False, 0.0, True, reason, {"scorer": 0.0}))

    def _attempt(self, episode: TaskEpisode, verdict: Verdict) -> TaskReply:
        attempt = len(episode.answers) + 1
        best = max(episode.data, verdict.score)
        reward, episode.data = best - episode.data, best
        assert self.max_turns is not None
        if verdict.correct or attempt >= self.max_turns:
            return TaskReply("", reward, True, verdict)
        why = f" ({verdict.reason})" if verdict.invalid else ""
        left = self.max_turns - attempt
        feedback = f"That is not right{why}. Attempts left: {left}. Give only the answer."
        return TaskReply(feedback, reward, False, verdict)


def _number(task_id: TaskId) -> int:
    if isinstance(task_id, bool) or not isinstance(task_id, int | np.integer) or not 0 <= task_id < LAST_PROBLEM:
        raise UsageError(f"a problem is named by its number, 0 to {LAST_PROBLEM - 1}, got {task_id!r}")
    return int(task_id)


def constant_baselines(task: Reasoning, n: int = 200, answers: Sequence[str] = ()) -> dict[str, float]:
    """Measure what always giving the same answer earns, to be shown beside results.

    Args:
        task: the task.
        n: number of problems, the first ones of the task.
        answers: constant answers to try besides the five most frequent reference answers and "", 0, 1, Yes, No.

    Returns:
        Mean score of each constant answer, the best one first.

    Raises:
        UsageError: `n` is not positive.
    """
    if n < 1:
        raise UsageError(f"n must be a positive number of problems, got {n}")
    numbers = range(task.first, task.first + min(n, task.size))
    gold = Counter(answer for answer in map(task.solution, numbers) if answer is not None)
    tried = dict.fromkeys([answer for answer, _ in gold.most_common(5)] + ["", "0", "1", "Yes", "No", *answers])
    means = {text: sum(task.verdict(i, text).score for i in numbers) / len(numbers) for text in tried}
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))
