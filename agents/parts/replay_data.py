"""Datasets of episodes in a replay buffer: read episode by episode, so that memory holds the transitions and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.data.dataset_source import agent_spaces
from polyathlon.envs.data.datasets import open_dataset
from polyathlon.envs.data.transitions import Transition, transitions
from polyathlon.envs.errors import UsageError

from .observations import as_seen, is_flat, new_replay, turned
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
    tell: Callable[[str], object] | None = None,
) -> Replay:
    """Make a replay buffer that holds a dataset.

    Rows hold observations as `as_seen` has them (pictures in bytes, the channels where the agent has them) and actions scaled
    to [-1, 1]. An episode that a limit cut is bootstrapped: `done` is
    1 only where it terminated. No transition joins two episodes.

    Args:
        dataset: an id of a local Minari dataset, its folder, or Minari's object (which may be a selection of episodes).
        observation_space: what the agent sees; None takes the dataset's.
        action_space: how the agent acts; None takes the dataset's.
        device: where the rows lie.
        spare: number of further transitions that the memory has room for.
        on_disk: keep the rows in a temporary file that is mapped into memory, for data larger than that.
        tell: called with how much memory it takes, before that is taken.

    Raises:
        UsageError: there is no such dataset, it is damaged, or its spaces are not the agent's.
    """
    data = open_dataset(dataset)
    shown, acted = agent_spaces(data, observation_space, action_space)
    size = int(np.prod(acted.shape or (), dtype=int))
    wanted = shown if observation_space is None else observation_space
    replay = new_replay(data.total_steps + spare, wanted, size, torch.device(device), on_disk=on_disk, tell=tell)
    fill(replay, data, acted, wanted)
    return replay


def fill(
    replay: Replay,
    dataset: MinariDataset,
    action_space: spaces.Space[Any],
    observation_space: spaces.Space[Any] | None = None,
) -> None:
    """Add every transition of a dataset to a replay buffer, in order.

    Args:
        replay: the memory; the oldest transitions are overwritten when it is too small.
        dataset: what `open_dataset` returned.
        action_space: bounds that the actions are scaled by.
        observation_space: what the agent sees; None is the dataset's.

    Raises:
        UsageError: the bounds are infinite, or an action lies outside them.
    """
    for rows in rows_of(dataset, action_space, replay.rows.device, observation_space):
        replay.add(*rows)
    replay.recorded = replay.added


def rows_of(
    dataset: MinariDataset,
    action_space: spaces.Space[Any],
    device: torch.device,
    observation_space: spaces.Space[Any] | None = None,
) -> Iterator[tuple[Any, Tensor, Any, Tensor, Tensor, Tensor]]:
    """Read a dataset as the arguments of `Replay.add`, a part of an episode at a time.

    Args:
        dataset: what `open_dataset` returned.
        action_space: bounds that the actions are scaled by; choices are counted from 0.
        device: where the tensors go.
        observation_space: what the agent sees; None is the dataset's.

    Raises:
        UsageError: the bounds are infinite, or an action lies outside them.
    """
    wanted = dataset.observation_space if observation_space is None else observation_space
    for part in transitions(dataset):
        obs, next_obs = (_observations(x, dataset.observation_space, wanted, device) for x in (part.obs, part.next_obs))
        arrays = (_coded(part, action_space, dataset.id), part.reward, part.terminated)
        acted, reward, done = (torch.as_tensor(np.asarray(x, np.float32), device=device) for x in arrays)
        ended = torch.as_tensor(part.terminated | part.truncated, device=device)
        ended[-1:] |= part.is_last
        yield obs, acted, next_obs, reward, done, ended


def _observations(arrays: Any, shown: spaces.Space[Any], wanted: spaces.Space[Any], device: torch.device) -> Any:
    if isinstance(arrays, dict):
        assert isinstance(shown, spaces.Dict) and isinstance(wanted, spaces.Dict)
        parts = {k: (torch.as_tensor(v, device=device), shown[k], wanted[k]) for k, v in arrays.items()}
        return as_seen({key: turned(*part) for key, part in parts.items()}, False)
    return as_seen(turned(torch.as_tensor(arrays, device=device), shown, wanted), is_flat(wanted))


def _coded(part: Transition, space: spaces.Space[Any], name: str) -> np.ndarray:
    """Return actions [T, A]: of a Box scaled to [-1, 1], choices counted from 0."""
    if isinstance(space, spaces.Box):
        low, high = (np.asarray(x, np.float64).reshape(-1) for x in (space.low, space.high))
        if not np.isfinite([low, high]).all():
            raise UsageError(f"the bounds of the actions of {name!r} are not finite: {space}")
        return _scaled(part, low, high, name)
    chosen = part.action.reshape(len(part.action), -1)
    if isinstance(space, spaces.MultiDiscrete):
        chosen = chosen - space.start.reshape(-1)
    counts = space.nvec.reshape(-1) if isinstance(space, spaces.MultiDiscrete) else 2
    if ((chosen < 0) | (chosen >= counts)).any():
        raise UsageError(f"an action of {name!r} is no element of its space {space}: record the dataset anew")
    return chosen


def _scaled(part: Transition, low: np.ndarray, high: np.ndarray, name: str) -> np.ndarray:
    action = part.action.reshape(len(part.action), -1).astype(np.float64)
    scaled = 2 * (action - low) / (high - low) - 1
    if np.abs(scaled).max(initial=0.0) > 1 + TOLERANCE:
        raise UsageError(
            f"an action of {name!r} lies outside the bounds of its space (by {np.abs(scaled).max() - 1:.2g} of half their range): "
            "clip the actions where the dataset is recorded (gymnasium.wrappers.ClipAction)"
        )
    return np.clip(scaled, -1, 1)
