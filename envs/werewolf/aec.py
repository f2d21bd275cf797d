"""Werewolf as a PettingZoo environment in turns, on the event log."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from pettingzoo import AECEnv

from polyathlon.envs.errors import UsageError

from .core import Werewolf
from .state import NO_ONE_WON
from .table import RENDER_MODES, Answer, Table

_METADATA = {"name": "werewolf_v0", "render_modes": list(RENDER_MODES), "render_fps": 1, "is_parallelizable": True}


class WerewolfAEC(AECEnv[str, Any, Any]):
    """Werewolf in PettingZoo's turn-based form: only players who act are selected; made by `werewolf.env`.

    What the rules hide until all have acted (votes, by default) is hidden although the players are asked in turn.

    Args:
        table: the game and its players.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
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

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start the first game of `seed`, or without one the next game.

        Args:
            seed: of the games.
            options: `roles`, the role names in seat order.

        Raises:
            UsageError: the seed or an option is malformed.
        """
        self.table.reset(seed, options)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._has_rewards = False
        self._living = [True] * self.table.n
        self._skip_agent_selection = None
        self._told: tuple[int, int, int] | None = None
        self.agent_selection = self.agents[0]
        self._select()

    def _select(self) -> None:
        """Choose who is asked next, and tell the agents where they are."""
        table, game = self.table, self.table.game
        player = game.queue[0]
        if self._told != (game.round, game.phase, game.turn):
            self._told = (game.round, game.phase, game.turn)
            self.infos = {name: table.idle_info(table.places[name]) for name in self.agents}
        elif self.agent_selection in self.infos:
            self.infos[self.agent_selection] = table.idle_info(table.places[self.agent_selection])
        self.agent_selection = table.names[player]
        self._choices = table.choices(player)
        self.infos[self.agent_selection] = table.info(player, self._choices)

    def observe(self, agent: str) -> Any:
        """Return what an agent sees now; its mask is 0 while it is not selected."""
        table = self.table
        player = table.places[agent]
        queue = table.game.queue
        return table.observe(player, self._choices if queue and queue[0] == player else None)

    def step(self, action: Any) -> None:
        """Act for `agent_selection`; None once its game is over.

        An action that is not allowed is replaced: pass where that is allowed, else one drawn from the game's key; who
        gave it gets the rules' `illegal_reward`.

        Raises:
            TypeError: the action is of another type than the action space's.
            UsageError: it is outside the action space, or the game is over.
        """
        if not self.agents:
            raise UsageError("step() was called on a finished game or before reset(); call reset() first")
        name = self.agent_selection
        if self.terminations[name] or self.truncations[name]:
            self._was_dead_step(action)
            return
        table = self.table
        player = table.places[name]
        self._play_answer(player, table.read(player, action, self._choices))

    def step_replaced(self, reason: str) -> None:
        """Play for `agent_selection`, which gave nothing to be played; it gets `illegal_reward`.

        Args:
            reason: what happened; the agent can read it.
        """
        if not self.agents:
            raise UsageError("step_replaced() was called on a finished game or before reset(); call reset() first")
        player = self.table.places[self.agent_selection]
        self._play_answer(player, self.table.replaced(player, reason))

    def _play_answer(self, player: int, answer: Answer) -> None:
        table, name = self.table, self.agent_selection
        self._cumulative_rewards[name] = 0.0
        if self._has_rewards:
            self._clear_rewards()
            self._has_rewards = False
        if answer.is_illegal:
            self._give(name, table.config.illegal_reward)
        if answer.action is None:
            self.infos[name] = {**table.info(player), "error": table.game.log.events[-1].payload["reason"]}
            return
        self._play(player, answer.action, answer.text)
        if answer.is_illegal and name in self.infos:
            self.infos[name]["illegal_action"] = True

    def _give(self, name: str, reward: float) -> None:
        self.rewards[name] += reward
        self._cumulative_rewards[name] += reward
        self._has_rewards = True

    def _play(self, player: int, action: int, text: str | None) -> None:
        table, game = self.table, self.table.game
        game.act(player, action, text)
        if game.rewards is not game.nothing:
            for name in self.agents:
                reward = game.rewards[table.places[name]]
                if reward:
                    self._give(name, reward)
        if game.is_over:
            is_late = game.winner == NO_ONE_WON
            ended = self.truncations if is_late else self.terminations
            ended.update(dict.fromkeys(self.agents, True))
            self.agent_selection = self.agents[0]
            self.infos = {name: table.idle_info(table.places[name]) for name in self.agents}
            return
        self._select()
        if not table.settings.dead_wait and game.alive != self._living:
            self._dismiss()

    def _dismiss(self) -> None:
        """Let the dead leave, each with one last `step(None)`; who still has last words stays for them."""
        table, game = self.table, self.table.game
        gone = [i for i in range(table.n) if self._living[i] and not game.alive[i] and i not in game.queue]
        for i in gone:
            self._living[i] = False
            self.terminations[table.names[i]] = True
        if gone:
            self.agent_selection = self._deads_step_first()

    def state(self) -> Any:
        """Return the whole game, secrets included, as a dict."""
        return self.table.state()

    def predict_roles(self, agent: str, roles: dict[str, str]) -> float:
        """Note whom an agent takes for what; a metric that changes nothing; see `Table.predict`."""
        if agent not in self.table.places:
            raise UsageError(f"unknown agent {agent!r}; the agents are {self.possible_agents}")
        return self.table.predict(self.table.places[agent], roles)

    def render(self) -> Any:
        """Return the game so far, secrets included: a transcript ("ansi") or a page ("html")."""
        return self.table.render()

    def close(self) -> None:
        """Do nothing; there is nothing to release."""
