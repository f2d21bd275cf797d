"""Returns of several steps, made when a minibatch is sampled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .replay import Replay, Transitions


class NStepReturns:
    """A sampler of the replay: n-step returns (Sutton 1988; in off-policy agents Hessel et al. 2018, "Rainbow").

    With the rewards r_0, r_1, ... from the drawn transition on, and k <= n the steps up to the end of its episode or the newest
    transition held, it gives the reward sum_{i < k} gamma^i r_i, the observation after step k, and discount gamma^k, or 0
    where step k terminated. What a limit cut is bootstrapped there.

    Args:
        n_steps: n.
        gamma: discount factor of one step.
    """

    def __init__(self, n_steps: int, gamma: float) -> None:
        self.n_steps, self.gamma = n_steps, gamma
        self._powers = torch.tensor([gamma**k for k in range(n_steps + 1)])  # moved to the device once

    def sample(self, replay: Replay, batch_size: int, generator: torch.Generator) -> Transitions:
        """Draw where the returns begin, evenly and with replacement."""
        index = torch.randint(replay.size, (batch_size,), generator=generator, device=replay.ended.device)
        return self.returns(replay, index)

    def returns(self, replay: Replay, index: Tensor) -> Transitions:
        """Return the transitions of several steps that begin at places [B] of the ring."""
        places, counts = self._following(replay, index)
        discount = self._powers = self._powers.to(index.device)
        reward = torch.where(counts, replay.reward_at(places) * discount[:-1], 0).sum(
            1
        )  # nothing was written beyond some
        number = counts.sum(1)
        last = replay.raw(places.gather(1, number.unsqueeze(1) - 1).squeeze(1))
        batch = replay.normalized(replay.raw(index)._replace(next_obs=last.next_obs), reward)
        return batch._replace(done=last.done, discount=discount[number] * (1 - last.done))

    def _following(self, replay: Replay, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places [B, n] of the steps, and whether each counts, bool [B, n]."""
        order = replay.age_order(index)
        is_recorded = replay.added - replay.size + order < replay.recorded
        away = torch.where(is_recorded, 1, replay.stride).unsqueeze(1) * torch.arange(self.n_steps, device=index.device)
        places = (index.unsqueeze(1) + away) % replay.capacity
        goes_on = ~replay.ended[places[:, :-1]] & (order.unsqueeze(1) + away[:, 1:] < replay.size)
        counts = torch.ones_like(places, dtype=torch.bool)
        counts[:, 1:] = goes_on.cumprod(1).bool()
        return places, counts

    def added(self, replay: Replay, number: int, ended: Tensor) -> None:
        """Nothing to do: the memory knows the ends."""

    def cut(self, replay: Replay) -> None:
        """Nothing to do."""

    def get_state(self) -> dict[str, Any]:
        """Return nothing: all is in the memory."""
        return {}

    def set_state(self, state: dict[str, Any] | None) -> None:
        """Nothing to do."""
