"""Gymnasium's MuJoCo environments as they are, but for what they take without a word and what their copies lose."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.arguments import check_action, read_options

_MADE_ANEW = ("mujoco_renderer", "_ezpickle_args", "_ezpickle_kwargs")


class Guarded:
    """Refuses actions that are no numbers and options that have no meaning; copies go on where the original is.

    Gymnasium's own copies (`copy.deepcopy`, `pickle`) are made from the arguments alone, at a start of their own.
    """

    def step(self, action: Any) -> Any:
        """Act; see Gymnasium's class.

        Raises:
            UsageError: a number is NaN, or so large that MuJoCo would put 0 in its place.
        """
        check_action(np.asarray(action))
        return super().step(action)  # type: ignore[misc]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode; see Gymnasium's class.

        Raises:
            UsageError: there are options, which this task does not have.
        """
        if given := sorted(read_options(options)):
            raise UsageError(f"a MuJoCo task has no reset options, got {given}")
        return super().reset(seed=seed, options=options)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        kept = {name: value for name, value in vars(self).items() if name not in _MADE_ANEW}
        arguments = self._ezpickle_args, self._ezpickle_kwargs  # type: ignore[attr-defined]
        return _rebuild, (type(self).__mro__[2], *arguments, kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        rebuild, arguments = self.__reduce_ex__(4)
        # a deep copy of MuJoCo's data holds a copy of its model; one that is shared would be changed with the original
        return rebuild(*copy.deepcopy(arguments, memo))


def _rebuild(cls: type, positional: tuple[Any, ...], keywords: dict[str, Any], kept: dict[str, Any]) -> Any:
    env = guarded(cls)(*positional, **keywords)
    vars(env).update(kept)
    env.mujoco_renderer.model, env.mujoco_renderer.data = env.model, env.data
    return env


@functools.cache
def guarded(cls: type) -> type:
    """Return a class like one of Gymnasium's or MO-Gymnasium's MuJoCo environments that is `Guarded`."""
    names = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (Guarded, cls), names)
