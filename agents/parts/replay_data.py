"""Datasets of episodes in a replay buffer: read episode by episode, so that memory holds the transitions and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.data.dataset_source import agent_spaces
from polyathlon.envs.data.datasets import Transition, open_dataset, transitions
from polyathlon.envs.errors import UsageError

from .replay import Replay

if TYPE_CHECKING:
    from pathlib import Path

    from minari import MinariDataset

# how far a stored action may lie outside the bounds by rounding, as a share of their range
TOLERANCE = 1e-5


def dataset_replay(
    dataset: str | Path | MinariDataset,
    observation_space: spaces.Space[Any] | None = None,
    action_space: spaces.Space[Any] | None = None,
    device: torch.device | str = "cpu",
    *,
    spare: int = 0,
    on_disk: bool = False,
) -> Replay:
    """Make a replay buffer that holds a dataset.

    Rows hold float32 observations and actions scaled to [-1, 1]. An episode that a limit cut is bootstrapped: `done` is
    1 only where it terminated. No transition joins two episodes.

    Args:
        dataset: an id of a local Minari dataset, its folder, or Minari's object (which may be a selection of episodes).
        observation_space: what the agent sees; None takes the dataset's.
        action_space: how the agent acts; None takes the dataset's.
        device: where the rows lie.
        spare: number of further transitions that the memory has room for.
        on_disk: keep the rows in a temporary file that is mapped into memory, for data larger than that.

    Raises:
        UsageError: there is no such dataset, it is damaged, or its spaces are not the agent's.
    """
    data = open_dataset(dataset)
    shown, acted = agent_spaces(data, observation_space, action_space)
    obs_size, action_size = (int(np.prod(space.shape, dtype=int)) for space in (shown, acted))
    replay = Replay(data.total_steps + spare, obs_size, action_size, torch.device(device), on_disk=on_disk)
    fill(replay, data, acted)
    return replay


def fill(replay: Replay, dataset: MinariDataset, action_space: spaces.Box) -> None:
    """Add every transition of a dataset to a replay buffer, in order.

    Args:
        replay: the memory; the oldest transitions are overwritten when it is too small.
        dataset: what `open_dataset` returned.
        action_space: bounds that the actions are scaled by.

    Raises:
        UsageError: the bounds are infinite, or an action lies outside them.
    """
    for rows in rows_of(dataset, action_space, replay.rows.device):
        replay.add(*rows)
    replay.recorded = replay.added


def rows_of(
    dataset: MinariDataset, action_space: spaces.Box, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Read a dataset as the arguments of `Replay.add`, a part of an episode at a time.

    Args:
        dataset: what `open_dataset` returned.
        action_space: bounds that the actions are scaled by.
        device: where the tensors go.

    Raises:
        UsageError: the bounds are infinite, or an action lies outside them.
    """
    low, high = (np.asarray(x, np.float64).reshape(-1) for x in (action_space.low, action_space.high))
    if not np.isfinite([low, high]).all():
        raise UsageError(f"the bounds of the actions of {dataset.id!r} are not finite: {action_space}")
    for part in transitions(dataset):
        action = _scaled(part, low, high, dataset.id)
        arrays = (part.obs, action, part.next_obs, part.reward, part.terminated)
        rows = [torch.as_tensor(np.asarray(x, np.float32), device=device) for x in arrays]
        obs, acted, next_obs, reward, done = rows
        ended = torch.as_tensor(part.terminated | part.truncated, device=device)
        ended[-1:] |= part.is_last
        yield obs.flatten(1), acted, next_obs.flatten(1), reward, done, ended


def _scaled(part: Transition, low: np.ndarray, high: np.ndarray, name: str) -> np.ndarray:
    action = part.action.reshape(len(part.action), -1).astype(np.float64)
    scaled = 2 * (action - low) / (high - low) - 1
    if np.abs(scaled).max(initial=0.0) > 1 + TOLERANCE:
        raise UsageError(
            f"an action of {name!r} lies outside the bounds of its space (by {np.abs(scaled).max() - 1:.2g} of half their range): "
            "clip the actions where the dataset is recorded (gymnasium.wrappers.ClipAction)"
        )
    return np.clip(scaled, -1, 1)
