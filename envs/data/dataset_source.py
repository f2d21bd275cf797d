"""Where a dataset came from, so that it can be opened again, and whether its spaces are those of an agent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from polyathlon.envs.errors import UsageError

from .datasets import open_dataset

if TYPE_CHECKING:
    from minari import MinariDataset


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
