"""The transitions of datasets in Minari's format, checked episode by episode as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polyathlon.envs.errors import UsageError

from .datasets import damaged

if TYPE_CHECKING:
    from minari import MinariDataset


class Transition(NamedTuple):
    """The transitions of an episode, or of a part of it.

    Attributes:
        obs: [T, ...] observations acted on; a dict of them where the space is one.
        action: [T, ...] actions.
        next_obs: [T, ...] true next observations.
        reward: [T] float32.
        terminated: [T] bool, the task ended the episode there: its value is 0.
        truncated: [T] bool, a limit cut it there: the value of `next_obs` must be bootstrapped.
        is_last: the part reaches to the end of what was recorded of the episode.
    """

    obs: Any
    action: NDArray[Any]
    next_obs: Any
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    is_last: bool = True


def transitions(dataset: MinariDataset, chunk: int = 8192) -> Iterator[Transition]:
    """Read the transitions of a dataset with array observations (or dicts of them) and actions, one episode in memory at a time.

    Args:
        dataset: what `open_dataset` returned.
        chunk: longest part of an episode in one item.

    Raises:
        DamagedDataset: an episode has the wrong number of observations or holds NaN or infinity.
        UsageError: observations or actions are no arrays.
    """
    for episode in dataset.iterate_episodes():
        obs, action = episode.observations, episode.actions
        parts = list(obs.values()) if isinstance(obs, dict) else [obs]
        if not all(isinstance(x, np.ndarray) for x in (*parts, action)):
            raise UsageError(
                f"{dataset.id} holds observations of {dataset.observation_space} and actions of {dataset.action_space}; "
                "arrays are needed, or a Dict of them: record it from an environment wrapped for the agent (polyathlon.adapt)"
            )
        _check_episode(dataset.id, episode, parts)
        for start in range(0, len(episode.rewards), chunk):
            part = slice(start, min(start + chunk, len(episode.rewards)))
            following = slice(part.start + 1, part.stop + 1)
            yield Transition(
                _rows(obs, part),
                action[part],
                _rows(obs, following),
                np.asarray(episode.rewards[part], np.float32),
                np.asarray(episode.terminations[part], bool),
                np.asarray(episode.truncations[part], bool),
                part.stop == len(episode.rewards),
            )


def _rows(obs: Any, rows: slice) -> Any:
    return {key: value[rows] for key, value in obs.items()} if isinstance(obs, dict) else obs[rows]


def _check_episode(name: str, episode: Any, parts: list[NDArray[Any]]) -> None:
    """Refuse an episode whose lengths disagree or whose numbers are not finite.

    Raises:
        DamagedDataset: so.
    """
    action, length = episode.actions, len(episode.rewards)
    sizes = [len(x) for x in (action, episode.terminations, episode.truncations)]
    if any(len(part) != length + 1 for part in parts) or any(size != length for size in sizes):
        raise damaged(
            name,
            f"episode {episode.id} has {len(parts[0])} observations for {length} steps and {len(action)} actions",
        )
    named = [*(("observation", part) for part in parts), ("action", action), ("reward", episode.rewards)]
    for what, array in named:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise damaged(name, f"an {what} of episode {episode.id} is not finite")
