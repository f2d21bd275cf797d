"""Rows of a token task with every wrapper that stands around it, one whole utterance at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import episode_seed
from polyathlon.envs.tensor.copies import changing_wrappers, copy_env
from polyathlon.envs.tensor.rewards import checked_reward

from .token_action import TokenAction
from .token_batch import TokenBatch, TokenTurn


def outer_wrappers(env: gym.Env[Any, Any]) -> list[gym.Env[Any, Any]]:
    """Return the wrappers outside `TokenAction` that may change observations, rewards or ends, outermost first."""
    return changing_wrappers(env, TokenAction)


def token_rows(env: gym.Env[Any, Any], n: int) -> TokenBatch | CopiedTokens:
    """Return n rows of a token task that take whole utterances, with all wrappers of the user's.

    Args:
        env: a `TokenAction` environment, with or without wrappers around it.
        n: number of rows.

    Raises:
        UsageError: a wrapper outside `TokenAction` would cut utterances; the message names it.
    """
    outer = outer_wrappers(env)
    for layer in outer:
        if isinstance(layer, TimeLimit):
            raise UsageError(
                "TimeLimit outside TokenAction counts tokens and would cut utterances: put it under TokenAction, where it "
                "counts answers, or set max_new_tokens"
            )
    layer = env
    while isinstance(layer, gym.Wrapper) and not isinstance(layer, TokenAction):
        layer = layer.env
    if not isinstance(layer, TokenAction):
        raise UsageError(f"{env} has no TokenAction wrapper: use polyathlon.wrappers.TokenAction")
    return CopiedTokens(env, n, [type(wrapper).__name__ for wrapper in outer]) if outer else layer.batch(n)


class CopiedTokens:
    """n copies of a wrapped token task with the methods of `TokenBatch`; an utterance is stepped token by token.

    The id of a task is the seed of its episode, as in `CopiedTexts`.

    Args:
        env: the scalar environment, which is not touched.
        n: number of rows.
        names: names of the wrappers outside `TokenAction`, for messages.
    """

    def __init__(self, env: gym.Env[Any, Any], n: int, names: Sequence[str]) -> None:
        self.envs = [copy_env(env) for _ in range(n)]
        self.num_rows, self.names = n, ", ".join(names)
        self.rules = self.envs[0].get_wrapper_attr("rules")
        self.infos: list[dict[str, Any]] = [{} for _ in self.envs]
        self._seeds = [int(s) for s in np.random.SeedSequence().generate_state(n, np.uint32) >> 1]
        self._episodes = [-1] * n
        self._starts: list[int | None] = [None] * n
        self._ids: list[list[int]] = [[] for _ in self.envs]
        self._acted: list[list[int]] = [[] for _ in self.envs]

    def __len__(self) -> int:
        return self.num_rows

    @property
    def tasks(self) -> list[int | None]:
        """Seed of each row's episode; None before the row's first reset."""
        return list(self._starts)

    def reset(
        self,
        seed: int | Sequence[int] | None = None,
        tasks: Sequence[Any] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """Begin the next episode of some rows; see `TokenBatch.reset`.

        Raises:
            UsageError: the environment begins differently at the same seed.
        """
        chosen = list(range(self.num_rows)) if rows is None else list(rows)
        first: dict[int, list[int]] = {}
        for k, i in enumerate(chosen):
            if seed is not None:
                self._seeds[i], self._episodes[i] = int(seed[k]) if isinstance(seed, Sequence) else int(seed) + i, -1
            self._episodes[i] += 1
            start = episode_seed(self._seeds[i], self._episodes[i]) if tasks is None else int(tasks[k])
            self._begin(i, start)
            if first.setdefault(start, self._ids[i]) != self._ids[i]:
                raise UsageError(
                    f"{self.envs[i].unwrapped} begins differently at the same seed, so its answers cannot be compared: draw "
                    "everything random from self.np_random after super().reset(seed=seed)"
                )
        return [list(self._ids[i]) for i in chosen]

    def _begin(self, i: int, start: int) -> None:
        self._starts[i], self._acted[i] = start, []
        observation, self.infos[i] = self.envs[i].reset(seed=start)
        self._ids[i] = _context(observation)

    def step_utterance(self, ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> TokenTurn:
        """Write one whole utterance in each of some rows; its reward is the sum over its tokens.

        Raises:
            UsageError: a wrapper changes the tokens, or ends the episode within an utterance.
        """
        chosen = list(range(self.num_rows)) if rows is None else list(rows)
        steps = [self._utter(i, utterance) for i, utterance in zip(chosen, ids, strict=True)]
        return TokenTurn(
            [list(self._ids[i]) for i in chosen],
            np.array([step[0] for step in steps], dtype=np.float32),
            np.array([step[1] for step in steps], dtype=np.bool_),
            np.array([step[2] for step in steps], dtype=np.bool_),
            [step[3] for step in steps],
            [step[4] for step in steps],
        )

    def _utter(self, i: int, utterance: Sequence[int]) -> tuple[float, bool, bool, dict[str, Any], list[bool]]:
        env, total = self.envs[i], 0.0
        for k, token in enumerate(utterance):
            observation, reward, terminated, truncated, info = env.step(np.int64(token))
            total += checked_reward(reward, env)
            self._acted[i].append(int(token))
            if k + 1 < len(utterance) and (terminated or truncated or "end" in info):
                raise UsageError(
                    f"{self.names} outside TokenAction ended an utterance within it: put it under TokenAction"
                )
        context = _context(observation)
        if context[: len(self._ids[i]) + len(utterance)] != [*self._ids[i], *utterance]:
            raise UsageError(f"{self.names} outside TokenAction changes the tokens: put what changes texts under it")
        self._ids[i] = context
        written = [bool(own) for own in info.get("written_by_policy", ())[: len(context)]]
        return (
            total,
            bool(terminated),
            bool(truncated),
            {k: v for k, v in info.items() if k != "written_by_policy"},
            written,
        )

    def get_state(self) -> dict[str, Any]:
        """Return where every row is, as a plain dict for `set_state`: the seed of its episode and its tokens."""
        return {
            "seeds": list(self._seeds),
            "episodes": list(self._episodes),
            "starts": list(self._starts),
            "acted": [list(ids) for ids in self._acted],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state that `get_state` gave, by writing again.

        Raises:
            UsageError: the state has another number of rows.
        """
        if len(state["seeds"]) != self.num_rows:
            raise UsageError(f"the state holds {len(state['seeds'])} rows, this batch has {self.num_rows}")
        self._seeds, self._episodes = list(state["seeds"]), list(state["episodes"])
        for i, start in enumerate(state["starts"]):
            if start is not None:
                self._begin(i, start)
                for token in state["acted"][i]:
                    observation, *_, self.infos[i] = self.envs[i].step(np.int64(token))
                    self._acted[i].append(token)
                    self._ids[i] = _context(observation)


def _context(observation: Any) -> list[int]:
    return [int(i) for i in observation["tokens"][: int(observation["length"])]]
