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
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Return the spaces of a dataset's observations and actions, and refuse those that are not an agent's.

    Pictures [H, W, C] of a dataset are those of an agent that sees them as [C, H, W].

    Args:
        dataset: what `open_dataset` returned.
        observation_space: what the agent sees; None is whatever the dataset has.
        action_space: how the agent acts; None is whatever the dataset has.

    Raises:
        UsageError: observations are no arrays (or a Dict of them), actions are neither a Box nor several choices side by side, or
            they differ from the agent's in keys, shape or bounds.
    """
    shown, acted = dataset.observation_space, dataset.action_space
    parts = list(shown.spaces.values()) if isinstance(shown, spaces.Dict) else [shown]
    is_seen = all(isinstance(part, _PARTS if isinstance(shown, spaces.Dict) else spaces.Box) for part in parts)
    is_acted = isinstance(acted, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary)
    for name, space, fits in (("observations", shown, is_seen), ("actions", acted, is_acted)):
        if not fits:
            raise UsageError(
                f"this agent learns from Boxes, but the {name} of {dataset.id!r} are {space}: record it from an environment "
                "wrapped for the agent (polyathlon.adapt, or VectorObservation and ContinuousAction)"
            )
    if observation_space is not None:
        _refuse_other_observations(dataset, shown, observation_space)
    if action_space is not None:
        _refuse_other_actions(dataset, acted, action_space)
    return shown, acted


_PARTS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def _refuse_other_observations(
    dataset: MinariDataset, shown: spaces.Space[Any], own: spaces.Space[Any], key: str = ""
) -> None:
    if isinstance(shown, spaces.Dict) and isinstance(own, spaces.Dict):
        if set(shown.spaces) != set(own.spaces):
            raise UsageError(
                f"the observations of {dataset.id!r} have the keys {sorted(shown.spaces)}, those of the agent's environment "
                f"{sorted(own.spaces)}: use the environment that the dataset was recorded in (dataset.recover_environment())"
            )
        for name, part in shown.spaces.items():
            _refuse_other_observations(dataset, part, own[name], f" under {name!r}")
        return
    if type(shown) is type(own) and (shown.shape == own.shape or _is_turned(shown, own)):
        return
    given, wanted = (
        f"the shape {space.shape}" if isinstance(space, spaces.Box) else str(space) for space in (shown, own)
    )
    raise UsageError(
        f"the observations of {dataset.id!r}{key} have {given}, those of the agent's environment {wanted}: "
        "use the environment that the dataset was recorded in (dataset.recover_environment())"
    )


def _is_turned(shown: spaces.Space[Any], own: spaces.Space[Any]) -> bool:
    a, b = shown.shape or (), own.shape or ()
    return len(a) == 3 and shown.dtype == own.dtype == np.uint8 and (a[2], a[0], a[1]) == b


def _refuse_other_actions(dataset: MinariDataset, acted: spaces.Space[Any], own: spaces.Space[Any]) -> None:
    advice = "use the environment that the dataset was recorded in"
    if type(acted) is not type(own) or acted.shape != own.shape:
        raise UsageError(
            f"the actions of {dataset.id!r} have the shape {acted.shape} ({type(acted).__name__}), those of the agent's environment "
            f"{own.shape} ({type(own).__name__}): {advice} (dataset.recover_environment())"
        )
    if isinstance(acted, spaces.Box) and isinstance(own, spaces.Box):
        is_same = np.allclose(acted.low, own.low) and np.allclose(acted.high, own.high)
    else:
        is_same = acted == own
    if not is_same:
        raise UsageError(
            f"the actions of {dataset.id!r} lie in {acted}, those of the agent's environment in {own}: {advice}"
        )
