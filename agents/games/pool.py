"""The pool of past selves: who is in it, who meets the learner, and how they fare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.parts.actors import Actor
from polyathlon.envs.errors import UsageError, unknown_name

from .seat_rollout import LEARNER

CHOICES = ("uniform", "prioritised", "latest")


class Pool:
    """Frozen past selves on the learner's device.

    A new snapshot takes the place of a random one once the pool is full, so that its members are spread over the whole run
    (reservoir sampling, Vitter 1985): their mixture approximates the average of all snapshots.

    Args:
        size: most members.
        opponents: "uniform"; "prioritised": in proportion to (1 - score of the learner against them)^2 (prioritised
            fictitious self-play, Vinyals et al. 2019), or "latest": the newest.
        generator: source of everything random.

    Attributes:
        actors: number of a member -> its actor; also those that left the pool while games with them go on.
        active: numbers of the members, oldest first.
        born: number of a member -> the learner's steps when it was taken.
        count: snapshots taken so far.

    Raises:
        UsageError: an unknown choice.
    """

    def __init__(self, size: int, opponents: str, generator: torch.Generator) -> None:
        if opponents not in CHOICES:
            raise unknown_name("choice of opponents", str(opponents), CHOICES)
        self.size, self.opponents, self.generator = size, opponents, generator
        self.actors: dict[int, Actor] = {}
        self.active: list[int] = []
        self.born: dict[int, int] = {}
        self.count = 0
        self.scores: dict[int, tuple[float, float]] = {}  # the learner's points against a member, and games

    def name(self, number: int) -> str:
        """Return the name of a member: v0 is the first snapshot."""
        return f"v{number}"

    @property
    def names(self) -> list[str]:
        """Names of the members, oldest first."""
        return [self.name(number) for number in self.active]

    def find(self, name: str) -> Actor:
        """Return a member by its name.

        Raises:
            UsageError: there is none of this name.
        """
        for number in self.active:
            if self.name(number) == name:
                return self.actors[number]
        raise unknown_name("member of the pool", name, self.names)

    def add(self, actor: Actor, steps: int) -> int:
        """Take a snapshot into the pool, in the place of another one where that is full; return its number."""
        number, self.count = self.count, self.count + 1
        self.born[number] = steps
        if len(self.active) >= self.size:
            place = self._below(number + 1)
            # the newest is always kept: it is whom the learner has to beat next
            del self.active[min(place, self.size - 1)]
        self.active.append(number)
        self.actors[number], self.scores[number] = actor, (0.0, 0.0)
        return number

    def _below(self, n: int) -> int:
        return int(torch.randint(n, (1,), generator=self.generator, device=self.generator.device))

    def choose(self, n: int) -> Tensor:
        """Draw the numbers of n members, [n] int64.

        Raises:
            UsageError: the pool is empty.
        """
        if not self.active:
            raise UsageError("the pool has no members yet")
        numbers = torch.tensor(self.active, device=self.generator.device)
        if self.opponents == "latest":
            return numbers[-1].expand(n).clone()
        weights = torch.tensor([self._weight(number) for number in self.active], device=self.generator.device)
        drawn = torch.rand(n, generator=self.generator, device=self.generator.device, dtype=torch.float64)
        return numbers[torch.searchsorted(weights.cumsum(0) / weights.sum(), drawn).clamp(max=len(numbers) - 1)]

    def _weight(self, number: int) -> float:
        if self.opponents == "uniform":
            return 1.0
        points, games = self.scores[number]
        return (1 - (points + 1) / (games + 2)) ** 2 + 1e-3  # half a point of two games to begin with

    def note(self, members: Tensor, points: Tensor) -> None:
        """Count games against members: the learner's points, 1 for a win and 1/2 for a draw; older games fade.

        Args:
            members: [k, P] int64 numbers, those of the learner's seats among them.
            points: [k].
        """
        for number in members.unique().tolist():
            if number in self.scores:
                own = points[(members == number).any(1)]
                fade = 0.99 ** len(own)
                before = self.scores[number]
                self.scores[number] = (before[0] * fade + float(own.sum()), before[1] * fade + len(own))

    def forget(self, still_playing: Iterable[int]) -> None:
        """Drop members that left the pool and whose games are over."""
        kept = {*self.active, *still_playing} - {LEARNER}
        self.actors = {number: actor for number, actor in self.actors.items() if number in kept}
        self.scores = {number: score for number, score in self.scores.items() if number in kept}

    # ---- files

    def state_dict(self) -> dict[str, Any]:
        """Return the pool without the parameters of its members."""
        return {
            "active": list(self.active),
            "numbers": list(self.actors),
            "born": [list(pair) for pair in self.born.items()],
            "count": self.count,
            "scores": [[number, *score] for number, score in self.scores.items()],
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any], read_actor: Callable[[int], Actor]) -> None:
        """Continue from there; `read_actor` gives the actor of a number."""
        self.active = list(state["active"])
        self.actors = {number: read_actor(number) for number in state["numbers"]}
        self.born = {number: steps for number, steps in state["born"]}
        self.count = state["count"]
        self.scores = {number: (points, games) for number, points, games in state["scores"]}
        self.generator.set_state(state["generator"].cpu())
