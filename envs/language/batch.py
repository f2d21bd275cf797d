"""Many rows of a language task at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError, check_positive_int

from .rows import Row, TaskId
from .task import LanguageTask, TaskEpisode, conversation

Infos = list[dict[str, Any]]


class LanguageBatch:
    """n independent rows of a language task, without Gymnasium's overhead and without autoreset.

    Row i draws, in its episode e, the task that depends on (seed + i, e): what a scalar environment with the seed
    `seed + i` would draw.

    Args:
        task: the task.
        n: number of environments.

    Raises:
        UsageError: `n` is not a positive integer.
    """

    def __init__(self, task: LanguageTask, n: int) -> None:
        check_positive_int(n=n)
        self.task = task
        self.num_rows = int(n)
        self._rows: list[Row] | None = None

    def __len__(self) -> int:
        return self.num_rows

    @property
    def tasks(self) -> list[TaskId]:
        """Id of the task each row is in; None before the row's first reset."""
        rows = self._rows or []
        return [None if row.episode is None else row.episode.task for row in rows] or [None] * self.num_rows

    def reset(
        self,
        seed: int | Sequence[int] | None = None,
        tasks: Sequence[TaskId] | None = None,
        rows: Sequence[int] | None = None,
    ) -> tuple[list[str], Infos]:
        """Begin the next episode of some rows.

        Args:
            seed: row i gets the seed `seed + i`; a list gives one seed for each of `rows`; None goes on.
            tasks: the task each of `rows` enters; None draws them.
            rows: which rows; None: all.

        Returns:
            For each of `rows` the first text, and an info dict with "task" and "messages".

        Raises:
            UsageError: a list has the wrong length, or a row does not exist.
        """
        chosen = self.select(rows)
        for name, given in (("seed", seed), ("tasks", tasks)):
            if isinstance(given, Sequence) and not isinstance(given, str) and len(given) != len(chosen):
                raise UsageError(f"{name} has {len(given)} entries for {len(chosen)} rows; give one for each row")
        if self._rows is None:
            first = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> np.uint64(1))
            self._rows = [Row(first + i) for i in range(self.num_rows)]
        self.give_up(chosen)
        if seed is not None:
            for k, i in enumerate(chosen):
                self._rows[i] = Row(int(seed[k]) if isinstance(seed, Sequence) else int(seed) + i)
        entered = [None] * len(chosen) if tasks is None else list(tasks)
        ids = [self._rows[i].next_task(self.task, tasks is not None, own) for i, own in zip(chosen, entered)]
        self.task.prepare_starts(ids)
        texts, infos = [], []
        for i, task_id in zip(chosen, ids):
            episode = self._rows[i].episode = self.task.start(task_id)
            texts.append(episode.observation)
            infos.append(conversation(episode))
        return texts, infos

    def step(
        self, texts: Sequence[str], rows: Sequence[int] | None = None
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Answer in some rows.

        Args:
            texts: one answer for each of `rows`.
            rows: which rows; None: all.

        Returns:
            For each of `rows`: the next text, reward (k,) float32, or (k, objectives), terminated (k,), truncated (k,), and an info dict
            with "verdict", "messages", "episode_log" and "task"; "failure" where the episode broke outside the policy.

        Raises:
            TypeError: an answer is not a string.
            UsageError: a row was not reset or is over, or the number of answers is wrong.
        """
        chosen = self.select(rows)
        if isinstance(texts, str) or len(texts) != len(chosen):
            raise UsageError(f"got {len(texts)} answers for {len(chosen)} rows; give a list with one text for each row")
        episodes = [self._episode(i) for i in chosen]
        self.task.prepare(list(zip(episodes, texts)))
        outcomes = [self.task.answer(episode, text) for episode, text in zip(episodes, texts)]
        self.give_up([i for i, episode in zip(chosen, episodes) if episode.over])
        return (
            [outcome.observation for outcome in outcomes],
            np.array([outcome.reward for outcome in outcomes], dtype=np.float32),
            np.array([outcome.terminated for outcome in outcomes], dtype=np.bool_),
            np.array([outcome.truncated for outcome in outcomes], dtype=np.bool_),
            [outcome.info for outcome in outcomes],
        )

    def give_up(self, rows: Sequence[int] | None = None) -> None:
        """End the episodes of some rows where they are, so that the task has back what they hold.

        Args:
            rows: which rows; None: all.

        Raises:
            UsageError: a row does not exist.
        """
        for i in self.select(rows) if self._rows is not None else ():
            self.task.give_up(self._rows[i].episode)  # type: ignore[index]

    def close(self) -> None:
        """Give up all rows."""
        self.give_up()

    def select(self, rows: Sequence[int] | None) -> Sequence[int]:
        """Return the given rows, or all of them for None.

        Raises:
            UsageError: a row does not exist or is named twice.
        """
        if rows is None:
            return range(self.num_rows)
        chosen = [int(i) for i in rows]
        if len(set(chosen)) != len(chosen) or any(not 0 <= i < self.num_rows for i in chosen):
            raise UsageError(f"rows must be different numbers from 0 to {self.num_rows - 1}, got {chosen}")
        return chosen

    def episode(self, i: int) -> TaskEpisode:
        """Return the episode that a row is in.

        Raises:
            UsageError: the row had no reset yet.
        """
        found: TaskEpisode = self._episode(i)
        return found

    def _episode(self, i: int) -> Any:
        episode = None if self._rows is None else self._rows[i].episode
        if episode is None:
            raise UsageError(f"row {i} has no episode yet: call reset before step")
        return episode

    def get_state(self) -> dict[str, Any]:
        """Return where every row is, as a plain dict for `set_state`."""
        return {"rows": None if self._rows is None else [row.get_state() for row in self._rows]}

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave.

        Raises:
            UsageError: the state has another number of environments.
        """
        rows = state["rows"]
        if rows is not None and len(rows) != self.num_rows:
            raise UsageError(f"the state holds {len(rows)} rows, this batch has {self.num_rows}")
        self.give_up()
        self.task.prepare_starts([row["task"] for row in rows or () if "task" in row])
        self._rows = None if rows is None else [Row.from_state(self.task, row) for row in rows]
