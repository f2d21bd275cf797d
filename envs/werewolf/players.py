"""Players to train and to measure against: one that plays at random, and a scripted one for each role.

Both answer for many seats of many games at once, as `opponents(obs, mask, player, env_index, key) -> action`; every draw
comes from `key`, so an episode does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import unknown_name
from polyathlon.envs.random import choice, uniform

from .actions import ACCUSE, CLAIM, VOUCH
from .config import BID, NIGHT
from .core import Werewolf

Opponents = Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor]
DRAW, NOISE = 1000, 1001  # streams, away from those of the game


def random_player(task: Werewolf) -> Opponents:
    """Return the player that chooses uniformly among the allowed actions."""

    def act(obs: Any, mask: Tensor, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        return choice(key, 0, mask, DRAW)

    return act


def heuristic_player(task: Werewolf) -> Opponents:
    """Return the scripted player, see `Heuristic`."""
    return Heuristic(task)


PLAYERS: dict[str, Callable[[Werewolf], Opponents]] = {"random": random_player, "heuristic": heuristic_player}


def make_player(name: str, task: Werewolf) -> Opponents:
    """Return a built-in player by its name.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in PLAYERS:
        raise unknown_name("player", str(name), PLAYERS)
    return PLAYERS[name](task)


class Heuristic:
    """A scripted player that knows the common plays of each role, from what its seat sees.

    - Seer: looks at who is most suspected and not known; says so once it knows a werewolf, or another claims its role.
    - Doctor: protects who claims to be the Seer, else itself or another.
    - Villagers: believe claims, the fewer claim the more, most of all of those killed since; accuse and vote for the
      most suspected, never for those known to be innocent.
    - Werewolves: kill who claims to be the Seer, else who accuses them, and agree; talk and vote together against one
      villager, the most accused; answer a claim against them with a claim.

    Each action gets a score, the highest allowed one is played; small keyed noise decides among equals.

    Args:
        task: the game.
    """

    def __init__(self, task: Werewolf) -> None:
        self.layout, self.n = task.layout, task.num_players
        self.seats = torch.arange(self.n, device=task.device)
        self.places = {phase: i for i, phase in enumerate(self.layout.phases)}

    def __call__(self, obs: Any, mask: Tensor, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Choose an action for each of k seats.

        Args:
            obs: [k, size] or its parts.
            mask: [k, A] bool.
            player: [k] int64, not used: the observation says it.
            env_index: [k] int64, not used.
            key: [k, 2] int64, of this draw.

        Returns:
            [k] int64.
        """
        parts = obs if isinstance(obs, dict) else self.layout.split(obs)
        seen = {name: part.float() for name, part in parts.items()}
        noise = 0.05 * uniform(key, 0, (self.n,), stream=NOISE)
        score = self._score(seen, noise)
        return torch.where(mask, score, -torch.inf).argmax(1)

    def _score(self, seen: dict[str, Tensor], noise: Tensor) -> Tensor:
        is_wolf = seen["role"][:, 1, None] > 0
        said = self._said(seen)
        claims = said[:, CLAIM]
        accused = said[:, ACCUSE].sum(1) + 3.0 * claims.sum(1)
        village = self._suspicion(seen, said) + noise
        prey = self._prey(seen, said, accused)
        aim = torch.where(is_wolf, prey, village)
        night = torch.where(is_wolf, self._kill(seen, said, prey, noise), self._helper(seen, said, village, noise))
        named = torch.where(self._in(seen, NIGHT), night, aim)
        named = torch.where(self._in(seen, BID), self._bids(seen, village), named)
        # a village without any suspicion passes rather than vote out one of its own
        passes = torch.where(is_wolf, -100.0, 0.06)
        talks = self._talk(seen, said, is_wolf, village, prey)
        return torch.cat((named, passes, *talks), 1)

    def _in(self, seen: dict[str, Tensor], phase: int) -> Tensor:
        if phase not in self.places:
            return torch.zeros_like(seen["round"], dtype=torch.bool)
        return seen["phase"][:, self.places[phase], None] > 0

    def _said(self, seen: dict[str, Tensor]) -> Tensor:
        """Return how often each said what about whom in the rounds seen: [k, 4 kinds, n speakers, n targets]."""
        speech = seen["speech"].flatten(1, 2)
        kinds, targets = speech[..., :4], speech[..., 4:]
        return torch.einsum("bhsk,bhst->bkst", kinds, targets)

    def _suspicion(self, seen: dict[str, Tensor], said: Tensor) -> Tensor:
        """Return how much a player of the village suspects each, [k, n]."""
        own, known = seen["self"], seen["known"]
        is_seer = seen["role"][:, 2, None]
        claims = (said[:, CLAIM] > 0).float()
        claimers = claims.any(2).float()
        killed = seen["deaths"][:, :, 0]
        trust = claimers * (1.0 + killed) / claimers.sum(1, keepdim=True).clamp(min=1.0)
        believed = torch.einsum("bs,bst->bt", trust, claims) * (1.0 - is_seer)
        liars = claimers * is_seer * (1.0 - own)
        accused = (said[:, ACCUSE] > 0).float().sum(1)
        vouched = (said[:, VOUCH] > 0).float().sum(1)
        wolf = (known[..., 1] > 0).float() * (known[..., 0] == 0).float()
        innocent = ((known[..., 0] + known[..., 2] + known[..., 3]) > 0).float() * (1.0 - wolf)
        return 3.0 * believed + 2.0 * liars + 0.2 * accused - 0.1 * vouched + 50.0 * wolf - 50.0 * innocent

    def _prey(self, seen: dict[str, Tensor], said: Tensor, accused: Tensor) -> Tensor:
        """Return which villager the werewolves are against, [k, n]: the most accused, among equals the first seat."""
        mates = (seen["known"][..., 1] > 0).float()
        return accused - 1000.0 * mates - 0.01 * self.seats

    def _kill(self, seen: dict[str, Tensor], said: Tensor, prey: Tensor, noise: Tensor) -> Tensor:
        mates = (seen["known"][..., 1] > 0).float()
        against = torch.einsum("bst,bt->bs", said[:, CLAIM] * 2.0 + said[:, ACCUSE], mates)
        claimers = (said[:, CLAIM].sum(2) > 0).float()
        agreed = seen["proposals"]
        return 4.0 * agreed + 3.0 * claimers + against + noise - 1000.0 * mates

    def _helper(self, seen: dict[str, Tensor], said: Tensor, village: Tensor, noise: Tensor) -> Tensor:
        """Return whom the Seer looks at and the Doctor protects, [k, n]."""
        is_doctor = seen["role"][:, 3, None] > 0
        is_known = seen["known"].any(2).float()
        claimers = (said[:, CLAIM].sum(2) > 0).float()
        guard = 3.0 * claimers + 0.5 * seen["self"] + 10.0 * noise
        return torch.where(is_doctor, guard, village - 100.0 * is_known)

    def _bids(self, seen: dict[str, Tensor], village: Tensor) -> Tensor:
        """Return the score of each bid: the highest for who has something to say."""
        urgent = village.amax(1, keepdim=True) > 10.0
        return torch.where(urgent, self.seats.float(), -(self.seats - 1.0).abs())

    def _talk(
        self, seen: dict[str, Tensor], said: Tensor, is_wolf: Tensor, village: Tensor, prey: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the scores of accusing, vouching, claiming and saying nothing."""
        own, is_seer = seen["self"], seen["role"][:, 2, None] > 0
        on_me = torch.einsum("bst,bt->bs", (said[:, CLAIM] > 0).float(), own)
        answer = on_me * seen["alive"] * 100.0 - 50.0
        accuse = torch.where(is_wolf, prey, village)
        claim = torch.where(is_wolf, answer, torch.where(is_seer, village * 2.0 - 3.0, -100.0))
        nothing = torch.where(is_wolf, -900.0, 0.15)
        return accuse, torch.full_like(accuse, -90.0), claim, nothing
