"""From tensors to what an interface hands out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from . import trees
from .base import TensorEnv

Tree = Any


def to_numpy(tree: Tree) -> Any:
    """Turn a tensor or a dict of tensors into numpy arrays."""
    if isinstance(tree, Tensor):
        return tree.detach().cpu().numpy()
    return {name: to_numpy(item) for name, item in tree.items()}


def row_of(tree: Tree, row: int) -> Any:
    """Take one row of an array or a dict of arrays, as a copy."""
    if isinstance(tree, dict):
        return {name: row_of(item, row) for name, item in tree.items()}
    return np.array(tree[row])


def collect_info(
    task: TensorEnv, state: Any, mask: Tensor | None, illegal: Tensor | None, reward: Tensor | None = None
) -> dict[str, Tensor]:
    """Gather the info of all rows, sharing no memory with the state or the mask.

    Args:
        task: the dynamics.
        state: where the rows stand.
        mask: [N, A] bool or None.
        illegal: [N] bool or None.
        reward: [N, num_players] the rewards of a game.

    Returns:
        The task's own facts, and "action_mask", "illegal_action", "acting", "player" and "rewards" where they apply.
    """
    return {**task_info(task, state), **interface_info(task, state, mask, illegal, reward)}


def task_info(task: TensorEnv, state: Any) -> dict[str, Tensor]:
    """Return the task's own facts about all rows, and in a game who acts, sharing no memory with the state."""
    info: dict[str, Tensor] = task.info(state)
    if task.num_players > 1:
        info = {**info, "acting": task.acting(state)}
    return dict(trees.unaliased(info, state)) if info else {}


def interface_info(
    task: TensorEnv, state: Any, mask: Tensor | None, illegal: Tensor | None, reward: Tensor | None = None
) -> dict[str, Tensor]:
    """Return what every task has where it applies; see `collect_info`."""
    info: dict[str, Tensor] = {}
    if mask is not None:
        info["action_mask"] = mask.clone()
    if illegal is not None:
        info["illegal_action"] = illegal
    if task.num_players > 1:
        if not task.simultaneous:
            info["player"] = task.player(state).clone()
        if reward is not None:
            info["rewards"] = reward
    return info


def actor_reward(task: TensorEnv, reward: Tensor, player: Tensor | None) -> Tensor:
    """Return the reward that an interface of one agent gives: in a game that of who moved, [N], else the reward as it is.

    Where everybody moves at once it is the first player's.
    """
    if task.num_players == 1:
        return reward
    return reward[:, 0].clone() if player is None else reward.gather(1, player[:, None])[:, 0]
