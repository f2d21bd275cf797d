"""What one step of a batch means: legality, penalties, the time limit. The one place that knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError
from polyathlon.envs.random import choice

from . import trees
from .arguments import LARGEST_ACTION
from .base import TensorEnv

REPLACED = 8  # stream of the actions that are drawn in place of forbidden ones


class StepResult(NamedTuple):
    """What one step gives, before any reset.

    Attributes:
        state: the state after.
        reward: float32 [N], [N, k] or [N, num_players].
        terminated: [N] bool.
        truncated: [N] bool.
        illegal: [N] bool, the action was not allowed ([N, num_players] where players move at once); None where everything is.
    """

    state: Any
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    illegal: Tensor | None


def column(rows: Tensor, like: Tensor) -> Tensor:
    """Reshape [N] so that it broadcasts over the rows of `like`, [N, ...]."""
    return rows.reshape(-1, *[1] * (like.dim() - 1))


def advance(
    task: TensorEnv, limit: int, state: Any, action: Tensor, mask: Tensor | None, is_branching: bool
) -> StepResult:
    """Act in every row; an action that is not allowed does what `task.on_illegal` says, with `task.illegal_reward`.

    A row that it ends stays where it was, but the step counts. What players give who do not act counts for nothing.

    Args:
        task: the dynamics.
        limit: steps after which an episode is cut.
        state: the state before.
        action: [N, ...], inside the action space.
        mask: [N, A] bool allowed actions ([N, num_players, A] where players move at once), or None.
        is_branching: may ask the device whether any action is illegal; else compute both ways.
    """
    if mask is None:
        after, reward, terminated = task.step(state, action)
        return StepResult(after, reward.to(torch.float32), terminated, after.t >= limit, None)
    forbidden = ~mask.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    needs_care = not is_branching or bool(forbidden.any())
    illegal_each, is_replaced = forbidden, task.on_illegal == "replace"
    if needs_care:
        if task.simultaneous and _some_wait(task):
            illegal_each = forbidden & task.acting(state)
        action = torch.where(forbidden, replacement(task, state, mask), action)
    after, reward, terminated = task.step(state, action)
    reward = reward.to(torch.float32)
    if needs_care:
        penalty = _penalty(task, state, illegal_each, reward)
        if is_replaced:
            reward = reward + (penalty if illegal_each.dim() == 2 else penalty * column(illegal_each, reward))
        else:
            illegal = illegal_each if illegal_each.dim() == 1 else illegal_each.any(1)
            after = trees.where(illegal, state._replace(t=after.t), after)
            reward = torch.where(column(illegal, reward), penalty, reward)
            terminated = terminated | illegal
    return StepResult(after, reward, terminated, after.t >= limit, illegal_each)


def _some_wait(task: TensorEnv) -> bool:
    return type(task).acting is not TensorEnv.acting


def replacement(task: TensorEnv, state: Any, mask: Tensor) -> Tensor:
    """Return what is played for actions that are not allowed, [N] ([N, num_players] where players move at once).

    Where the row ends anyway that is the first allowed action. Else it is `pass_action` where allowed, or an allowed one drawn
    from the game's key and step, so that every form of the game draws the same.
    """
    if task.on_illegal != "replace":
        return mask.to(torch.int8).argmax(-1)
    each = mask if mask.dim() == 3 else mask[:, None]
    drawn = torch.stack([choice(state.key, state.t, each[:, p], REPLACED + 64 * p) for p in range(each.shape[1])], 1)
    if task.pass_action is not None:
        drawn = torch.where(each[:, :, task.pass_action], task.pass_action, drawn)
    return drawn.view(mask.shape[:-1])


def _penalty(task: TensorEnv, state: Any, illegal_each: Tensor, reward: Tensor) -> Tensor:
    """Give the penalty to the player who acted, 0 to the others; every objective of a vector reward gets it."""
    penalty = task.illegal_reward(state).to(torch.float32)
    if reward.dim() == penalty.dim():
        return penalty
    if task.num_players == 1:
        return penalty[:, None].expand_as(reward)
    if task.simultaneous:
        return penalty[:, None] * illegal_each
    players = torch.arange(task.num_players, device=penalty.device)
    return penalty[:, None] * (task.player(state)[:, None] == players)


def allowed(task: TensorEnv, state: Any, ended: Tensor | None) -> Tensor | None:
    """Return the mask of a state; finished rows allow everything, so that every row allows something.

    Where players move at once, those who do not act are allowed `pass_action` alone, if the task has one.
    """
    mask = task.mask(state)
    if mask is not None and mask.dim() == 3 and task.pass_action is not None and _some_wait(task):
        is_pass = torch.arange(mask.shape[-1], device=mask.device) == task.pass_action
        mask = torch.where(task.acting(state)[:, :, None], mask, is_pass)
    if ended is None:
        return mask
    # copied into every column first: broadcasting along short rows would take several times as long
    return None if mask is None else mask | column(ended, mask).expand_as(mask).contiguous()


def count_actions(space: gym.Space[Any]) -> int | None:
    """Return the number of actions of a Discrete space, None for a Box."""
    return int(space.n) if isinstance(space, gym.spaces.Discrete) else None


def confined(num_actions: int | None, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return actions inside the space, and, as a tensor, whether those given are all inside; of a Box, at most the largest."""
    if num_actions is None:
        return action, (action.abs() <= LARGEST_ACTION).all()
    inside = action.clamp(0, num_actions - 1)
    return inside, (inside == action).all()


def invalid_action(space: gym.Space[Any], action: Tensor) -> UsageError:
    """Build the error for an action outside the space; the first offending row is shown."""
    if isinstance(space, gym.spaces.Discrete):
        wrong = (action < 0) | (action >= int(space.n))
        allowed_text = f"an action is an integer from 0 to {int(space.n) - 1}"
    else:
        wrong = ~(action.abs() <= LARGEST_ACTION)
        allowed_text = f"an action is a finite number of at most {LARGEST_ACTION:g} in size"
    row = int(wrong.reshape(wrong.shape[0], -1).any(1).nonzero()[0]) if bool(wrong.any()) else 0
    return UsageError(f"{allowed_text}; row {row} got {action[row].tolist()}")


def batch_shape(task: TensorEnv, num_envs: int) -> tuple[int, ...]:
    """Return the shape of the actions of all rows."""
    players = (task.num_players,) if task.simultaneous else ()
    return (num_envs, *players, *(task.action_space.shape or ()))


def read_action(task: TensorEnv, num_envs: int, action: Any) -> Tensor:
    """Check type and shape of the actions of all rows and move them to the task's device.

    Raises:
        TypeError: they are not numbers of the space's kind.
        UsageError: the shape is another one.
    """
    is_discrete = isinstance(task.action_space, gym.spaces.Discrete)
    if not isinstance(action, Tensor):
        array = np.asarray(action)
        if array.dtype.kind not in ("iu" if is_discrete else "iuf"):
            raise _wrong_type(task, array.dtype)
        action = (
            torch.from_numpy(np.ascontiguousarray(array)) if array.dtype.isnative else torch.as_tensor(array.tolist())
        )
    elif (is_discrete and (action.is_floating_point() or action.dtype is torch.bool)) or action.is_complex():
        raise _wrong_type(task, action.dtype)
    expected = batch_shape(task, num_envs)
    if tuple(action.shape) != expected:
        raise UsageError(
            f"actions must have the shape {expected}, one for each of {num_envs} environments"
            f"{' and each player' if task.simultaneous else ''}; got {tuple(action.shape)}"
        )
    dtype = torch.int64 if is_discrete else task.dtype
    return action.detach().to(device=task.device, dtype=dtype).contiguous()


def read_action_of_one(task: TensorEnv, action: Any) -> Tensor:
    """Check type and shape of the action of one player, and return it on the task's device.

    Raises:
        TypeError: it is no number of the space's kind.
        UsageError: the shape is another one.
    """
    rows = np.asarray(action.cpu() if isinstance(action, Tensor) else action)[None]
    if task.simultaneous:
        rows = np.repeat(rows[:, None], task.num_players, 1)
    checked = read_action(task, 1, rows)[0]
    return checked[0] if task.simultaneous else checked


def _wrong_type(task: TensorEnv, dtype: Any) -> TypeError:
    kind = "integers" if isinstance(task.action_space, gym.spaces.Discrete) else "real numbers"
    return TypeError(f"actions of {type(task).__name__} are {kind} ({task.action_space}), got {dtype}")


def check_seed(seed: Any) -> int:
    """Return a seed as an int.

    Raises:
        UsageError: it is not an integer in [0, 2^62).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**62:
        raise UsageError(f"a seed is an integer from 0 to 2^62 - 1, got {seed!r}")
    return int(seed)


def entropy_seed() -> int:
    """Draw a fresh seed from the operating system, in [0, 2^31)."""
    return int(np.random.SeedSequence().generate_state(1)[0]) >> 1


def listed(seed: Any) -> Sequence[Any] | None:
    """Return a list of seeds as a list, None when `seed` is something else."""
    return list(seed) if isinstance(seed, list | tuple | np.ndarray) else None
