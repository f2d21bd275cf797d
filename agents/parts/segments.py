"""Segments: equally long pieces of episodes that are compared with each other; where they lie in a memory, and files of them."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name

from .action_distributions import choices_of
from .contrastive_preference import refuse_no_preference
from .observations import as_seen, is_flat, new_replay, turned
from .replay import Replay

NAMES = ("obs", "action", "preferred", "score", "reward")
LONGEST = 64  # steps of a segment where nothing says how many, as in the authors' runs
TOLERANCE = 1e-5  # how far an action may lie outside its bounds by rounding, as a share of their range


@dataclass(frozen=True)
class Segments:
    """Segments of K steps in a replay memory, scored one by one or compared in pairs.

    Attributes:
        length: K.
        starts: [S] int64, place of each segment's first step in the memory.
        score: [S], higher is better; None where pairs were given.
        pairs: [P, 2] int64, which segments are compared; None draws partners anew for each minibatch.
        preferred: [P] in [0, 1], how likely the first of each pair is the better one.
    """

    length: int
    starts: Tensor
    score: Tensor | None = None
    pairs: Tensor | None = None
    preferred: Tensor | None = None

    def steps(self, which: Tensor) -> Tensor:
        """Return the places [n K] in the memory of all steps of some segments [n], one after the other."""
        within = torch.arange(self.length, device=self.starts.device)
        return (self.starts[which.reshape(-1)][:, None] + within).reshape(-1)


def possible_starts(ended: Tensor, length: int) -> Tensor:
    """Return the places at which a segment may start without reaching into the next episode, int64.

    Args:
        ended: [N] bool, the episode goes no further than this step.
        length: K, steps of a segment.

    Raises:
        UsageError: no episode is that long.
    """
    episode = ended.to(torch.int64).cumsum(0) - ended.to(torch.int64)
    number = len(ended) - length + 1
    starts = (episode[:number] == episode[length - 1 :]).nonzero()[:, 0] if number > 0 else episode[:0]
    if not len(starts):
        raise UsageError(
            f"segment_length={length}, but no episode of the data is that long (the longest has {int(episode_lengths(ended).max())} "
            "steps): give a smaller one, or None for the length of the shortest episode"
        )
    return starts


def episode_lengths(ended: Tensor) -> Tensor:
    """Return the number of steps of each episode, int64; the last step ends one in any case."""
    last = ended.clone()
    last[-1] = True
    ends = last.nonzero()[:, 0]
    return torch.diff(ends, prepend=ends.new_tensor([-1]))


def segment_source(data: Any) -> dict[str, Any] | None:
    """Return how arrays of segments are found again, for files: a path with the hash of its contents; None of a Minari dataset.

    Args:
        data: a .npz file, or a dict of arrays (see `read_segments`).

    Raises:
        UsageError: it is neither, and no name of a dataset.
    """
    if isinstance(data, Mapping):
        unknown = [name for name in data if name not in NAMES]
        if unknown:
            raise unknown_name("array of segments", str(unknown[0]), NAMES)
        return {"arrays": dict(data)}
    if isinstance(data, str | Path) and str(data).endswith(".npz"):
        path = Path(data).expanduser()
        if not path.is_file():
            raise UsageError(f"there is no file {path}: segments are a .npz file with the arrays {', '.join(NAMES)}")
        return {"path": str(path.absolute()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return None


def read_segments(source: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read arrays of segments and check that they belong together.

    - pairs: `obs` [P, 2, K or K + 1, ...], `action` [P, 2, K, ...], `preferred` [P]: 1 where the first of the two is better, .5 for a tie;
    - scored: `obs` [S, K or K + 1, ...], `action` [S, K, ...], `score` [S].

    `reward` beside them, of the form of the steps, is read by agents that learn from rewards too.

    Args:
        source: what `segment_source` returned.

    Returns:
        The arrays, with the segments in the first place: obs [S, ...], action [S, K, ...].

    Raises:
        UsageError: an array is missing, segments have different lengths, or numbers are not finite.
    """
    found = {name: _array(name, value) for name, value in _opened(source).items()}
    for name in ("obs", "action"):
        if name not in found:
            raise UsageError(f"segments need the array {name!r}, got {sorted(found)}")
    if not all(array.size for array in found.values()):
        raise UsageError(
            f"there are no segments: an array is empty, { ({name: array.shape for name, array in found.items()}) }"
        )
    judged = [name for name in ("preferred", "score") if name in found]
    if len(judged) != 1:
        raise UsageError(
            "segments are judged by 'preferred' (pairs) or by 'score' (one by one), one of the two; got "
            f"{' and '.join(judged) or 'neither'}"
        )
    front = 2 if judged == ["preferred"] else 1
    _refuse_shapes(found, judged[0], front)
    if front == 2:
        refuse_no_preference(torch.as_tensor(found["preferred"]))
        for name in [n for n in ("obs", "action", "reward") if n in found]:
            found[name] = found[name].reshape(-1, *found[name].shape[2:])
    return found


def _opened(source: Mapping[str, Any]) -> Mapping[str, Any]:
    if "arrays" in source:
        return source["arrays"]
    path = Path(source["path"])
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != source["sha256"]:
        raise UsageError(f"the segments in {path} have moved or changed since training began: call set_segments")
    try:
        with np.load(path, allow_pickle=False) as file:
            unknown = [name for name in file.files if name not in NAMES]
            if unknown:
                raise unknown_name("array of segments", unknown[0], NAMES)
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no .npz file of segments: {error}") from error


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
        is_ragged = array.dtype.kind == "O"
    except ValueError:
        is_ragged = True
    if is_ragged:
        raise UsageError(
            f"the segments in {name!r} have different lengths: all segments that are compared have equally many steps; cut them to the "
            "shortest"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(f"a number in {name!r} of the segments is not finite")
    return array


def _refuse_shapes(found: Mapping[str, np.ndarray], judged: str, front: int) -> None:
    obs, action = found["obs"], found["action"]
    form = "[P, 2, K, ...]" if front == 2 else "[S, K, ...]"
    for name, array in (("obs", obs), ("action", action)):
        if array.ndim <= front or (front == 2 and array.shape[1] != 2):
            raise UsageError(f"{name!r} of segments with {judged!r} is {form}, got the shape {array.shape}")
    steps = action.shape[front]
    if obs.shape[front] not in (steps, steps + 1):
        raise UsageError(
            f"the segments have different lengths: {obs.shape[front]} observations and {steps} actions; give K observations to K actions, or "
            "K + 1, the last one after the last action"
        )
    sizes = {name: len(found[name]) for name in found}
    if len(set(sizes.values())) > 1:
        raise UsageError(f"the arrays of segments have different lengths: {sizes}")
    if found[judged].ndim != 1:
        raise UsageError(f"{judged!r} is one number for each, got the shape {found[judged].shape}")
    if "reward" in found and found["reward"].shape != action.shape[: front + 1]:
        raise UsageError(f"'reward' is {action.shape[: front + 1]}, one number a step, got {found['reward'].shape}")


def segments_memory(
    arrays: Mapping[str, np.ndarray],
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    device: torch.device,
) -> tuple[Replay, Segments]:
    """Put segments that were read into a replay memory, each as an episode that a limit cuts.

    Args:
        arrays: what `read_segments` returned.
        observation_space: what the agent sees.
        action_space: how it acts.
        device: where the memory lies.

    Raises:
        UsageError: observations or actions are not of these spaces.
    """
    action = _coded(arrays["action"], action_space)
    number, length = action.shape[:2]
    obs = _seen(arrays["obs"], observation_space, device)
    has_next = arrays["obs"].shape[1] == length + 1
    following = torch.cat([obs[:, 1:], obs[:, -1:]], 1)[:, :length] if not has_next else obs[:, 1:]
    rows = number * length
    replay = new_replay(rows, observation_space, action.shape[-1], device)
    reward = torch.as_tensor(arrays.get("reward", np.zeros((number, length))), dtype=torch.float32, device=device)
    ended = torch.zeros(number, length, dtype=torch.bool, device=device)
    ended[:, -1] = True
    acted = torch.as_tensor(action, dtype=torch.float32, device=device).reshape(rows, -1)
    shown, after = (x[:, :length].reshape(rows, *x.shape[2:]) for x in (obs, following))
    replay.add(shown, acted, after, reward.reshape(-1), torch.zeros(rows, device=device), ended.reshape(-1))
    replay.recorded = rows
    starts = torch.arange(number, device=device) * length
    if "score" in arrays:
        return replay, Segments(length, starts, _column(arrays["score"], device))
    pairs = torch.arange(number, device=device).reshape(-1, 2)
    return replay, Segments(length, starts, None, pairs, _column(arrays["preferred"], device))


def _column(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32, device=device)


def _seen(array: np.ndarray, space: spaces.Space[Any], device: torch.device) -> Tensor:
    if isinstance(space, spaces.Dict):
        raise UsageError(
            f"arrays of segments hold one array of observations, the agent sees {space}: give the Minari dataset that they come from "
            "(data=ID), or wrap the environment with polyathlon.wrappers.VectorObservation"
        )
    single = tuple(array.shape[2:])
    given = spaces.Box(0, 255, single, np.uint8) if array.dtype == np.uint8 else space
    obs = torch.as_tensor(array, device=device).flatten(0, 1)
    obs = turned(obs, given, space) if array.dtype == np.uint8 else obs
    if tuple(obs.shape[1:]) != tuple(space.shape or ()):
        raise UsageError(f"the observations of the segments have the shape {single}, those of the agent {space.shape}")
    seen: Tensor = as_seen(obs, is_flat(space))
    return seen.reshape(*array.shape[:2], *seen.shape[1:])


def _coded(array: np.ndarray, space: spaces.Space[Any]) -> np.ndarray:
    """Return actions [S, K, A]: of a Box scaled to [-1, 1], choices counted from 0."""
    wrong = UsageError(
        f"the segments come from another action space: their actions have the shape {tuple(array.shape[2:])} (numbers of kind "
        f"{array.dtype}), the agent acts in {space}"
    )
    if tuple(array.shape[2:]) != tuple(space.shape or ()):
        raise wrong
    flat = array.reshape(*array.shape[:2], -1)
    if choices := choices_of(space):
        chosen = flat - np.asarray(getattr(space, "start", 0)).reshape(-1)
        if ((chosen < 0) | (chosen >= np.asarray(choices)) | (chosen != np.round(chosen))).any():
            raise wrong
        return chosen
    assert isinstance(space, spaces.Box)
    low, high = (np.asarray(x, np.float64).reshape(-1) for x in (space.low, space.high))
    scaled = 2 * (flat.astype(np.float64) - low) / (high - low) - 1
    if np.abs(scaled).max(initial=0.0) > 1 + TOLERANCE:
        raise wrong
    return np.clip(scaled, -1, 1)
