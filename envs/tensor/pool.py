"""First states drawn ahead: one draw for several episodes of every row costs little more than one for a single row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.random import make_keys

from . import trees
from .base import TensorEnv

_BUDGET = 4 * 2**20
_MAX_DEPTH = 16
_MOST_ROWS = 8192


def depth_for(state: Any, num_envs: int) -> int:
    """Return how many episodes to draw ahead for each row, so that the pool stays within 4 MiB; at least 1.

    On a processor a draw is also kept below the size at which torch splits it over threads, which would wait for each
    other at every one of its many small operations.
    """
    row_bytes = sum(leaf.element_size() * leaf[0].numel() for leaf in trees.leaves(state))
    depth = min(_MAX_DEPTH, _BUDGET // max(1, row_bytes * num_envs))
    if state.t.device.type == "cpu":
        depth = min(depth, _MOST_ROWS // num_envs)
    return max(1, depth)


def gather(states: Any, cursor: Tensor) -> Any:
    """Return the next first state of every row.

    Args:
        states: tree of [depth * N, ...].
        cursor: [N] int64 number of episodes already taken.
    """
    num_envs = cursor.shape[0]
    index = cursor * num_envs + torch.arange(num_envs, device=cursor.device)
    return trees.take(states, index)


class Pool:
    """The first states of the next `depth` episodes of every row.

    A row takes at most one episode in a step, so it is enough to look at the cursors when the fullest row could have
    run out; an accelerator is hardly ever waited for.

    Attributes:
        states: tree of [depth * N, ...]; row i of episode `base + 1 + d` is at d * N + i.
        cursor: [N] int64, episodes taken by each row.
    """

    def __init__(self, task: TensorEnv, seeds: Tensor, base: Tensor, depth: int) -> None:
        ahead = torch.arange(1, depth + 1, device=base.device)[:, None]
        keys = make_keys(seeds.expand(depth, -1).reshape(-1), (base + ahead).reshape(-1))
        self.states = task.reset(keys)
        self.base = base
        self.depth = depth
        self.cursor = torch.zeros_like(base)
        self._steps_left = depth

    def lasts(self) -> bool:
        """Return whether every row still has an episode; call it once before each step."""
        if self._steps_left == 0:
            self._steps_left = self.depth - int(self.cursor.max())
        self._steps_left -= 1
        return self._steps_left >= 0
