"""Werewolf as a PettingZoo environment in which all act at once, on the event log."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from pettingzoo import ParallelEnv

from polyathlon.envs.errors import UsageError

from .aec import _METADATA
from .core import Werewolf
from .state import NO_ONE_WON
from .table import Answer, Table

Named = dict[str, Any]


class WerewolfParallel(ParallelEnv[str, Any, Any]):
    """Werewolf in PettingZoo's parallel form; made by `werewolf.parallel_env`.

    In each step all who act at once by the rules are needed (`simultaneous_night`, `simultaneous_talk`,
    `simultaneous_vote`), where they act in turn the next one alone. Who does not act may only pass, and what it gives
    is ignored.

    Args:
        table: the game and its players.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.metadata = dict(_METADATA)
        self.render_mode = table.render_mode
        self.possible_agents = list(table.names)
        self.observation_spaces = dict.fromkeys(self.possible_agents, table.observation_space)
        self.action_spaces = dict.fromkeys(self.possible_agents, table.action_space)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent sees."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gym.Space[Any]:
        """Return what an agent may do."""
        return self.action_spaces[agent]

    def tensor_task(self) -> Werewolf:
        """Return the same rules on tensors."""
        return self.table.tensor_task()

    def reset(self, seed: int | None = None, options: Named | None = None) -> tuple[Named, dict[str, Named]]:
        """Start the first game of `seed`, or without one the next game; return observations and infos by name."""
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        self._answers: dict[int, Answer] = {}
        return self._observations(), {name: self.table.info(i) for name, i in self._present()}

    def _present(self) -> list[tuple[str, int]]:
        return [(name, self.table.places[name]) for name in self.agents]

    def _observations(self) -> Named:
        table = self.table
        return {name: table.observe(i, table.choices(i)) for name, i in self._present()}

    def step(
        self, actions: Named
    ) -> tuple[Named, dict[str, float], dict[str, bool], dict[str, bool], dict[str, Named]]:
        """Act for all who act now; an action that is not allowed is replaced, see `WerewolfAEC.step`.

        With `action="text"` a step in which somebody must be asked again plays nothing: it is repeated, and only the
        answers of those who are still `acting` in their info count.

        Returns:
            Observations, rewards, terminations, truncations and infos, each by name.

        Raises:
            TypeError: an action is of another type.
            UsageError: an action is missing or outside the action space, or the game is over.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game or before reset(); call reset() first")
        table, game, names = self.table, self.table.game, list(self.agents)
        rewards = dict.fromkeys(names, 0.0)
        errors = self._read(actions, rewards)
        if not errors:
            answers, self._answers = self._answers, {}
            chosen = {i: answer.action for i, answer in answers.items() if answer.action is not None}
            texts = {i: answer.text for i, answer in answers.items() if answer.text is not None}
            game.act_all(chosen, texts)
            for name in names:
                rewards[name] += game.rewards[table.places[name]]
        is_late = game.winner == NO_ONE_WON
        ended = {name: self._has_ended(table.places[name]) for name in names}
        observations = self._observations()
        infos = {name: table.info(table.places[name]) for name in names}
        for name, error in errors.items():
            infos[name]["error"] = error
        self.agents = [name for name in names if not ended[name]]
        terminations = {name: ended[name] and not is_late for name in names}
        return observations, rewards, terminations, {name: ended[name] and is_late for name in names}, infos

    def _read(self, actions: Named, rewards: dict[str, float]) -> dict[str, str]:
        """Read the answers of those who act; return the errors of those who are to be asked again."""
        table, game = self.table, self.table.game
        acting = [i for i in game.acting() if i not in self._answers]
        missing = [table.names[i] for i in acting if table.names[i] not in actions]
        if missing:
            raise UsageError(f"an action is missing for {missing}; given were {sorted(actions)}")
        errors = {}
        answers = [(i, table.read(i, actions[table.names[i]], table.choices(i))) for i in acting]
        for i, answer in answers:
            if answer.is_illegal:
                rewards[table.names[i]] += table.config.illegal_reward
            if answer.action is None:
                errors[table.names[i]] = table.game.log.view(i)[-1].payload["reason"]
            else:
                self._answers[i] = answer
        return errors

    def _has_ended(self, player: int) -> bool:
        table, game = self.table, self.table.game
        if game.is_over:
            return True
        return not table.settings.dead_wait and not game.alive[player] and player not in game.queue

    def state(self) -> Any:
        """Return the whole game, secrets included, as a dict."""
        return self.table.state()

    def render(self) -> Any:
        """Return the game so far, secrets included: a transcript ("ansi") or a page ("html")."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""
