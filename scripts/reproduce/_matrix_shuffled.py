"""Rewards that say nothing of what was done: the control of the matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from polyathlon.envs.language import LanguageTask


class Shuffled:
    """Hands each episode the return of another one: of the first `room` seen, one drawn at random.

    Args:
        seed: of the draws.
        room: returns that are kept.
    """

    def __init__(self, seed: int = 0, room: int = 200) -> None:
        self._rng, self._room = np.random.default_rng(seed), room
        self._seen: list[Any] = []

    def __call__(self, value: Any) -> Any:
        """Keep a return and give back another."""
        if len(self._seen) < self._room:
            self._seen.append(value)
        return self._seen[int(self._rng.integers(len(self._seen)))]


class ShuffledReward(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Pays 0 in every step and at an episode's end the return of another episode, so that no action is better than another.

    Of a task in words the verdict's reward is replaced, since its rows are played without wrappers: each answer is paid 0 and the
    last one another episode's return.

    Args:
        env: the environment.
        seed: of the draws.
    """

    def __init__(self, env: gym.Env[Any, Any], seed: int = 0) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, seed=seed)
        gym.Wrapper.__init__(self, env)
        self._shuffled, self._total = Shuffled(seed), np.zeros(())
        self.speaks = isinstance(env.unwrapped, LanguageTask)
        if self.speaks:
            _shuffle_verdicts(env.unwrapped, self._shuffled)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._total = np.zeros(())
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act, and be paid nothing or another episode's return."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.speaks:
            return observation, reward, terminated, truncated, info
        self._total = self._total + np.asarray(reward, np.float64)
        paid = np.asarray(self._shuffled(self._total) if terminated or truncated else 0.0 * self._total, np.float32)
        return observation, (paid if paid.ndim else float(paid)), terminated, truncated, info


def _shuffle_verdicts(task: Any, shuffled: Shuffled) -> None:
    judge, refuse = task.judge, task.refuse

    def replaced(ask: Any) -> Any:
        def judged(episode: Any, text: str) -> Any:
            reply = ask(episode, text)
            total = getattr(episode, "_paid", 0.0) + reply.reward
            episode._paid = total
            last = reply.terminated or (task.max_turns is not None and len(episode.answers) + 1 >= task.max_turns)
            return reply._replace(reward=shuffled(total) if last else 0.0 * total)

        return judged

    task.judge, task.refuse = replaced(judge), replaced(refuse)


def register_shuffled(env_id: str) -> None:
    """Make every environment of an id, in this process, pay shuffled rewards."""
    spec = gym.registry[env_id]
    wrapper = gym.envs.registration.WrapperSpec("ShuffledReward", f"{__name__}:ShuffledReward", {"seed": 0})
    gym.registry[env_id] = replace(spec, additional_wrappers=(*spec.additional_wrappers, wrapper))
