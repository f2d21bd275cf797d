"""Rows of a text environment as copies of it: whatever wrappers stand on it, and whether or not it runs rows itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import episode_seed
from polyathlon.envs.tensor.copies import copy_env
from polyathlon.envs.tensor.rewards import checked_reward

Infos = list[dict[str, Any]]


def text_layers(env: gym.Env[Any, Any]) -> tuple[list[gym.Env[Any, Any]], gym.Env[Any, Any]]:
    """Return the wrappers that may change a text task, outermost first, and the task itself.

    The task is the first layer that runs rows by itself (`batch`), or else the innermost one.
    """
    changing: list[gym.Env[Any, Any]] = []
    layer: Any = env
    while isinstance(layer, gym.Wrapper) and not callable(getattr(type(layer), "batch", None)):
        if not isinstance(layer, OrderEnforcing | PassiveEnvChecker):
            changing.append(layer)
        layer = layer.env
    return changing, layer


def heard(env: gym.Env[Any, Any], text: str, info: dict[str, Any]) -> list[dict[str, str]]:
    """Return the conversation at the start of an episode, as the wrappers of a text task let it be heard.

    Args:
        env: the text environment with its wrappers.
        text: the first text that the outermost of them gives.
        info: its info; the task's own conversation is in "messages".
    """
    alone = [{"role": "user", "content": text}]
    messages = info.get("messages")
    changing, task = text_layers(env)
    if not messages or not changing:
        return messages or alone
    episode = getattr(getattr(task, "_row", None), "episode", None)
    own = getattr(episode, "observation", None)
    if text == own:
        return list(messages)
    if len(messages) == 1 or not own or own not in text:
        return alone
    # what was put around a text that several messages share stays around them
    before, _, after = text.partition(own)
    found = [dict(message) for message in messages]
    found[0]["content"] = before + found[0]["content"]
    found[-1]["content"] += after
    return found


class CopiedTexts:
    """n rows of a text environment, each a copy of it, with the methods of `LanguageBatch`.

    The id of a task is the seed of its episode: the environment must begin equal episodes at equal seeds. Row i begins its
    episode e at the seed that depends on (seed + i, e).

    Args:
        env: the scalar environment, which is not touched.
        n: number of rows.

    Raises:
        UsageError: `n` is not a positive integer, or the environment cannot be copied.
    """

    def __init__(self, env: gym.Env[Any, Any], n: int) -> None:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise UsageError(f"the number of rows must be a positive integer, got {n!r}")
        self.num_rows = int(n)
        self.envs = [copy_env(env) for _ in range(self.num_rows)]
        self._seeds = [int(s) for s in np.random.SeedSequence().generate_state(self.num_rows, np.uint32) >> 1]
        self._episodes = [-1] * self.num_rows
        self._starts: list[int | None] = [None] * self.num_rows
        self._said: list[list[str]] = [[] for _ in self.envs]

    def __len__(self) -> int:
        return self.num_rows

    @property
    def tasks(self) -> list[int | None]:
        """Seed of each row's episode; None before the row's first reset."""
        return list(self._starts)

    def select(self, rows: Sequence[int] | None) -> Sequence[int]:
        """Return the given rows, or all of them for None.

        Raises:
            UsageError: a row does not exist or is named twice.
        """
        chosen = list(range(self.num_rows)) if rows is None else [int(i) for i in rows]
        if len(set(chosen)) != len(chosen) or any(not 0 <= i < self.num_rows for i in chosen):
            raise UsageError(f"rows must be different numbers from 0 to {self.num_rows - 1}, got {chosen}")
        return chosen

    def reset(
        self,
        seed: int | Sequence[int] | None = None,
        tasks: Sequence[Any] | None = None,
        rows: Sequence[int] | None = None,
    ) -> tuple[list[str], Infos]:
        """Begin the next episode of some rows; see `LanguageBatch.reset`.

        Raises:
            UsageError: a list has the wrong length, or an environment begins differently at the same seed.
        """
        chosen = self.select(rows)
        for name, given in (("seed", seed), ("tasks", tasks)):
            if isinstance(given, Sequence) and len(given) != len(chosen):
                raise UsageError(f"{name} has {len(given)} entries for {len(chosen)} rows; give one for each row")
        texts: list[str] = []
        infos: Infos = []
        first: dict[int, str] = {}
        for k, i in enumerate(chosen):
            if seed is not None:
                self._seeds[i], self._episodes[i] = int(seed[k]) if isinstance(seed, Sequence) else int(seed) + i, -1
            self._episodes[i] += 1
            start = episode_seed(self._seeds[i], self._episodes[i]) if tasks is None else int(tasks[k])
            text, info = self._begin(i, start)
            if first.setdefault(start, text) != text:
                raise UsageError(
                    f"{self.envs[i].unwrapped} begins with {first[start][:60]!r} and with {text[:60]!r} at the same seed, so its "
                    "answers cannot be compared: draw everything random from self.np_random after super().reset(seed=seed)"
                )
            texts.append(text)
            infos.append(info)
        return texts, infos

    def _begin(self, i: int, start: int) -> tuple[str, dict[str, Any]]:
        self._starts[i], self._said[i] = start, []
        text, info = self.envs[i].reset(seed=start)
        return text, {**info, "messages": heard(self.envs[i], text, info)}

    def step(
        self, texts: Sequence[str], rows: Sequence[int] | None = None
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Answer in some rows; see `LanguageBatch.step`.

        Raises:
            UsageError: the number of answers is wrong, or a reward is no finite number.
        """
        chosen = self.select(rows)
        if isinstance(texts, str) or len(texts) != len(chosen):
            raise UsageError(f"got {len(texts)} answers for {len(chosen)} rows; give a list with one text for each row")
        steps = []
        for i, text in zip(chosen, texts, strict=True):
            self._said[i].append(text)
            said, reward, terminated, truncated, info = self.envs[i].step(text)
            steps.append((said, checked_reward(reward, self.envs[i]), terminated, truncated, info))
        return (
            [step[0] for step in steps],
            np.array([step[1] for step in steps], dtype=np.float32),
            np.array([step[2] for step in steps], dtype=np.bool_),
            np.array([step[3] for step in steps], dtype=np.bool_),
            [dict(step[4]) for step in steps],
        )

    def get_state(self) -> dict[str, Any]:
        """Return where every row is, as a plain dict for `set_state`: the seed of its episode and its answers."""
        return {
            "seeds": list(self._seeds),
            "episodes": list(self._episodes),
            "starts": list(self._starts),
            "said": [list(texts) for texts in self._said],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave, by answering again.

        Raises:
            UsageError: the state has another number of rows.
        """
        if len(state["seeds"]) != self.num_rows:
            raise UsageError(f"the state holds {len(state['seeds'])} rows, this batch has {self.num_rows}")
        self._seeds, self._episodes = list(state["seeds"]), list(state["episodes"])
        for i, start in enumerate(state["starts"]):
            if start is not None:
                self._begin(i, start)
                for text in state["said"][i]:
                    self.step([text], [i])
