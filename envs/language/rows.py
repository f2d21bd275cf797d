"""The episodes of one row of a language task, one after another."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .task import LanguageTask, TaskEpisode

TaskId = Hashable


def task_seed(seed: int, episode: int) -> np.random.Generator:
    """Return the generator that draws the task of a row's episode.

    Args:
        seed: the row's seed (the environment's seed + row).
        episode: index of the episode since that seed was given.
    """
    return np.random.default_rng((seed % (1 << 63), episode))


@dataclass
class Row:
    """A sequence of episodes: its seed, the index of the current episode, and the episode itself."""

    seed: int
    index: int = -1
    episode: TaskEpisode | None = None

    def reset(self, task: LanguageTask, given: bool, task_id: TaskId) -> TaskEpisode:
        """Begin the next episode: of the given task, or of one that depends on (seed, index)."""
        self.episode = task.start(self.next_task(task, given, task_id))
        return self.episode

    def next_task(self, task: LanguageTask, given: bool, task_id: TaskId) -> TaskId:
        """Move on to the next episode, and return the id of its task."""
        self.index += 1
        return task_id if given else task.draw(task_seed(self.seed, self.index))

    def get_state(self) -> dict[str, Any]:
        """Return the row as a plain dict."""
        state: dict[str, Any] = {"seed": self.seed, "index": self.index}
        if self.episode is not None:
            state.update(task=self.episode.task, answers=list(self.episode.answers))
            if self.episode.is_released:
                state["released"] = True
            if self.episode.failure is not None:
                state["failure"] = dict(self.episode.failure)
        return state

    @classmethod
    def from_state(cls, task: LanguageTask, state: dict[str, Any]) -> Row:
        """Return to a state that `get_state` gave, replaying the running episode."""
        row = cls(state["seed"], state["index"])
        if "task" in state:
            row.episode = task.start(state["task"])
            for text in state["answers"]:
                if not row.episode.over:
                    task.answer(row.episode, text)
            row.episode.failure = state.get("failure")
            if state.get("released") or row.episode.over:
                task.give_up(row.episode)
        return row
