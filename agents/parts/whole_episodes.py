"""Which transitions of a ring belong to whole episodes, known on the device without asking it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

KEPT = ("first", "last", "running", "low", "high")


class WholeEpisodes:
    """Where the episodes in a ring of transitions begin and end.

    Transitions are numbered in the order in which they were added, N a step, one of each environment: number s lies at place
    s mod capacity and belongs to environment s mod N. An episode is whole when it has ended and no transition of it has been
    overwritten; in each environment the whole ones are neighbours.

    Args:
        capacity: places of the ring, a multiple of N.
        n_envs: N.
        device: where the numbers lie.

    Attributes:
        first: [capacity] number of the first transition of the episode at a place.
        last: [capacity] at the place of an episode's first transition the number of its last one, -1 while it runs.
        running: [N] number of the first transition of the episode that runs.
        low, high: [N] the whole episodes of an environment have the numbers low <= s < high.
    """

    def __init__(self, capacity: int, n_envs: int, device: torch.device) -> None:
        self.capacity, self.n_envs, self.device = capacity, n_envs, device
        self.first = torch.zeros(capacity, dtype=torch.int64, device=device)
        self.last = torch.full((capacity,), -1, dtype=torch.int64, device=device)
        self.row = torch.arange(n_envs, device=device)
        self.running, self.low, self.high = self.row.clone(), self.row.clone(), self.row.clone()

    def add(self, number: int, ended: Tensor) -> None:
        """Note the transitions `number` to `number` + N - 1, whose episodes `ended` [N] bool."""
        start = number % self.capacity
        place = slice(start, start + self.n_envs)
        if (
            number >= self.capacity
        ):  # the oldest step is overwritten, and with the first transition its whole episode goes
            oldest = number - self.capacity + self.row
            goes = (self.first[place] == oldest) & (self.last[place] >= 0)
            self.low = torch.where(goes, self.last[place] + self.n_envs, self.low)
        self.first[place] = self.running
        self.last[place] = -1
        self._end(number + self.row, ended)

    def cut(self, number: int) -> None:
        """Let every episode that runs end before transition `number`."""
        newest = number - self.n_envs + self.row
        self._end(newest, self.running <= newest)

    def _end(self, newest: Tensor, ended: Tensor) -> None:
        """Let episodes end with the transitions `newest` [N] where `ended`."""
        if self.device.type == "cpu" and not ended.any():  # asking an accelerator stalls it
            return
        after, start = newest + self.n_envs, self.running % self.capacity
        self.last[start] = torch.where(ended, newest, self.last[start])
        is_too_long = self.running + self.capacity < after  # it has overwritten its own beginning
        self.low = torch.where(ended & is_too_long, after, self.low)
        self.high = torch.where(ended, after, self.high)
        self.running = torch.where(ended, after, self.running)

    def count(self) -> Tensor:
        """Return how many transitions of whole episodes each environment has, [N]."""
        return (self.high - self.low).clamp(min=0) // self.n_envs

    def draw(self, u: Tensor, counts: Tensor | None = None) -> Tensor:
        """Turn uniform numbers in [0, 1), [B] float64, into places [B] of transitions of whole episodes, each equally likely.

        Args:
            u: the numbers.
            counts: what `count` returned; None asks it.
        """
        counts = self.count() if counts is None else counts
        total = counts.cumsum(0)
        chosen = torch.minimum((u * total[-1]).long(), total[-1] - 1)
        row = torch.searchsorted(total, chosen, right=True)
        return (self.low[row] + self.n_envs * (chosen - total[row] + counts[row])) % self.capacity

    def span(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return of transitions at places [B] which of their episode they are, from 0, and how long that is."""
        first = self.first[place]
        length = (self.last[first % self.capacity] - first) // self.n_envs + 1
        return (place - first) % self.capacity // self.n_envs, length

    def place(self, place: Tensor, step: Tensor) -> Tensor:
        """Return the places of step `step` [B] of the episodes at places [B]."""
        return (self.first[place] + self.n_envs * step) % self.capacity

    def get_state(self) -> dict[str, Any]:
        """Return what `set_state` needs."""
        return {name: getattr(self, name).clone() for name in KEPT}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name in KEPT:
            setattr(self, name, state[name].to(self.device))
