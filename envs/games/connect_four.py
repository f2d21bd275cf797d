"""Connect four."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .boards import SmallGame

ROWS, COLUMNS = 6, 7
DIRECTIONS = (1, 7, 6, 8)  # up, across, and both diagonals, in bits of a column of 6 cells and an empty one


class ConnectFourState(NamedTuple):
    """State of a game.

    Attributes:
        key: [N, 2] int64.
        t: [N] int64, moves made; the player to move is `t % 2`.
        discs: [N, 2] int64, the discs of each player as bits: cell (row r from below, column c) is bit 7 c + r.
        height: [N, 7] int64, discs in each column.
    """

    key: Tensor
    t: Tensor
    discs: Tensor
    height: Tensor


class ConnectFour(SmallGame):
    """Four in a row on a board of six by seven, by the rules of PettingZoo's connect_four_v3; the players move in turn.

    Action: the column, 0 to 6; only columns with room are allowed. Observation: (6, 7, 2) int8, the top row first: the discs of the
    player who looks in the first plane, the other's in the second. Reward 1 to the winner and -1 to the loser at the end; a disc in
    a full column loses 1 and ends the game.
    """

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        """Make the game."""
        super().__init__(device=device, dtype=dtype)
        self.observation_space = spaces.Box(0, 1, (ROWS, COLUMNS, 2), np.int8)
        self.action_space = spaces.Discrete(COLUMNS)
        cells = [[7 * column + ROWS - 1 - row for column in range(COLUMNS)] for row in range(ROWS)]
        self.cells = torch.tensor(cells, device=self.device).flatten()

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> ConnectFourState:
        """Start a game for each key, [N, 2] int64; there are no options."""
        discs, height = (torch.zeros((keys.shape[0], n), dtype=torch.int64, device=keys.device) for n in (2, COLUMNS))
        return ConnectFourState(keys, self.no_time(keys, options), discs, height)

    def step(self, state: ConnectFourState, action: Tensor) -> tuple[ConnectFourState, Tensor, Tensor]:
        """Drop a disc into the column `action`, [N] int64; see `TensorEnv.step`."""
        row = state.height.gather(1, action[:, None])[:, 0]
        disc = torch.ones_like(action) << (7 * action + row)
        own = torch.arange(2, device=action.device) == self.player(state)[:, None]
        discs = torch.where(own, state.discs | disc[:, None], state.discs)
        height = state.height + (torch.arange(COLUMNS, device=action.device) == action[:, None])
        mine = torch.where(own, discs, 0).sum(1)
        has_won = torch.zeros_like(action, dtype=torch.bool)
        for step in DIRECTIONS:
            pairs = mine & (mine >> step)
            has_won = has_won | ((pairs & (pairs >> (2 * step))) != 0)
        reward = torch.where(own, 1.0, -1.0) * has_won[:, None]
        after = ConnectFourState(state.key, state.t + 1, discs, height)
        return after, reward, has_won | (after.t >= ROWS * COLUMNS)

    def observe(self, state: ConnectFourState, player: Tensor | None = None) -> Tensor:
        """Return [N, 6, 7, 2] int8 as seen by `player`, [N] int64; None: the one to move."""
        who = self.player(state) if player is None else player
        order = torch.stack((who, 1 - who), 1)
        shown = (state.discs.gather(1, order)[:, None, :] >> self.cells[:, None]) & 1
        return shown.to(torch.int8).view(-1, ROWS, COLUMNS, 2)

    def mask(self, state: ConnectFourState, player: Tensor | None = None) -> Tensor:
        """Return [N, 7] bool: the columns with room; all where there is none."""
        room = state.height < ROWS
        return room | ~room.any(1, keepdim=True)

    def player(self, state: ConnectFourState) -> Tensor:
        """Return whose turn it is, [N] int64."""
        return state.t % 2

    def board(self, state: ConnectFourState, i: int) -> np.ndarray:
        """Return the board of row i, [6, 7], the top row first: 0 empty, 1 the first player, 2 the second."""
        first, second = ((state.discs[i, p] >> self.cells) & 1 for p in range(2))
        return (first + 2 * second).view(ROWS, COLUMNS).cpu().numpy()

    def render_text(self, state: ConnectFourState, i: int) -> str:
        """Write the board of row i as six lines of ".", "X" and "O"."""
        return "\n".join("".join(".XO"[mark] for mark in row) for row in self.board(state, i))

    def render(self, state: ConnectFourState, i: int) -> np.ndarray:
        """Draw the board of row i as [H, W, 3] uint8: the first player in blue, the second in red."""
        colours = np.array([(241, 243, 244), (26, 115, 232), (217, 48, 37)], np.uint8)
        size = 44
        picture = np.full((ROWS * size, COLUMNS * size, 3), 255, np.uint8)
        y, x = np.mgrid[:size, :size] - (size - 1) / 2
        disc = x * x + y * y <= (size * 0.42) ** 2
        for (row, column), mark in np.ndenumerate(self.board(state, i)):
            picture[row * size : (row + 1) * size, column * size : (column + 1) * size][disc] = colours[mark]
        return picture
