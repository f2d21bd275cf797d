"""Right and wrong answers to questions: from records in a file, or from any language task that can tell them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from polyathlon.envs.data.record_files import open_rows
from polyathlon.envs.errors import UsageError, check_options, constructor_keywords, unknown_name
from polyathlon.envs.language import LanguageTask, TaskId

from .near_numbers import near_numbers

TRIES = 64  # draws of other problems in search of a wrong answer


def read_records(path: str | Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Read records of any form that `polyathlon.envs.data.record_files` opens, into memory.

    Args:
        path: the file.
        needed: keys that each record has.

    Raises:
        UsageError: there is no such file, a line is no record, or a key is missing; the message names the line.
        ImportError: pyarrow is needed and not installed.
    """
    found = open_rows(path)
    rows = [found[i] for i in range(len(found))]
    for i, row in enumerate(rows):
        for key in needed:
            if key not in row:
                raise unknown_name(f"{found.unit} {found.number(i)} of {found.name!r}: it lacks the key", key, row)
    if not rows:
        raise UsageError(f"{found.name} holds no records: give at least one")
    return rows


def as_text(value: Any, what: str, number: int) -> str:
    """Return a value of a record as text, a number too.

    Args:
        value: the value.
        what: its key, for the message.
        number: of the record, from 1.

    Raises:
        UsageError: it is neither, such as a picture or a message of several parts.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise UsageError(
        f"record {number}: {what} must be a text or a number, got {str(value)[:80]!r}; language models of this package read texts alone"
    )


def _made(env_id: str, options: Mapping[str, Any]) -> gym.Env[str, str]:
    """Make a task from its id.

    Raises:
        UsageError: there is no such id, or it does not take an option.
    """
    try:
        made = gym.spec(env_id).entry_point
    except gym.error.UnregisteredEnv as error:
        raise UsageError(f"task={env_id!r} is no id of an environment (polyathlon envs lists them): {error}") from error
    creator = load_env_creator(made) if isinstance(made, str) else made
    if isinstance(creator, type):
        known = constructor_keywords(creator) | {"max_episode_steps", "disable_env_checker"}
        for word in options:
            if word not in known:
                raise unknown_name(f"option of {env_id} in task_kwargs", word, known)
    return gym.make(env_id, **options)


class AnswerSource:
    """Questions of a language task with right and wrong answers; whether an answer is right is the task's own verdict.

    Args:
        task: the task, or the id of one.
        options: options of the task that an id names.

    Raises:
        UsageError: it is no language task, or it gives no right answers.
    """

    def __init__(self, task: str | gym.Env[str, str], options: Mapping[str, Any] | None = None) -> None:
        check_options(task_kwargs=options)
        if isinstance(task, str):
            task = _made(task, options or {})
        elif options:
            raise UsageError("task_kwargs belong to the id of a task; this one is made already")
        inner = getattr(task, "unwrapped", None)
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
        """Return different wrong answers: near numbers, those that the task offers, then right answers to other problems.

        Raises:
            UsageError: not so many were found.
        """
        right = self.right(task_id)
        found: dict[str, None] = {}
        for text in self._texts(task_id, right, rng):
            if text is not None and text != right and text not in found and not self.is_right(task_id, text):
                found[text] = None
            if len(found) == number:
                return list(found)
        raise UsageError(
            f"the task {task_id!r} has {len(found)} wrong answers to show, not {number}: ask for fewer options"
        )

    def _texts(self, task_id: TaskId, right: str, rng: np.random.Generator) -> Iterator[str | None]:
        yield from near_numbers(right, rng)
        yield from self.task.candidates(self.task.start(task_id))
        for _ in range(TRIES):
            yield self.task.solution(self.task.draw(rng))
