"""The experience of one iteration of self-play: every seat of every game."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.streams.env_stream import Observation
from polyathlon.agents.streams.rollout import Rollout, tree_map, write

LEARNER = -1
EXTRA = ("player", "acts", "owner")


class SeatRollout(Rollout):
    """T ticks of N games with P players, of whom S are asked in each tick: the mover alone (S = 1), or all (S = P).

    Args:
        n_steps: number of ticks T.
        games: number of games N.
        seats: S.
        players: P.
        obs: an example of the observations, [N S, ...].
        action: an example of the actions, [N S, ...].
        mask: an example of the masks, [N S, A] bool, or None.

    Attributes:
        obs, action, mask: [T, N S, ...].
        reward: [T, N, P].
        terminated, done: [T, N] bool.
        player: [T, N, S] int64, who was asked.
        acts: [T, N, S] bool, whether it moved.
        owner: [T, N, P] int64, who played each seat: `LEARNER` or the number of a member.
    """

    def __init__(
        self, n_steps: int, games: int, seats: int, players: int, obs: Observation, action: Tensor, mask: Tensor | None
    ) -> None:
        super().__init__(n_steps, obs, action, mask)
        device = action.device
        self.reward = torch.zeros(n_steps, games, players, device=device)
        self.terminated = torch.zeros(n_steps, games, dtype=torch.bool, device=device)
        self.done = torch.zeros_like(self.terminated)
        self.player = torch.zeros(n_steps, games, seats, dtype=torch.int64, device=device)
        self.acts = torch.zeros(n_steps, games, seats, dtype=torch.bool, device=device)
        self.owner = torch.zeros(n_steps, games, players, dtype=torch.int64, device=device)

    def add_seats(self, player: Tensor, acts: Tensor, owner: Tensor) -> None:
        """Copy who is asked, [N, S], who of them moves, [N, S] bool, and whose the seats are, [N, P]."""
        t = self.position
        self.player[t].copy_(player)
        self.acts[t].copy_(acts)
        self.owner[t].copy_(owner)

    def add_outcome(self, reward: Tensor, terminated: Tensor, truncated: Tensor) -> None:
        """Copy what came of the tick: rewards [N, P], with the value of truncated ends in them; ends [N] bool."""
        t = self.position
        self.reward[t].copy_(reward)
        self.terminated[t].copy_(terminated)
        torch.logical_or(terminated, truncated, out=self.done[t])
        self.position += 1

    def own(self) -> Tensor:
        """Return which moves are the learner's, [T, N, S] bool."""
        return self.acts & (self.owner.gather(2, self.player) == LEARNER)

    def get_state(self) -> dict[str, Any]:
        """Return the ticks taken so far; see `Rollout.get_state`."""
        t = self.position
        return {**super().get_state(), **{name: getattr(self, name)[:t].clone() for name in EXTRA}}

    @classmethod
    def from_state(cls, n_steps: int, state: dict[str, Any], device: torch.device) -> SeatRollout:
        """Make the rollout that `get_state` described."""
        action, mask = state["action"].to(device), state["mask"]
        obs = tree_map(state["obs"], lambda x: x.to(device))
        taken, games, seats = state["player"].shape
        first = [None if x is None else tree_map(x, lambda y: y[0].to(device)) for x in (obs, action, mask)]
        rollout = cls(n_steps, games, seats, state["owner"].shape[2], *first)  # type: ignore[arg-type]
        for name in ("action", "reward", "terminated", "done", *EXTRA):
            getattr(rollout, name)[:taken].copy_(state[name])
        for t in range(taken):
            write(rollout.obs, t, tree_map(obs, lambda x, t=t: x[t]))
        if mask is not None and rollout.mask is not None:
            rollout.mask[:taken].copy_(mask)
        rollout.position = taken
        return rollout
