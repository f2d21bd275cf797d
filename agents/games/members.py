"""Who sits at the table: past selves, players by name, saved agents; all answer in batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.agents.parts.action_distributions import masked_log_softmax
from polyathlon.agents.parts.actors import Actor
from polyathlon.envs.errors import unknown_name
from polyathlon.envs.random import normal, uniform
from polyathlon.envs.tensor.opponents import make_opponent, player_names

Opponents = Callable[[Any, Tensor | None, Tensor, Tensor, Tensor], Tensor]
DRAW = 2000  # stream of the draws of members, away from those of games


class ActorMember:
    """An actor as an opponent: every draw comes from the key of its row, so a game does not depend on its neighbours.

    Args:
        actor: the policy.
        deterministic: take the likeliest action.
    """

    def __init__(self, actor: Actor, deterministic: bool = False) -> None:
        self.actor, self.deterministic = actor, deterministic

    @torch.no_grad()
    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Choose an action for each of k seats.

        Args:
            obs: [k, ...] what they see, or a dict of it.
            mask: [k, A] bool, or None.
            player: [k] int64, not used: an observation shows whose it is.
            env_index: [k] int64, not used.
            key: [k, 2] int64, of this draw.
        """
        if self.deterministic:
            return self.actor.act(obs, mask, None, True)
        if isinstance(self.actor.action_space, spaces.Discrete):
            return self._drawn(self.log_probs(obs, mask), key)
        return self.actor.act_with(obs, lambda shape: normal(key, 0, shape, stream=DRAW))

    def log_probs(self, obs: Any, mask: Tensor | None) -> Tensor:
        """Return the log-probabilities of the actions, [k, A]."""
        policy = self.actor.module
        if hasattr(policy, "distribution"):
            logits = policy.distribution(obs, mask).logits  # type: ignore[operator]
            return torch.log_softmax(logits, 1)
        logits = policy.get_distribution(obs).distribution.logits  # type: ignore[operator]
        return masked_log_softmax(logits, mask)

    @staticmethod
    def _drawn(log_probs: Tensor, key: Tensor) -> Tensor:
        """Draw by the inverse of the cumulated probabilities; an action of probability 0 is never drawn."""
        cumulated = log_probs.double().exp().cumsum(1)
        drawn = uniform(key, 0, (), torch.float64, DRAW) * cumulated[:, -1]
        return (cumulated > drawn[:, None]).to(torch.int8).argmax(1)


def find_player(league: Any, name: Any, deterministic: bool = False) -> Opponents:
    """Return a player of a league: "latest", a member ("v3"), a player of the game by name, a folder or a callable.

    Raises:
        UsageError: there is none of this name.
    """
    if name == "latest":
        return league.member(league.agent.frozen_actor(league.device), deterministic)
    if isinstance(name, str) and name in league.pool.names:
        return league.member(league.pool.find(name), deterministic)
    if isinstance(name, str) and name not in player_names(league.task) and not Path(name).exists():
        raise unknown_name("player", name, league.names)
    return make_opponent(league.task, name)


def find_speaker(league: Any, name: Any) -> Any:
    """Return a player of a league of language agents: "latest", a member, or a player of the game in numbers, by its name.

    Raises:
        UsageError: there is none of this name.
    """
    from .word_seats import Speaker

    if name == "latest":
        return Speaker(league.agent.frozen_actor(league.device))
    if name in league.pool.names:
        return Speaker(league.pool.find(name))
    if name in player_names(league.task):
        return name
    raise unknown_name("player", str(name), [*league.names, *player_names(league.task)])
