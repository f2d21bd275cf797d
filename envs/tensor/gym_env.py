"""A tensor task as a Gymnasium environment: a batch of one, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import UsageError, check_positive_int, unknown_name

from .base import TensorEnv
from .engine import Engine
from .goals import goal_reward
from .output import actor_reward, collect_info, row_of, to_numpy
from .rewards import reward_space_of
from .rules import read_action
from .vector_env import check_render_mode, current_mask, pays_objectives, player_space


class TensorGymEnv(gym.Env[Any, Any]):
    """One row of a tensor task.

    In games the agent moves for every player: the reward is that of the player who moved (the first player's where all
    move at once), `info["rewards"]` has everybody's and `info["player"]` tells who is to move.

    Args:
        task: the dynamics.
        render_mode: a render mode of the task.
        on_illegal: what an action does that the mask forbids: None for what the task says ("terminate" the episode with its
            penalty, or "replace" the action), or "raise" an error.
        max_episode_steps: steps after which an episode is cut; None for the task's own limit. `gym.make` keeps an
            argument of this name to itself: it can shorten an episode, not lengthen it.

    Raises:
        UsageError: an argument is outside what is allowed.
    """

    def __init__(
        self,
        task: TensorEnv,
        render_mode: str | None = None,
        on_illegal: str | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        choices = (task.on_illegal, "raise")
        if on_illegal is not None and on_illegal not in choices:
            raise unknown_name("value of on_illegal", str(on_illegal), choices)
        self.task = task
        self.on_illegal = on_illegal or task.on_illegal
        self.metadata = dict(task.metadata)
        self.render_mode = check_render_mode(task, render_mode)
        self.observation_space = task.observation_space
        self.action_space = player_space(task)
        if pays_objectives(task):
            self.reward_space = reward_space_of(task.reward_shape[0])
        self.max_episode_steps = task.max_episode_steps
        if max_episode_steps is not None:
            check_positive_int(max_episode_steps=max_episode_steps)
            self.max_episode_steps = int(max_episode_steps)
        self.engine = Engine(task, 1, self.max_episode_steps, AutoresetMode.DISABLED)

    @property
    def state(self) -> Any:
        """The state as a batch of one; None before the first reset."""
        return self.engine.state

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the first episode of `seed`, or without one the next episode.

        Args:
            seed: an integer of at least 0.
            options: the task's own.

        Raises:
            UsageError: the seed or an option is malformed.
        """
        observation = self.engine.reset(seed, options)
        super().reset(seed=seed)
        return row_of(to_numpy(observation), 0), self._info(None, None)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act.

        Returns:
            Observation, reward (a float; (k,) float32 for a vector reward), terminated, truncated and info.

        Raises:
            TypeError: the action is of another type.
            UsageError: it has another shape or is outside the space, it is forbidden and `on_illegal="raise"`, or
                there was no reset.
        """
        batch = read_action(self.task, 1, np.asarray(action)[None])
        player = None
        if self.engine.state is not None:
            self._refuse_illegal(batch)
            player = None if self.task.simultaneous else self.task.player(self.engine.state)
        outcome = self.engine.step(batch)
        reward = to_numpy(actor_reward(self.task, outcome.reward, player))[0]
        info = self._info(outcome.illegal, outcome.reward)
        observation = row_of(to_numpy(outcome.obs), 0)
        is_number = np.ndim(reward) == 0
        return (
            observation,
            float(reward) if is_number else reward,
            bool(outcome.terminated),
            bool(outcome.truncated),
            info,
        )

    def _refuse_illegal(self, batch: Any) -> None:
        mask = self.engine.mask
        if self.on_illegal != "raise" or mask is None or self.engine.has_ended:
            return
        in_range = (batch >= 0) & (batch < mask.shape[-1])
        counts = self.task.acting(self.engine.state) if self.task.simultaneous else in_range
        if bool(in_range.all()) and not bool((mask.gather(-1, batch.unsqueeze(-1)).squeeze(-1) | ~counts).all()):
            allowed_actions = [row.nonzero()[:, 0].tolist() for row in mask.reshape(-1, mask.shape[-1])]
            listed = ", ".join(str(item[:20]) for item in allowed_actions)
            raise UsageError(f"action {batch[0].tolist()} is not allowed now; allowed: {listed}")

    def _info(self, illegal: Any, reward: Any) -> dict[str, Any]:
        """Return the facts about the row, leaving out single numbers that are not known (NaN)."""
        info = collect_info(self.task, self.engine.state, self.engine.mask, illegal, reward)
        facts = {name: _plain(to_numpy(value)[0]) for name, value in info.items()}
        return {name: fact for name, fact in facts.items() if isinstance(fact, np.ndarray) or fact == fact}

    @property
    def compute_reward(self) -> Callable[[Any, Any, Any], Any]:
        """What goals pay, `compute_reward(achieved_goal, desired_goal, info)`; only goal tasks have it."""
        return goal_reward(self.task)

    def action_masks(self) -> np.ndarray:
        """Return the allowed actions, (A,) bool.

        Raises:
            UsageError: the actions are numbers of a Box.
        """
        return np.array(to_numpy(current_mask(self.task, self.engine))[0])

    def render(self) -> Any:
        """Draw the state, by `render_mode`; None without one."""
        if self.render_mode is None:
            return None
        if self.engine.state is None:
            raise UsageError("render() was called before reset(); call reset() first")
        draw = self.task.render_text if self.render_mode == "ansi" else self.task.render
        return draw(self.engine.state, 0)

    def get_state(self) -> dict[str, Any]:
        """Return a dict of tensors from which `set_state` continues bit for bit."""
        return self.engine.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned; see `Engine.set_state`."""
        self.engine.set_state(state)


def _plain(value: Any) -> Any:
    """Turn numpy scalars into Python's."""
    return value.item() if np.ndim(value) == 0 else np.array(value)
