"""What SB3's callbacks read in `self.locals`, computed where one reads it: nothing leaves the device for a callback that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from .env_stream import EnvStream, Step


class _Later:
    """A value that is computed when it is read."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute


class CallbackLocals(dict[str, Any]):
    """The local names of `learn` and of its steps, as callbacks have them in `self.locals`."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if isinstance(value, _Later):
            value = value.compute()
            self[name] = value
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def items(self) -> Any:
        """Return the names and their values."""
        return {name: self[name] for name in self}.items()

    def values(self) -> Any:
        """Return the values."""
        return {name: self[name] for name in self}.values()


def step_locals(source: EnvStream, step: Step, action: Tensor, names: dict[str, Any]) -> dict[str, Any]:
    """Return the local names of `collect` with SB3's: `actions`, `rewards`, `dones`, `new_obs` and `infos`, as numpy.

    Args:
        source: the environments, after the step.
        step: what came of it.
        action: [N, ...] what was done.
        names: the local names of `collect`.

    Returns:
        For `callback.update_locals`. `infos` is a list of N dicts in every form; those of finished rows have
        "terminal_observation", "TimeLimit.truncated" and "episode".
    """
    later = {
        "actions": lambda: _numpy(action),
        "rewards": lambda: _numpy(step.reward),
        "dones": lambda: _numpy(step.terminated | step.truncated),
        "new_obs": lambda: _tree_numpy(source.obs),
        "infos": lambda: source.info_rows(step),
    }
    return {**names, **{name: _Later(compute) for name, compute in later.items()}}


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()


def _tree_numpy(value: Any) -> Any:
    return {key: _tree_numpy(item) for key, item in value.items()} if isinstance(value, dict) else _numpy(value)


def evaluation_envs(callback: Any) -> Iterator[Any]:
    """Go through the environments of the callbacks that evaluate."""
    children = callback if isinstance(callback, list) else getattr(callback, "callbacks", None)
    for child in children or [getattr(callback, "callback", None)]:
        if child is not None:
            yield from evaluation_envs(child)
    if hasattr(callback, "eval_env"):
        yield callback.eval_env
