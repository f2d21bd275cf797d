"""Rock, paper, scissors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import check_positive_int

from .boards import SmallGame

NAMES = ("rock", "paper", "scissors")


class RockPaperScissorsState(NamedTuple):
    """State of a game.

    Attributes:
        key: [N, 2] int64.
        t: [N] int64, rounds played.
        last: [N, 2] int64, what both showed last; 3 before the first round.
    """

    key: Tensor
    t: Tensor
    last: Tensor


class RockPaperScissors(SmallGame):
    """Both players show rock (0), paper (1) or scissors (2) at once, for `num_rounds` rounds.

    Observation: (2, 4) int8, what the player who looks showed in the last round and what the other showed, one-hot,
    the fourth column before the first round. Reward of a round: 1 to the winner, -1 to the loser, 0 for a draw.
    """

    simultaneous = True

    def __init__(
        self, *, num_rounds: int = 10, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32
    ) -> None:
        """Make the game.

        Raises:
            UsageError: `num_rounds` is not a positive integer.
        """
        super().__init__(device=device, dtype=dtype)
        check_positive_int(num_rounds=num_rounds)
        self.num_rounds = num_rounds
        self.observation_space = spaces.Box(0, 1, (2, 4), np.int8)
        self.action_space = spaces.Discrete(3)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> RockPaperScissorsState:
        """Start a game for each key, [N, 2] int64; there are no options."""
        last = torch.full((keys.shape[0], 2), 3, dtype=torch.int64, device=keys.device)
        return RockPaperScissorsState(keys, self.no_time(keys, options), last)

    def step(self, state: RockPaperScissorsState, action: Tensor) -> tuple[RockPaperScissorsState, Tensor, Tensor]:
        """Play a round; `action` is [N, 2] int64. See `TensorEnv.step`."""
        ahead = (action[:, 0] - action[:, 1]) % 3
        outcome = (ahead == 1).to(torch.float32) - (ahead == 2).to(torch.float32)
        after = RockPaperScissorsState(state.key, state.t + 1, action)
        return after, torch.stack((outcome, -outcome), 1), after.t >= self.num_rounds

    def observe(self, state: RockPaperScissorsState, player: Tensor | None = None) -> Tensor:
        """Return [N, 2, 4] int8 as seen by `player`, [N] int64; None: the first."""
        first = torch.zeros_like(state.t) if player is None else player
        order = torch.stack((first, 1 - first), 1)
        return torch.nn.functional.one_hot(state.last.gather(1, order), 4).to(torch.int8)

    def render_text(self, state: RockPaperScissorsState, i: int) -> str:
        """Write the last round of row i as a line."""
        if int(state.t[i]) == 0:
            return f"round 0 of {self.num_rounds}"
        first, second = (NAMES[shown] for shown in state.last[i].tolist())
        return f"round {int(state.t[i])} of {self.num_rounds}: {first} - {second}"

    def render(self, state: RockPaperScissorsState, i: int) -> np.ndarray:
        """Draw what both showed last in row i as two squares, [H, W, 3] uint8: grey, blue and red; white at first."""
        colours = np.array([(95, 99, 104), (26, 115, 232), (217, 48, 37), (255, 255, 255)], np.uint8)
        picture = np.full((68, 132, 3), 220, np.uint8)
        for place, shown in enumerate(state.last[i].tolist()):
            picture[4:64, 4 + 64 * place : 64 + 64 * place] = colours[shown]
        return picture
