"""A game on tensors as PettingZoo environments: in turns (AEC) and all at once (parallel)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from pettingzoo import AECEnv, ParallelEnv

from polyathlon.envs.errors import UsageError

from .base import TensorEnv
from .game_table import GameTable


def _describe(task: TensorEnv) -> dict[str, Any]:
    return {"name": type(task).__name__.lower(), "is_parallelizable": task.simultaneous, **task.metadata}


class TensorAECEnv(AECEnv[str, Any, Any]):
    """A game in PettingZoo's turn-based form.

    Where several players move at once, each who acts gives its action in seat order and the game moves with the last one. An observation
    of a game with masks is `{"observation": ..., "action_mask": int8}`.

    Args:
        task: a task with at least two players.
        render_mode: a render mode of the task.
        max_episode_steps: steps after which a game is cut; None for the task's own limit.

    Raises:
        UsageError: the task has one player, or no such render mode.
    """

    def __init__(self, task: TensorEnv, render_mode: str | None = None, max_episode_steps: int | None = None) -> None:
        super().__init__()
        self.table = GameTable(task, render_mode, max_episode_steps)
        self.metadata = _describe(task)
        self.render_mode = render_mode
        self.possible_agents = list(self.table.names)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.table.observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, task.action_space)
        self.places = {name: i for i, name in enumerate(self.possible_agents)}
        self.waits = self.table.waiting_mask(is_sampled=False)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent may do."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start the first game of `seed`, or without one the next game."""
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = self.table.infos()
        self._given: dict[int, Any] = {}
        self._select()

    def _select(self) -> None:
        """Ask the first of those who act and have not given their action."""
        left = [player for player in self.table.acting if player not in self._given]
        self.agent_selection = self.possible_agents[left[0] if left else 0]

    def observe(self, agent: str) -> Any:
        """Return what an agent sees now; its mask is 0 where it does not act."""
        return self.table.observe(self.places[agent], self.waits)

    def step(self, action: Any) -> None:
        """Act for `agent_selection`; None once its game is over.

        Raises:
            TypeError: the action is of another type.
            UsageError: it is outside the action space.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game; call reset() first")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        checked = self.table.check(action)
        self._cumulative_rewards[agent] = 0.0
        self._given[self.places[agent]] = checked
        if len(self._given) < len(self.table.acting):
            self._clear_rewards()
            self._select()
            return
        given, self._given = self._given, {}
        self._move(given)

    def _move(self, given: dict[int, Any]) -> None:
        rewards, terminated, truncated = self.table.play(given)
        self.rewards = dict(zip(self.agents, rewards))
        self.terminations = dict.fromkeys(self.agents, terminated)
        self.truncations = dict.fromkeys(self.agents, truncated)
        self.infos = self.table.infos()
        self._accumulate_rewards()
        self._select()

    def tensor_task(self) -> TensorEnv:
        """Return the game on tensors."""
        return self.table.task

    def render(self) -> Any:
        """Draw the game, by `render_mode`."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


class TensorParallelEnv(ParallelEnv[str, Any, Any]):
    """A game in PettingZoo's parallel form.

    Only the actions of those count who act (where players take turns, of the one whose turn it is); the others may leave theirs
    out. The mask of who does not act is the task's `pass_action` alone, or, where it has none, everything. The arguments are
    those of `TensorAECEnv`.
    """

    def __init__(self, task: TensorEnv, render_mode: str | None = None, max_episode_steps: int | None = None) -> None:
        self.table = GameTable(task, render_mode, max_episode_steps)
        self.metadata = _describe(task)
        self.render_mode = render_mode
        self.possible_agents = list(self.table.names)
        self.observation_spaces = dict.fromkeys(self.possible_agents, self.table.observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, task.action_space)
        self.waits = self.table.waiting_mask(is_sampled=True)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent may do."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start the first game of `seed`, or without one the next game; return observations and infos by name."""
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        return self._observations(), dict(self.table.infos().items())

    def _observations(self) -> dict[str, Any]:
        return {name: self.table.observe(i, self.waits) for i, name in enumerate(self.possible_agents)}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Act for everybody.

        Returns:
            Observations, rewards, terminations, truncations and infos, each by name.

        Raises:
            TypeError: an action is of another type.
            UsageError: an action is missing or outside the action space, or the game is over.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game; call reset() first")
        acting = self.table.acting
        missing = [self.agents[player] for player in acting if self.agents[player] not in actions]
        if missing:
            raise UsageError(f"an action is missing for {missing}; given were {sorted(actions)}")
        given = {player: self.table.check(actions[self.agents[player]]) for player in acting}
        rewards, terminated, truncated = self.table.play(given)
        names = self.agents
        infos = dict(self.table.infos().items())
        if terminated or truncated:
            self.agents = []
        return (
            self._observations(),
            {name: float(rewards[i]) for i, name in enumerate(names)},
            dict.fromkeys(names, terminated),
            dict.fromkeys(names, truncated),
            infos,
        )

    def tensor_task(self) -> TensorEnv:
        """Return the game on tensors."""
        return self.table.task

    def render(self) -> Any:
        """Draw the game, by `render_mode`."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""
