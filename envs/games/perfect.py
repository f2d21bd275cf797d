"""Perfect play of tic-tac-toe, by minimax over all of its boards."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.random import choice
from polyathlon.envs.tensor import TensorEnv

from .tic_tac_toe import LINES

DRAW = 1000  # stream of the draws of players
Board = tuple[int, ...]  # nine cells: 0 empty, 1 of the one to move, 2 of the other


@cache
def value(board: Board) -> int:
    """Return what the one to move gets when both play perfectly: 1, 0 or -1."""
    for a, b, c in LINES:
        if board[a] == board[b] == board[c] == 2:
            return -1
    moves = [cell for cell in range(9) if not board[cell]]
    return max((-value(_after(board, cell)) for cell in moves), default=0)


def _after(board: Board, cell: int) -> Board:
    """Return the board as the other sees it once a cell is taken."""
    seen = [0, 2, 1]
    return tuple(2 if i == cell else seen[mark] for i, mark in enumerate(board))


@cache
def _table() -> Tensor:
    """Return the best moves of each board, [3^9, 9] bool; a board is a number in base 3."""
    best = torch.zeros(3**9, 9, dtype=torch.bool)
    seen: set[Board] = set()
    stack: list[Board] = [(0,) * 9]
    while stack:
        board = stack.pop()
        if board in seen:
            continue
        seen.add(board)
        lost = any(board[a] == board[b] == board[c] == 2 for a, b, c in LINES)
        moves = [] if lost else [cell for cell in range(9) if not board[cell]]
        following = [_after(board, cell) for cell in moves]
        stack += following
        worth = [-value(after) for after in following]
        code = sum(mark * 3**i for i, mark in enumerate(board))
        for cell, own in zip(moves, worth):
            best[code, cell] = own == max(worth)
    return best


class PerfectPlayer:
    """Plays a best move of tic-tac-toe, drawn uniformly from all of them.

    Args:
        task: the game.
    """

    def __init__(self, task: TensorEnv) -> None:
        self.best = _table().to(task.device)
        self.powers = 3 ** torch.arange(9, device=task.device)

    def __call__(self, obs: Any, mask: Tensor | None, player: Tensor, env_index: Tensor, key: Tensor) -> Tensor:
        """Answer for k seats, `obs` [k, 3, 3, 3]; see `polyathlon.envs.tensor.opponents`."""
        own, other = (obs[..., plane].flatten(1).long() for plane in (0, 1))
        return choice(key, 0, self.best[((own + 2 * other) * self.powers).sum(1)], DRAW)
