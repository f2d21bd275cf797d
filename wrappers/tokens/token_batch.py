"""Many rows of a token task, one whole utterance at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

if TYPE_CHECKING:
    from polyathlon.envs.language import TaskId

    from .token_action import TokenAction


@dataclass
class TokenTurn:
    """What follows the utterances of k rows.

    Attributes:
        context: ids of each row so far, with what the environment wrote after the utterance.
        rewards: (k,) float32.
        terminated: (k,) bool.
        truncated: (k,) bool.
        infos: an info dict a row, as the scalar wrapper gives it, without "written_by_policy".
        written: for each row and id of `context`, whether the policy wrote it.
    """

    context: list[list[int]]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: list[dict[str, Any]]
    written: list[list[bool]]


class TokenBatch:
    """n environments of a `TokenAction` environment that take whole utterances, without autoreset.

    Args:
        env: the scalar wrapper; its rules and its task are used, its running episode is not touched.
        n: number of environments.

    Attributes:
        rules: the token rules, the same as the scalar wrapper's.
        infos: info dict of each row's last reset.
    """

    def __init__(self, env: TokenAction, n: int) -> None:
        self.rules = env.rules
        self.texts = env.task_batch(n)
        self.num_rows = len(self.texts)
        self._ids: list[list[int]] = [[] for _ in range(self.num_rows)]
        self._written: list[list[bool]] = [[] for _ in range(self.num_rows)]
        self._start = [-1] * self.num_rows
        self.infos: list[dict[str, Any]] = [{} for _ in range(self.num_rows)]

    def __len__(self) -> int:
        return self.num_rows

    @property
    def tasks(self) -> list[TaskId]:
        """Id of the task each row is in; None before the row's first reset."""
        return list(self.texts.tasks)

    def reset(
        self,
        seed: int | Sequence[int] | None = None,
        tasks: Sequence[TaskId] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """Begin the next episode of some rows.

        Args:
            seed: row i gets the seed `seed + i`; a list gives one seed for each of `rows`; None goes on.
            tasks: the task each of `rows` enters, for groups that share a start; None draws them.
            rows: which rows; None: all.

        Returns:
            For each of `rows` the ids of its prompt.

        Raises:
            UsageError: a list has the wrong length, a row does not exist, or a prompt leaves no room.
        """
        texts, infos = self.texts.reset(seed, tasks, rows)
        contexts = []
        for i, text, info in zip(self.texts.select(rows), texts, infos):
            ids = self.rules.prompt(info.get("messages") or [{"role": "user", "content": text}])
            self._ids[i], self._written[i] = ids, [False] * len(ids)
            self._start[i], self.infos[i] = len(ids), info
            contexts.append(list(ids))
        return contexts

    def room(self, rows: Sequence[int] | None = None) -> list[int]:
        """Return for each row how many tokens its next utterance may have; 0 where the episode is over."""
        starts = [self._start[i] for i in self.texts.select(rows)]
        return [0 if start < 0 else self.rules.limit(start) - start for start in starts]

    def step_utterance(self, ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> TokenTurn:
        """Write one whole utterance in each of some rows.

        Args:
            ids: for each of `rows` the ids of the utterance up to its end: the end token, a stop text, or `room` ids.
            rows: which rows; None: all.

        Raises:
            UsageError: an utterance has no end or goes beyond it, or a row is over.
        """
        chosen = self.texts.select(rows)
        if len(ids) != len(chosen):
            raise UsageError(f"got {len(ids)} utterances for {len(chosen)} rows; give one for each row")
        checked = [self._check(i, utterance) for i, utterance in zip(chosen, ids)]
        texts = [self.rules.text(utterance, end) for utterance, end in checked]
        said, rewards, terminated, truncated, infos = self.texts.step(texts, rows)
        for k, i in enumerate(chosen):
            utterance, end = checked[k]
            self._ids[i] += utterance
            self._written[i] += [True] * len(utterance)
            infos[k] = {**infos[k], "end": end, "text": texts[k]}
            if not (terminated[k] or truncated[k]) and not self._continue(i, said[k], end):
                truncated[k], infos[k]["context_full"] = True, True
            self._start[i] = -1 if terminated[k] or truncated[k] else len(self._ids[i])
        contexts, written = [list(self._ids[i]) for i in chosen], [list(self._written[i]) for i in chosen]
        return TokenTurn(contexts, rewards, terminated, truncated, infos, written)

    def _check(self, i: int, utterance: Sequence[int]) -> tuple[list[int], str]:
        if self._start[i] < 0:
            raise UsageError(f"row {i} has no running episode: call reset(rows=[{i}]) before the next utterance")
        ids = self.rules.check(utterance, self._start[i], f"row {i}: ")
        found = self.rules.first_end(ids, self._start[i])
        if found is None:
            raise UsageError(
                f"row {i}: the utterance of {len(ids)} tokens has no end. It ends with the end token {self.rules.eos}, "
                f"a stop text, or after {self.room([i])[0]} tokens"
            )
        return ids, found[1]

    def _continue(self, i: int, content: str, end: str) -> bool:
        added = self.rules.continuation(content, closed=end == "eos")
        if len(self._ids[i]) + len(added) >= self.rules.max_length:
            return False
        self._ids[i] += added
        self._written[i] += [False] * len(added)
        return True

    def get_state(self) -> dict[str, Any]:
        """Return where every row is, as a plain dict for `set_state`."""
        return {
            "ids": [list(ids) for ids in self._ids],
            "written": [list(written) for written in self._written],
            "start": list(self._start),
            "texts": self.texts.get_state(),
            "infos": copy.deepcopy(self.infos),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave.

        Raises:
            UsageError: the state has another number of environments.
        """
        if len(state["ids"]) != self.num_rows:
            raise UsageError(f"the state holds {len(state['ids'])} rows, this batch has {self.num_rows}")
        self.texts.set_state(state["texts"])
        self._ids = [list(ids) for ids in state["ids"]]
        self._written = [list(written) for written in state["written"]]
        self._start = list(state["start"])
        # states of earlier versions hold none
        self.infos = copy.deepcopy(state.get("infos") or [{} for _ in range(self.num_rows)])
