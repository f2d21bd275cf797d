"""The form in which observations of a space lie in memory and reach networks, decided once from the space."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .devices import refuse_default_device
from .parts_replay import PartsReplay
from .replay import Replay


def is_flat(space: spaces.Space[Any]) -> bool:
    """Tell whether observations become one row of float32: those of a Box that holds no pictures."""
    return isinstance(space, spaces.Box) and not is_image_space(space)


def as_seen(obs: Any, flat: bool) -> Any:
    """Return observations as the memory keeps and networks take them.

    Args:
        obs: [n, ...] tensor, or a dict of them.
        flat: what `is_flat` says of their space.

    Returns:
        [n, O] float32 of a flat Box; else `obs`, whose real numbers are float32 and whose other numbers stay as they are.
    """
    if flat:
        return as_rows(torch.as_tensor(obs, dtype=torch.float32))
    return over_parts(obs, lambda x: x.float() if x.is_floating_point() else x)


def as_rows(numbers: Tensor) -> Tensor:
    """Return the numbers [n, ...] of a space as rows [n, O]; those of a Box of shape (), [n], as [n, 1]."""
    return numbers.flatten(1) if numbers.ndim > 1 else numbers.unsqueeze(1)


def over_parts(obs: Any, function: Any) -> Any:
    """Apply a function to an observation's tensor, or to each tensor of a dict."""
    return {key: function(value) for key, value in obs.items()} if isinstance(obs, dict) else function(obs)


def in_space_type(actions: np.ndarray, space: spaces.Space[Any]) -> np.ndarray:
    """Return real actions in the type of their Box where that is narrower, such as float16, whose `contains` is false of float32."""
    kind: Any = space.dtype if isinstance(space, spaces.Box) else actions.dtype
    return actions if np.can_cast(actions.dtype, kind) else actions.astype(kind)


def numbers_of(obs: Any) -> Tensor:
    """Return everything in observations as rows of numbers [B, n] float32; parts of a dict in its order."""
    parts = list(obs.values()) if isinstance(obs, dict) else [obs]
    rows = [part.reshape(part.shape[0], -1).float() for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


def new_replay(
    capacity: int,
    space: spaces.Space[Any],
    action_size: int,
    device: torch.device,
    *,
    on_disk: bool = False,
    tell: Callable[[str], object] | None = None,
) -> Replay:
    """Make the replay memory for observations of a space.

    Raises:
        UsageError: see `Replay` and `PartsReplay`.
    """
    if is_flat(space):
        size = int(np.prod(space.shape or (), dtype=int))
        return Replay(capacity, size, action_size, device, on_disk=on_disk, tell=tell)
    return PartsReplay(capacity, space, action_size, device, on_disk=on_disk, tell=tell)


def has_channels_first(space: spaces.Box) -> bool:
    """Tell whether pictures are [C, H, W] rather than [H, W, C]: the smallest of the three is that of the channels.

    Raises:
        UsageError: the middle one is the smallest.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SB3 warns of what is refused here
        is_first = is_image_space_channels_first(space)
    if not is_first and int(np.argmin(space.shape)) == 1:
        raise UsageError(
            f"pictures have their channels first or last, and fewer of them than rows and columns, got the shape {space.shape}: "
            "transpose them (gymnasium.wrappers.TransformObservation)"
        )
    return is_first


def channels_first(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """Return the space with the channels of pictures moved to the front, as SB3's VecTransposeImage does."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: channels_first(part) for key, part in space.spaces.items()})
    if not is_image_space(space):
        return space
    assert isinstance(space, spaces.Box)
    return space if has_channels_first(space) else moved_forward(space)


def moved_forward(space: spaces.Box) -> spaces.Box:
    """Return a space of pictures [H, W, C] with its channels in front."""
    low, high = (np.moveaxis(x, -1, 0) for x in (space.low, space.high))
    kind: Any = space.dtype
    return spaces.Box(low, high, dtype=kind.type)


class ReadsObservations:
    """A policy, of SB3's classes, that says what is wrong with an observation before it is read, and acts in the type of its space."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    device: torch.device

    def predict(self, *args: Any, **words: Any) -> tuple[Any, Any]:
        """Choose actions; see SB3.

        Raises:
            UsageError: torch's default device is another one.
        """
        refuse_default_device(self.device)
        actions, state = super().predict(*args, **words)  # type: ignore[misc]
        return in_space_type(actions, self.action_space), state

    def obs_to_tensor(self, observation: Any) -> Any:
        """Return observations as tensors, and whether they are a batch; see SB3.

        Raises:
            UsageError: the observation has other parts than the space.
        """
        if isinstance(self.observation_space, spaces.Dict):
            refuse_other_parts(self.observation_space, observation)
        return super().obs_to_tensor(observation)  # type: ignore[misc]


def refuse_other_parts(space: spaces.Dict, observation: Any) -> None:
    """Refuse an observation that is no dict with exactly the parts of a space.

    Raises:
        UsageError: naming what is missing and what is too much.
    """
    if not isinstance(observation, Mapping):
        raise UsageError(
            f"the observation is a dict with the parts {list(space.spaces)}, got {type(observation).__name__} {np.shape(observation)}"
        )
    missing = [key for key in space.spaces if key not in observation]
    more = [key for key in observation if key not in space.spaces]
    if missing or more:
        said = [f"it lacks {missing}"] * bool(missing) + [f"it also has {more}"] * bool(more)
        raise UsageError(f"the observation must have the parts {list(space.spaces)}, but {' and '.join(said)}")


def is_turned(shown: spaces.Space[Any], wanted: spaces.Space[Any]) -> bool:
    """Tell whether pictures of `shown` [H, W, C] are those of `wanted` [C, H, W]."""
    if not (is_image_space(shown) and is_image_space(wanted)) or shown.shape == wanted.shape:
        return False
    assert isinstance(shown, spaces.Box)
    return moved_forward(shown).shape == wanted.shape


def turned(obs: Tensor, shown: spaces.Space[Any], wanted: spaces.Space[Any]) -> Tensor:
    """Return observations [n, ...] of `shown` as those of `wanted`: with the channels of pictures moved to the front."""
    return obs.movedim(-1, 1) if is_turned(shown, wanted) else obs
