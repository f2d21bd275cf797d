"""How an off-policy agent makes minibatches and disturbs its actions, by SB3's words."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.agents.parts.action_noise import RowNoise, noise_words
from polyathlon.agents.parts.hindsight import ACHIEVED, HerReplayBuffer, refuse_other_goals
from polyathlon.agents.parts.n_step_returns import NStepReturns
from polyathlon.agents.parts.parts_replay import PartsReplay
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.streams.goals import goal_rewards, refuse_no_rewards

from .sb3_words import read_replay_words


class Samplers:
    """Part of an off-policy agent: `action_noise`, `n_steps`, `replay_buffer_class` and `replay_buffer_kwargs`.

    Attributes:
        action_noise: noise for the actions of every environment; None for none.
        n_steps: steps of a return.
    """

    env: Any
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    device: torch.device
    gamma: float
    n_envs: int
    register_state: Any
    action_noise: Any
    n_steps: int
    replay_buffer_class: Any
    replay_buffer_kwargs: dict[str, Any] | None
    _noise_words: dict[str, Any]  # what files hold of them
    _replay_words: dict[str, Any]

    def _setup_noise(self) -> None:
        """Read SB3's noise, or make that of the agent's file again."""
        if self.action_noise is not None:
            assert isinstance(self.action_space, spaces.Box)
            self._noise_words = noise_words(self.action_noise, self.action_space, self.n_envs)
        self.action_noise = RowNoise(self.device, **self._noise_words) if self._noise_words else None
        if self.action_noise is not None:
            self.register_state("action_noise", self.action_noise, checkpoint_only=True)

    def _setup_sampling(self) -> None:
        """Read which minibatches are wanted.

        Raises:
            UsageError: they cannot be made of this environment.
        """
        if self.replay_buffer_class is not None or self.replay_buffer_kwargs is not None:
            words = read_replay_words(self.replay_buffer_class, self.replay_buffer_kwargs, self.n_steps, self.gamma)
            self.n_steps = words.pop("n_steps", self.n_steps)
            self._replay_words = words
        if self._replay_words:
            refuse_other_goals(type(self).__name__, self.observation_space)
            if self.env is not None:
                refuse_no_rewards(self.env)

    def _room(self, buffer_size: int) -> int:
        """Return how many transitions the memory holds: with goals in hindsight whole steps of all environments, as in SB3."""
        return max(buffer_size // self.n_envs, 1) * self.n_envs if self._replay_words else buffer_size

    def _sampled(self, replay: Replay, is_own: bool = True) -> Replay:
        """Let the agent's words say how minibatches of a memory are made.

        Args:
            replay: the memory.
            is_own: it holds what the agent met, from goals in hindsight can be made.
        """
        replay.stride = self.n_envs
        if self.n_steps > 1:
            replay.sampler = NStepReturns(self.n_steps, self.gamma)
        elif self._replay_words and is_own:
            assert isinstance(replay, PartsReplay) and isinstance(self.observation_space, spaces.Dict)
            goals: Any = self.observation_space[ACHIEVED]
            HerReplayBuffer(**self._replay_words).join(replay, self.n_envs, goals, self._goal_rewards)
        return replay

    def _goal_rewards(self, achieved: Tensor, desired: Tensor, infos: list[dict[str, Any]]) -> Tensor:
        return goal_rewards(self.env, achieved, desired, infos)
