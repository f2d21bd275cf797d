"""Datasets of episodes in a replay memory: read episode by episode, so that memory holds the transitions and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

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
    """Make a replay memory that holds a dataset.

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


def dataset_source(dataset: MinariDataset) -> dict[str, Any]:
    """Return names and numbers by which `reopen` finds a dataset again; SB3's zip can hold them.

    Args:
        dataset: what `open_dataset` returned.
    """
    return {
        "id": dataset.id,
        "path": str(dataset.storage.data_path),
        "episodes": [int(i) for i in dataset.episode_indices],
        "steps": int(dataset.total_steps),
    }


def reopen(source: dict[str, Any]) -> MinariDataset:
    """Open the dataset that `dataset_source` described.

    Raises:
        UsageError: it has moved or is another one by now.
    """
    from minari import MinariDataset

    if not os.path.isdir(source["path"]):
        raise UsageError(
            f"the dataset {source['id']!r} is no longer in {source['path']}: bring it back, or call set_dataset"
        )
    whole = open_dataset(source["path"])
    data = MinariDataset(whole.storage, np.asarray(source["episodes"]))
    if data.total_steps != source["steps"]:
        raise UsageError(f"the dataset in {source['path']} has changed since training began: call set_dataset")
    return data


def agent_spaces(
    dataset: MinariDataset,
    observation_space: spaces.Space[Any] | None = None,
    action_space: spaces.Space[Any] | None = None,
) -> tuple[spaces.Box, spaces.Box]:
    """Return the Boxes of a dataset's observations and actions, and refuse those that are not an agent's.

    Args:
        dataset: what `open_dataset` returned.
        observation_space: what the agent sees; None is whatever the dataset has.
        action_space: how the agent acts; None is whatever the dataset has.

    Raises:
        UsageError: they are no Boxes, or differ from the agent's in shape or bounds.
    """
    found = (dataset.observation_space, dataset.action_space)
    for name, space in zip(("observations", "actions"), found):
        if not isinstance(space, spaces.Box):
            raise UsageError(
                f"this agent learns from Boxes, but the {name} of {dataset.id!r} are {space}: record it from an environment "
                "wrapped for the agent (polyathlon.adapt, or VectorObservation and ContinuousAction)"
            )
    given = (observation_space, action_space)
    for name, space, own in zip(("observations", "actions"), found, given):
        if own is not None and own.shape != space.shape:
            raise UsageError(
                f"the {name} of {dataset.id!r} have the shape {space.shape}, those of the agent's environment {own.shape}: "
                "use the environment that the dataset was recorded in (dataset.recover_environment())"
            )
    bounds = [
        (space.low, space.high) for space in (dataset.action_space, action_space) if isinstance(space, spaces.Box)
    ]
    if len(bounds) == 2 and not all(np.allclose(a, b) for a, b in zip(*bounds)):
        raise UsageError(
            f"the actions of {dataset.id!r} lie in {dataset.action_space}, those of the agent's environment in {action_space}: "
            "use the environment that the dataset was recorded in"
        )
    return found


def fill(replay: Replay, dataset: MinariDataset, action_space: spaces.Box) -> None:
    """Add every transition of a dataset to a replay memory, in order.

    Args:
        replay: the memory; the oldest transitions are overwritten when it is too small.
        dataset: what `open_dataset` returned.
        action_space: bounds that the actions are scaled by.

    Raises:
        UsageError: the bounds are infinite, or an action lies outside them.
    """
    for rows in rows_of(dataset, action_space, replay.rows.device):
        replay.add(*rows)


def rows_of(
    dataset: MinariDataset, action_space: spaces.Box, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
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
        yield obs.flatten(1), acted, next_obs.flatten(1), reward, done


def _scaled(part: Transition, low: np.ndarray, high: np.ndarray, name: str) -> np.ndarray:
    action = part.action.reshape(len(part.action), -1).astype(np.float64)
    scaled = 2 * (action - low) / (high - low) - 1
    if np.abs(scaled).max(initial=0.0) > 1 + TOLERANCE:
        raise UsageError(
            f"an action of {name!r} lies outside the bounds of its space (by {np.abs(scaled).max() - 1:.2g} of half their range): "
            "clip the actions where the dataset is recorded (gymnasium.wrappers.ClipAction)"
        )
    return np.clip(scaled, -1, 1)
