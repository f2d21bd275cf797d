"""Right and wrong answers to questions: from records in a file, or from any language task that can tell them apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.errors import UsageError, require, unknown_name
from polyathlon.envs.language import LanguageTask, TaskId

TRIES = 64  # draws of other problems in search of a wrong answer


def read_records(path: str | Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Read records from a file of JSON lines, or a parquet file.

    Args:
        path: the file; a name that ends in .parquet is read with pyarrow.
        needed: keys that each record has.

    Raises:
        UsageError: there is no such file, a line is no record, or a key is missing; the message names the line.
        ImportError: pyarrow is not installed.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UsageError(
            f"there is no file {str(path)!r}: give JSON lines or a parquet file of records with {list(needed)}"
        )
    if file.suffix == ".parquet":
        rows = require("pyarrow.parquet", "parquet").read_table(file).to_pylist()
    else:
        rows = [
            _record(line, file, i) for i, line in enumerate(file.read_text("utf-8").splitlines(), 1) if line.strip()
        ]
    if not rows:
        raise UsageError(f"{str(path)!r} holds no records")
    for i, row in enumerate(rows, 1):
        for key in needed:
            if row.get(key) is None:
                raise unknown_name(f"record {i} of {str(path)!r}: it lacks the key", key, row)
    return rows


def _record(line: str, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"line {number} of {str(file)!r} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise UsageError(f"line {number} of {str(file)!r} is no record: write {{...}} on each line")
    return row


class AnswerSource:
    """Questions of a language task with right and wrong answers; whether an answer is right is the task's own verdict.

    Args:
        task: the task, or the id of one.
        options: options of the task that an id names.

    Raises:
        UsageError: it is no language task, or it gives no right answers.
    """

    def __init__(self, task: str | gym.Env[str, str], options: Mapping[str, Any] | None = None) -> None:
        if isinstance(task, str):
            task = gym.make(task, **dict(options or {}))
        elif options:
            raise UsageError("task_kwargs belong to the id of a task; this one is made already")
        inner = task.unwrapped
        if not isinstance(inner, LanguageTask):
            raise UsageError(f"right and wrong answers come from a language task, got {task}")
        if type(inner).solution is LanguageTask.solution:
            raise UsageError(
                f"{task} knows no right answers (it has no solution(task_id)), so none can be shown beside wrong ones"
            )
        self.task = inner

    def question(self, task_id: TaskId) -> str:
        """Return the text that asks."""
        return self.task.begin(task_id).observation

    def right(self, task_id: TaskId) -> str:
        """Return a right answer.

        Raises:
            UsageError: the task knows none.
        """
        answer = self.task.solution(task_id)
        if answer is None:
            raise UsageError(f"the task {task_id!r} has no right answer that could be shown")
        return answer

    def is_right(self, task_id: TaskId, text: str) -> bool:
        """Ask the task."""
        return self.task.judge(self.task.start(task_id), text).verdict.correct

    def wrong(self, task_id: TaskId, rng: np.random.Generator, number: int = 1) -> list[str]:
        """Return different wrong answers: those that the task offers, near numbers, then right answers to other problems.

        Raises:
            UsageError: not so many were found.
        """
        right = self.right(task_id)
        offered = list(self.task.candidates(self.task.start(task_id))) + _near_numbers(right, rng)
        found: dict[str, None] = {}
        for k in range(len(offered) + TRIES):
            text = offered[k] if k < len(offered) else self.task.solution(self.task.draw(rng))
            if text is not None and text != right and text not in found and not self.is_right(task_id, text):
                found[text] = None
            if len(found) == number:
                return list(found)
        raise UsageError(
            f"the task {task_id!r} has {len(found)} wrong answers to show, not {number}: ask for fewer options"
        )


def _near_numbers(right: str, rng: np.random.Generator) -> list[str]:
    """Return numbers near a right answer that is a whole number, in a random order."""
    if not right.lstrip("-").isdecimal():
        return []
    steps = [-10, -2, -1, 1, 2, 10, 100]
    return [str(int(right) + steps[i]) for i in rng.permutation(len(steps))]
