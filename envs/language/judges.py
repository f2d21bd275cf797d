"""Judges: how likely one of two answers to a prompt is the better one."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError

from .task import LanguageTask

PairFunction = Callable[[Sequence[Any], Sequence[str], Sequence[str]], Sequence[float]]
DENSITY_RATIO = "density_ratio:"  # of two models, see `polyathlon.envs.models.density_ratio`
TEMPLATE = "Which answer to the question is better?\n\nQuestion: {prompt}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\nSay A or B alone."


_PLACE = re.compile(r"\{(prompt|a|b)\}")


class Judge:
    """Base of judges. A subclass writes `judge`; `p_win` asks both ways round, so that the order of two answers says nothing."""

    is_symmetric = False  # judge(a, b) = 1 - judge(b, a) already

    def judge(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> Sequence[float]:
        """Return for each prompt how likely the answer of `a` is better than that of `b`, in [0, 1]."""
        raise NotImplementedError

    def p_win(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> list[float]:
        """Return for each prompt how likely the answer of `a` is better: p(a, b) + p(b, a) = 1.

        Args:
            prompts: texts or conversations; of a task's own verdict, ids of tasks.
            a: an answer to each.
            b: another one.

        Raises:
            UsageError: the numbers of prompts and answers differ, or the judge gives other than a number in [0, 1] a pair.
        """
        if not len(prompts) == len(a) == len(b):
            raise UsageError(
                f"a judge compares two answers to each prompt, got {len(prompts)} prompts, {len(a)} and {len(b)} answers"
            )
        if not len(prompts):
            return []
        forward = self._checked(self.judge(prompts, a, b), len(prompts))
        if self.is_symmetric:
            return forward
        backward = self._checked(self.judge(prompts, b, a), len(prompts))
        return [(p + 1 - q) / 2 for p, q in zip(forward, backward, strict=True)]

    def _checked(self, found: Any, number: int) -> list[float]:
        values = list(found) if isinstance(found, Sequence) or hasattr(found, "__len__") else [found]
        if len(values) != number:
            raise UsageError(f"{self} gave {len(values)} numbers for {number} pairs: a judge gives one a pair")
        for i, value in enumerate(values):
            try:
                is_share = not isinstance(value, str | bool) and 0 <= float(value) <= 1
            except (TypeError, ValueError):
                is_share = False
            if not is_share:
                raise UsageError(
                    f"{self} gave {value!r} for pair {i}: a judge gives the probability that the first answer is the better one, "
                    "a number in [0, 1]"
                )
        return [float(value) for value in values]


class FunctionJudge(Judge):
    """A judge of a function.

    Args:
        function: `f(prompts, a, b) -> [B]` numbers in [0, 1].
    """

    def __init__(self, function: PairFunction) -> None:
        self.function = function

    def judge(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> Sequence[float]:
        """Ask the function."""
        return self.function(prompts, a, b)

    def __str__(self) -> str:
        return f"the judge {getattr(self.function, '__name__', self.function)!r}"


class ScoreJudge(Judge):
    """A judge of scores: p(a, b) = sigmoid(s(a) - s(b)) (Bradley and Terry 1952).

    Args:
        scores: `f(prompts, answers) -> [B]` numbers, such as `TextScorer(folder).score`.
    """

    is_symmetric = True

    def __init__(self, scores: Callable[[Sequence[Any], Sequence[str]], Sequence[float]]) -> None:
        self.scores = scores

    def judge(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> Sequence[float]:
        """Compare the scores."""
        found = [float(score) for score in self.scores([*prompts, *prompts], [*a, *b])]
        gaps = [x - y for x, y in zip(found[: len(a)], found[len(a) :], strict=True)]
        return [_sigmoid(gap) for gap in gaps]

    def __str__(self) -> str:
        return "the judge of scores"


class VerdictJudge(Judge):
    """The task's own verdict: 1 where the first answer earns more, 1/2 where both earn the same, 0 else.

    Args:
        task: a language task; `prompts` are ids of its tasks, and answers are judged as the first of an episode.
    """

    is_symmetric = True

    def __init__(self, task: LanguageTask) -> None:
        self.task = task

    def judge(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> Sequence[float]:
        """Compare what the answers earn; all are prepared at once."""
        ids, texts = [*prompts, *prompts], [*a, *b]
        episodes = [self.task.start(task_id) for task_id in ids]
        self.task.prepare(list(zip(episodes, texts, strict=True)))
        earned = [float(self.task.answer(e, text).reward) for e, text in zip(episodes, texts, strict=True)]
        for episode in episodes:
            self.task.give_up(episode)
        return [0.5 + 0.5 * ((x > y) - (x < y)) for x, y in zip(earned[: len(a)], earned[len(a) :], strict=True)]

    def __str__(self) -> str:
        return f"the verdict of {self.task}"


class ModelJudge(Judge):
    """A causal language model that is asked which answer is better: p = p("A") / (p("A") + p("B")) of its next token.

    Args:
        name: name of the model (see `polyathlon.envs.models`).
        template: the question, with {prompt}, {a} and {b}.
        words: what it says for the first and for the second answer.
        batch: rows in memory at a time.

    Raises:
        UsageError: the template lacks a place, or both words begin with the same token.
    """

    def __init__(
        self, name: str, template: str = TEMPLATE, words: tuple[str, str] = ("A", "B"), batch: int = 16
    ) -> None:
        from polyathlon.envs.models import load_model, load_tokenizer

        for place in ("{prompt}", "{a}", "{b}"):
            if place not in template:
                raise UsageError(f"the template of a judge needs {place}, got {template!r}")
        self.name, self.template, self.batch = name, template, batch
        self.tokenizer, self.model = load_tokenizer(name), load_model(name)
        first = [self.tokenizer.encode(word, add_special_tokens=False)[:1] for word in words]
        if first[0] == first[1] or not all(first):
            raise UsageError(f"the words of a judge begin with different tokens, got {words!r}")
        self.ids = [ids[0] for ids in first]

    def judge(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> Sequence[float]:
        """Ask the model."""
        found: list[float] = []
        for i in range(0, len(prompts), self.batch):
            part = slice(i, i + self.batch)
            found += self._ask(prompts[part], a[part], b[part])
        return found

    def _ask(self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]) -> list[float]:
        import torch

        from polyathlon.envs.models import render_prompt

        rows = []
        for prompt, x, y in zip(prompts, a, b, strict=True):
            text = prompt if isinstance(prompt, str) else "\n\n".join(message["content"] for message in prompt)
            # at once: an answer that holds "{b}" would show the other one in its place
            parts, given = _PLACE.split(self.template), {"prompt": text, "a": x, "b": y}
            asked = "".join(given[part] if i % 2 else part for i, part in enumerate(parts))
            rows.append(render_prompt(self.tokenizer, [{"role": "user", "content": asked}]))
        longest = max(map(len, rows))
        tokens = torch.tensor([[*row, *[row[0]] * (longest - len(row))] for row in rows])
        length = torch.tensor(list(map(len, rows)))
        attention = (torch.arange(longest) < length[:, None]).long()
        with torch.no_grad():
            logits = self.model(input_ids=tokens, attention_mask=attention).logits
        last = logits[torch.arange(len(rows)), length - 1][:, self.ids].float()
        return [float(p) for p in last.softmax(-1)[:, 0]]

    def __str__(self) -> str:
        return f"the judge {self.name!r}"


def make_judge(judge: Any, task: LanguageTask | None = None) -> Judge:
    """Make a judge of whatever says one.

    Args:
        judge: a `Judge`; a function `f(prompts, a, b)`, also as "module:function"; the folder or hub name of a reward model;
            "density_ratio:STRONG,WEAK"; None takes the task's verdict.
        task: whose verdict it is.

    Raises:
        UsageError: it is none of these, or there is neither judge nor task.
    """
    if isinstance(judge, Judge):
        return judge
    if judge is None:
        if task is None:
            raise UsageError("there is no judge and no task whose verdict could be one: give judge=")
        return VerdictJudge(task)
    if isinstance(judge, str) and judge.startswith(DENSITY_RATIO):
        from polyathlon.envs.models.density_ratio import density_ratio_of

        return ScoreJudge(density_ratio_of(judge.removeprefix(DENSITY_RATIO)).score)
    if isinstance(judge, str) and ":" in judge and not Path(judge).expanduser().exists():
        judge = function_of(judge)
    if isinstance(judge, str | Path):
        from polyathlon.envs.models.scorers import TextScorer

        return ScoreJudge(TextScorer(str(judge), normalised=False).score)
    if callable(getattr(judge, "score", None)):
        return ScoreJudge(judge.score)
    if callable(judge):
        return FunctionJudge(judge)
    raise UsageError(
        f"a judge is a Judge, a function of (prompts, a, b), 'module:function', or the folder of a reward model, got {judge!r}"
    )


def function_of(path: str) -> Callable[..., Any]:
    """Import a function by "module:function".

    Raises:
        UsageError: there is no such function.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{path!r} is no function that can be imported here: {error}") from error
    if not callable(found):
        raise UsageError(f"{path!r} is {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
