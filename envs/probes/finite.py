"""A finite task of a fixed horizon whose values are exact: transitions, rewards and a start as tables."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError, check_positive_int


class FiniteTask(gym.Env[int, int]):
    """A Markov decision process in tables, as a Gymnasium environment.

    Observation: the state, Discrete(S). Action: Discrete(A). An episode is terminated after `horizon` steps.

    Args:
        transitions: P(s' | s, a) [S, A, S].
        rewards: r(s, a) [S, A].
        horizon: H, steps of an episode.
        start: distribution of the first state [S].

    Raises:
        UsageError: shapes do not fit, or a row is no distribution.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, transitions: Any, rewards: Any, horizon: int, start: Any) -> None:
        check_positive_int(horizon=horizon)
        self.transitions, self.rewards = np.asarray(transitions, np.float64), np.asarray(rewards, np.float64)
        self.start, self.horizon = np.asarray(start, np.float64), int(horizon)
        states, actions = self.rewards.shape if self.rewards.ndim == 2 else (0, 0)
        if not states or self.transitions.shape != (states, actions, states) or self.start.shape != (states,):
            raise UsageError(
                f"a finite task has transitions [S, A, S], rewards [S, A] and a start [S], got {self.transitions.shape}, "
                f"{self.rewards.shape}, {self.start.shape}"
            )
        for name, rows in (("transitions", self.transitions), ("start", self.start)):
            if not ((rows >= 0).all() and np.allclose(rows.sum(-1), 1)):
                raise UsageError(f"{name}: every row must hold probabilities that sum to 1")
        self.observation_space: gym.Space[Any] = spaces.Discrete(states)
        self.action_space: gym.Space[Any] = spaces.Discrete(actions)
        self.state, self.t = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Draw the first state."""
        super().reset(seed=seed)
        self.state, self.t = int(self.np_random.choice(len(self.start), p=self.start)), 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Draw the next state."""
        reward = float(self.rewards[self.state, action])
        self.state = int(self.np_random.choice(len(self.start), p=self.transitions[self.state, action]))
        self.t += 1
        return self.state, reward, self.t >= self.horizon, False, {}

    def value(self, policy: Any) -> float:
        """Return the exact expected return of a policy [H, S, A]."""
        value = np.zeros(len(self.start))
        for pi in np.asarray(policy, np.float64)[::-1]:
            value = (pi * (self.rewards + self.transitions @ value)).sum(-1)
        return float(self.start @ value)

    def best_value(self) -> float:
        """Return the largest expected return of any policy."""
        value = np.zeros(len(self.start))
        for _ in range(self.horizon):
            value = (self.rewards + self.transitions @ value).max(-1)
        return float(self.start @ value)


def chain(states: int = 10, horizon: int = 12, slip: float = 0.2) -> FiniteTask:
    """Return a chain whose far end pays 1 for staying: action 1 goes right, 0 left; with probability `slip` the other way.

    Args:
        states: number of states; the first is the start.
        horizon: steps of an episode.
        slip: probability that a step goes the other way.
    """
    transitions = np.zeros((states, 2, states))
    for s in range(states):
        ends = max(0, s - 1), min(states - 1, s + 1)
        for a in range(2):
            transitions[s, a, ends[a]] += 1 - slip
            transitions[s, a, ends[1 - a]] += slip
    rewards = np.zeros((states, 2))
    rewards[-1, 1] = 1.0
    return FiniteTask(transitions, rewards, horizon, np.eye(states)[0])
