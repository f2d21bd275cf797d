"""Probes of pictures, of pictures with numbers beside them, and of several choices: one step each, with known optima.

| probe | fails when | exact values |
|---|---|---|
| `MatchPicture` | the action does not follow what the picture shows | the best action pays 1, the best constant one 0 |
| `MatchPicture(shows="parts")` | one of the two parts is not read | with one part alone at most 1/2 |
| `MatchPicture(shows="shuffled")` | something besides the picture tells the answer | at most 0 |
| `MatchChoices` | a choice does not follow the observation | right choices pay 1, the best constant ones 13/36 |
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor import TensorEnv

SIDE, SQUARE = 36, 8
PLACES = SIDE - SQUARE + 1
FARTHEST = 0.8
# variance of PLACES evenly likely numbers from -FARTHEST to FARTHEST
VARIANCE = (2 * FARTHEST / (PLACES - 1)) ** 2 * (PLACES**2 - 1) / 12
DARKEST = 64
SHOWS = ("picture", "shuffled", "parts", "no picture", "no number")
CHOICES = (3, 2, 4)


class PictureState(NamedTuple):
    """State of `MatchPicture`.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        place: [B] int64 column of the bright square, from 0.
        row: [B] int64 its row.
        number: [B] int64 the number beside the picture, in the same steps.
    """

    key: Tensor
    t: Tensor
    place: Tensor
    row: Tensor
    number: Tensor


class MatchPicture(TensorEnv):
    """A picture [36, 36, 1] with a bright square at x, a number in [-0.8, 0.8] from left to right: the action a pays 1 - (a - x)^2 / Var x.

    The best constant action, 0, is paid 0 in the mean, the best action 1. With `shows="parts"` a number y is shown beside the
    picture, and the action is to be (x + y) / 2: with one of the two alone 1/2 is reached.

    Args:
        shows: "picture"; "shuffled": the square of another episode, which says nothing; "parts": a Dict of `picture` and `number`;
            "no picture", "no number": "parts" with that one blank.
        device: where it runs.
        dtype: of the numbers.

    Raises:
        UsageError: it shows something else.
    """

    def __init__(
        self,
        *,
        shows: str = "picture",
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(device=device, dtype=dtype)
        if shows not in SHOWS:
            raise unknown_name("word of shows=", shows, SHOWS)
        self.shows, self.has_parts = shows, shows not in ("picture", "shuffled")
        picture = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
        number = spaces.Box(-1.0, 1.0, (1,), self.numpy_dtype)
        self.observation_space = spaces.Dict({"number": number, "picture": picture}) if self.has_parts else picture
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> PictureState:
        """Start an episode for each key; there are no options.

        Raises:
            UsageError: an option is given.
        """
        _refuse_options(options)
        drawn = random.integers(keys, 0, 0, PLACES, (3,))
        return PictureState(keys, torch.zeros_like(drawn[:, 0]), *drawn.unbind(1))

    def observe(self, state: PictureState, player: Tensor | None = None) -> Any:
        """Return pictures [B, 36, 36, 1], dark noise with a bright square; or a dict of them and of numbers [B, 1]."""
        place = state.place
        if self.shows == "shuffled":
            place = random.integers(state.key, 1, 0, PLACES)
        if self.shows == "no picture":
            place = torch.zeros_like(place)
        noise = random.integers(state.key, 2, 0, DARKEST, (SIDE, SIDE))
        along = torch.arange(SIDE, device=place.device)
        across = (along >= place[:, None]) & (along < place[:, None] + SQUARE)
        down = (along >= state.row[:, None]) & (along < state.row[:, None] + SQUARE)
        picture = torch.where(down[:, :, None] & across[:, None, :], 255, noise).to(torch.uint8)[..., None]
        if not self.has_parts:
            return picture
        number = self._number(state.number)
        return {"number": (0 * number if self.shows == "no number" else number)[:, None], "picture": picture}

    def _number(self, place: Tensor) -> Tensor:
        return (FARTHEST * (2 * place.to(self.dtype) / (PLACES - 1) - 1)).to(self.dtype)

    def answer(self, state: PictureState) -> Tensor:
        """Return the best action [B]."""
        x = self._number(state.place)
        return (x + self._number(state.number)) / 2 if self.has_parts else x

    def step(self, state: PictureState, action: Tensor) -> tuple[PictureState, Tensor, Tensor]:
        """Pay for the match and end."""
        variance = VARIANCE / 2 if self.has_parts else VARIANCE
        reward = 1.0 - (action.reshape(-1) - self.answer(state)).square() / variance
        return state._replace(t=state.t + 1), reward.to(torch.float32), torch.ones_like(state.t, dtype=torch.bool)

    def info(self, state: PictureState) -> dict[str, Tensor]:
        """Return nothing."""
        return {}


class ChoicesState(NamedTuple):
    """State of `MatchChoices`.

    Attributes:
        key: [B, 2] int64 random key.
        t: [B] int64 number of steps taken.
        right: [B, 3] int64 the right choices.
    """

    key: Tensor
    t: Tensor
    right: Tensor


class MatchChoices(TensorEnv):
    """Three choices, among 3, 2 and 4, each of which is told by one number in [-1, 1]: each right one pays 1/3.

    The best constant choices are right with chances of 1/3, 1/2 and 1/4 and are paid 13/36 in the mean.
    """

    best_constant = sum(1 / n for n in CHOICES) / len(CHOICES)

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__(device=device, dtype=dtype)
        self.observation_space = spaces.Box(-1.0, 1.0, (len(CHOICES),), self.numpy_dtype)
        self.action_space = spaces.MultiDiscrete(list(CHOICES))

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> ChoicesState:
        """Start an episode for each key; there are no options.

        Raises:
            UsageError: an option is given.
        """
        _refuse_options(options)
        right = torch.stack([random.integers(keys, 0, 0, n, stream=d) for d, n in enumerate(CHOICES)], 1)
        return ChoicesState(keys, torch.zeros_like(right[:, 0]), right)

    def observe(self, state: ChoicesState, player: Tensor | None = None) -> Tensor:
        """Return [B, 3] in [-1, 1]: the place of each right choice in its row."""
        most = torch.tensor([n - 1 for n in CHOICES], device=state.right.device)
        return (2 * state.right.to(self.dtype) / most - 1).to(self.dtype)

    def step(self, state: ChoicesState, action: Tensor) -> tuple[ChoicesState, Tensor, Tensor]:
        """Pay for the right choices and end."""
        reward = (action.reshape(state.right.shape).long() == state.right).to(torch.float32).mean(1)
        return state._replace(t=state.t + 1), reward, torch.ones_like(state.t, dtype=torch.bool)

    def info(self, state: ChoicesState) -> dict[str, Tensor]:
        """Return nothing."""
        return {}


def _refuse_options(options: dict[str, Any] | None) -> None:
    if options:
        raise UsageError(f"a probe has no reset options, got {sorted(options)}")
