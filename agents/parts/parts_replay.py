"""Replay memory of observations that are no flat Box: each part of them in a tensor of its own kind of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .replay import Replay, Transitions, new_rows

WHOLE = ""  # the name of the only part of an observation that is no dict


def part_kinds(space: spaces.Space[Any]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and kind of number of each part of an observation, by its key; of the whole by "".

    Pictures and other whole numbers are kept as they are, real numbers as float32.

    Raises:
        UsageError: a part is no array, as of nested dicts.
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {WHOLE: space}
    return {key: _kind(key, part) for key, part in parts.items()}


def refuse_nested(space: spaces.Space[Any]) -> None:
    """Refuse a Dict with a key that is itself a Dict, a Tuple or a Sequence.

    Raises:
        UsageError: naming the key.
    """
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else ():
        if isinstance(part, _NESTED):
            raise _no_array(key, part)


_NESTED = (spaces.Dict, spaces.Tuple, spaces.Sequence)


def _no_array(key: str, space: spaces.Space[Any]) -> UsageError:
    where = f"the key {key!r} of the observation" if key else "the observation"
    return UsageError(
        f"{where} is {space}, but each key holds one array (Box, Discrete, MultiDiscrete, MultiBinary); flatten nested "
        "spaces: gymnasium.wrappers.FlattenObservation, or polyathlon.wrappers.VectorObservation"
    )


def _kind(key: str, space: spaces.Space[Any]) -> tuple[tuple[int, ...], torch.dtype]:
    if space.shape is None or space.dtype is None or isinstance(space, _NESTED):
        raise _no_array(key, space)
    kind = np.dtype(space.dtype)
    return tuple(space.shape), torch.float32 if kind.kind == "f" else torch.from_numpy(np.empty(0, kind)).dtype


class PartsReplay(Replay):
    """A ring of transitions whose observations are pictures or dicts of arrays.

    Actions, rewards and ends lie in `rows` [N, A + 2], each part of the observations in a tensor of its own, once for the
    observation acted on and once for the next one: of pictures a byte a number.

    Args:
        capacity: number of transitions.
        space: space of one observation, or a Dict of such.
        action_size: A.
        device: where it lies.
        on_disk: keep it in temporary files mapped into memory.
        tell: see `Replay`.

    Attributes:
        obs: part -> [N, ...] observations acted on.
        next_obs: part -> [N, ...] next ones.

    Raises:
        UsageError: as of `Replay`, or a part of the observation is no array.
    """

    def __init__(
        self,
        capacity: int,
        space: spaces.Space[Any],
        action_size: int,
        device: torch.device,
        *,
        on_disk: bool = False,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.kinds = part_kinds(space)
        super().__init__(capacity, 0, action_size, device, on_disk=on_disk, tell=tell)
        self.obs, self.next_obs = (
            {key: new_rows((capacity, *shape), dtype, device, on_disk) for key, (shape, dtype) in self.kinds.items()}
            for _ in range(2)
        )

    def _part_bytes(self) -> int:
        return 2 * sum(int(torch.Size(shape).numel()) * dtype.itemsize for shape, dtype in self.kinds.values())

    def add(
        self, obs: Any, action: Tensor, next_obs: Any, reward: Tensor, done: Tensor, ended: Tensor | bool = True
    ) -> None:
        """Store the transitions of n rows; observations are tensors [n, ...] or dicts of them, else see `Replay.add`."""
        number, device = action.shape[0], self.rows.device
        place: Any
        end, place = self.position + number, slice(self.position, self.position + number)
        if end > self.capacity:
            place = torch.arange(self.position, end, device=device) % self.capacity
        for parts, given in ((self.obs, obs), (self.next_obs, next_obs)):
            for key, part in parts.items():
                value = given if key == WHOLE else given[key]
                part[place] = value.to(device, part.dtype).reshape(number, *part.shape[1:])
        empty = self.rows.new_empty(number, 0)
        super().add(empty, action, empty, reward, done, ended)

    def _read(self, index: Tensor, out: Tensor | None) -> Transitions:
        obs, next_obs = ({k: v.index_select(0, index) for k, v in parts.items()} for parts in (self.obs, self.next_obs))
        return super()._read(index, out)._replace(obs=_tree(obs), next_obs=_tree(next_obs))

    def held(self, number: int) -> Transitions:
        """See `Replay.held`."""
        obs, next_obs = ({k: v[:number] for k, v in parts.items()} for parts in (self.obs, self.next_obs))
        return super().held(number)._replace(obs=_tree(obs), next_obs=_tree(next_obs))

    def normalized(self, batch: Transitions, reward: Tensor) -> Transitions:
        """See `Replay.normalized`."""
        batch = batch._replace(reward=reward)
        if self.normalize is None:
            return batch
        device = self.rows.device

        def shown(obs: Any) -> Any:
            arrays = {k: v.cpu().numpy() for k, v in obs.items()} if isinstance(obs, dict) else obs.cpu().numpy()
            found = self.normalize.normalize_obs(arrays)
            if isinstance(found, dict):
                return {k: torch.as_tensor(v, device=device) for k, v in found.items()}
            return torch.as_tensor(found, device=device)

        return batch._replace(obs=shown(batch.obs), next_obs=shown(batch.next_obs))

    def get_state(self, known: int = 0) -> dict[str, Any]:
        """See `Replay.get_state`."""
        state = super().get_state(known)
        kept = slice(state["start"], self.size)
        for name, parts in (("obs", self.obs), ("next_obs", self.next_obs)):
            state[name] = {key: part[kept].clone() for key, part in parts.items()}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Replay.set_state`.

        Raises:
            UsageError: it holds more transitions than this memory, or observations of another form.
        """
        own = {key: (tuple(part.shape[1:]), part.dtype) for key, part in self.obs.items()}
        given = {key: (tuple(part.shape[1:]), part.dtype) for key, part in state.get("obs", {}).items()}
        if own != given:
            raise UsageError(f"a replay buffer of observations {own} cannot take those of {given}")
        super().set_state(state)
        start, number = state["start"], state["rows"].shape[0]
        for name, parts in (("obs", self.obs), ("next_obs", self.next_obs)):
            for key, part in parts.items():
                part[start : start + number] = state[name][key].to(part.device)


def _tree(parts: dict[str, Tensor]) -> Any:
    return parts.get(WHOLE, parts)
