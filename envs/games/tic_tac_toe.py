"""Tic-tac-toe."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from .boards import SmallGame

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


class TicTacToeState(NamedTuple):
    """State of a game.

    Attributes:
        key: [N, 2] int64.
        t: [N] int64, moves made; the player to move is `t % 2`.
        board: [N, 9] int8, row by row: 0 empty, 1 the first player, 2 the second.
    """

    key: Tensor
    t: Tensor
    board: Tensor


class TicTacToe(SmallGame):
    """Three in a row on a board of three by three; the players move in turn.

    Action: the number of the cell, 0 to 8, row by row; only empty cells are allowed. Observation: (3, 3, 3) int8, the
    cells of the player who looks in the first plane, the other's in the second, the empty ones in the third. Reward 1 to the winner and -1 to the
    loser at the end, 0 otherwise; a move to a taken cell loses 1 and ends the game.
    """

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        """Make the game."""
        super().__init__(device=device, dtype=dtype)
        self.observation_space = spaces.Box(0, 1, (3, 3, 3), np.int8)
        self.action_space = spaces.Discrete(9)
        self.marks = torch.tensor([[1], [2]], dtype=torch.int8, device=self.device)
        # marks of the three planes as each player sees them
        self.planes = torch.tensor([[[1, 2, 0]], [[2, 1, 0]]], dtype=torch.int8, device=self.device)
        self.signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], device=self.device)
        # one column for each line: cells of one player times this counts how many of a line are his
        self.lines = torch.tensor([[float(cell in line) for line in LINES] for cell in range(9)], device=self.device)

    @property
    def players(self) -> dict[str, Any]:
        """The built-in players by name: "perfect" never loses."""
        from .perfect import PerfectPlayer

        return {"perfect": PerfectPlayer}

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> TicTacToeState:
        """Start a game for each key, [N, 2] int64; there are no options."""
        board = torch.zeros((keys.shape[0], 9), dtype=torch.int8, device=keys.device)
        return TicTacToeState(keys, self.no_time(keys, options), board)

    def step(self, state: TicTacToeState, action: Tensor) -> tuple[TicTacToeState, Tensor, Tensor]:
        """Put a mark into the cell `action`, [N] int64; see `TensorEnv.step`."""
        player = self.player(state)
        mark = self.marks.index_select(0, player)
        board = state.board.scatter(1, action.unsqueeze(1), mark)
        has_won = ((board == mark).float() @ self.lines >= 3).any(1, keepdim=True)
        reward = self.signs.index_select(0, player) * has_won
        has_won = has_won.squeeze(1)
        after = TicTacToeState(state.key, state.t + 1, board)
        return after, reward, has_won | (after.t >= 9)

    def observe(self, state: TicTacToeState, player: Tensor | None = None) -> Tensor:
        """Return [N, 3, 3, 3] int8 as seen by `player`, [N] int64; None: the one to move."""
        planes = self.planes.index_select(0, self.player(state) if player is None else player)
        return (state.board.unsqueeze(2) == planes).view(torch.int8).view(-1, 3, 3, 3)

    def mask(self, state: TicTacToeState, player: Tensor | None = None) -> Tensor:
        """Return [N, 9] bool: the empty cells; all where none is empty."""
        empty = state.board == 0
        return empty | ~empty.any(1, keepdim=True)

    def player(self, state: TicTacToeState) -> Tensor:
        """Return whose turn it is, [N] int64."""
        return state.t % 2

    def render_text(self, state: TicTacToeState, i: int) -> str:
        """Write the board of row i as three lines of ".", "X" and "O"."""
        cells = "".join(".XO"[mark] for mark in state.board[i].tolist())
        return "\n".join((cells[:3], cells[3:6], cells[6:]))

    def render(self, state: TicTacToeState, i: int) -> np.ndarray:
        """Draw the board of row i as [H, W, 3] uint8: the first player in blue, the second in red."""
        colours = np.array([(241, 243, 244), (26, 115, 232), (217, 48, 37)], np.uint8)
        picture = np.full((196, 196, 3), 255, np.uint8)
        for cell, mark in enumerate(state.board[i].tolist()):
            top, left = 4 + 64 * (cell // 3), 4 + 64 * (cell % 3)
            picture[top : top + 60, left : left + 60] = colours[mark]
        return picture
