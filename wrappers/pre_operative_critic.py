"""Operations on a page that a critic judges before they are carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from polyathlon.envs.errors import UsageError, check_int
from polyathlon.envs.gui.calls import CallError, read_call
from polyathlon.envs.gui.critic import critic_prompt, read_judgement

Critic = Callable[[str], str]


class PreOperativeCritic(gym.Wrapper[str, str, str, str], RecordConstructorArgs):
    """Asks a critic about every operation; one that it calls incorrect is replaced before it is carried out.

    *Look Before You Leap* (GUI-Critic-R1, NeurIPS 2025): propose, judge, replace by the critic's suggestion (or resample with
    it) at most `max_revisions` times, carry out. `info["critic"]` holds the judgements of the step, each with "operation",
    "score" (True, False or None where the critic named none) and "suggestion"; `info["operation"]` what was carried out.

    Args:
        env: `polyathlon/Web-v0` in words.
        critic: what it is given (see `critic_prompt`) -> its answer: a function, or an agent with `predict(text)`.
        resample: (observation, operation, suggestion) -> another operation; None takes the suggestion.
        max_revisions: most replacements of one operation.

    Raises:
        UsageError: the environment is no page in words, or a number is out of range.
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        critic: Critic | Any,
        resample: Callable[[str, str, str | None], str] | None = None,
        max_revisions: int = 2,
    ) -> None:
        RecordConstructorArgs.__init__(self, critic=critic, resample=resample, max_revisions=max_revisions)
        gym.Wrapper.__init__(self, env)
        check_int(1, max_revisions=max_revisions)
        if type(env.unwrapped).__name__ != "WebTask":
            raise UsageError(f"PreOperativeCritic judges operations on a page in words (polyathlon/Web-v0), got {env}")
        self._critic = critic if callable(critic) else lambda text: _predicted(critic, text)
        self._resample, self.max_revisions = resample, int(max_revisions)
        self._observation = ""
        self._history: list[str] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._history = []
        return self._observation, info

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        """Have an operation judged, perhaps replaced, and carry it out."""
        look = self.env.get_wrapper_attr("current_look")()
        told: list[dict[str, Any]] = []
        operation = action
        for _ in range(self.max_revisions + 1):
            said = read_judgement(self._critic(critic_prompt(look["goal"], self._history, look, operation)))
            told.append({"operation": operation, "score": said.is_correct, "suggestion": said.suggestion})
            if said.is_correct is not False or len(told) > self.max_revisions:
                break
            operation = self._revised(operation, said.suggestion)
        self._history.append(operation)
        self._observation, reward, terminated, truncated, info = self.env.step(operation)
        return self._observation, reward, terminated, truncated, {**info, "critic": told, "operation": operation}

    def _revised(self, operation: str, suggestion: str | None) -> str:
        if self._resample is not None:
            return self._resample(self._observation, operation, suggestion)
        try:
            return str(read_call(suggestion or ""))
        except CallError:
            return operation


def _predicted(agent: Any, text: str) -> str:
    answer = agent.predict(text)
    return str(answer[0] if isinstance(answer, tuple) else answer)
