"""TensorEnv, a task as pure functions on batched tensors, and its interfaces: Gymnasium, vector, SB3 and PettingZoo.

A task is a subclass of `TensorEnv`; everything else comes for free. The interfaces know seeds, resets, time limits, masks
and output formats, so that an episode depends on (seed of the environment, number of the episode) only, in each of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import State as State
    from .base import TensorEnv as TensorEnv
    from .base import load_task as load_task
    from .gym_env import TensorGymEnv as TensorGymEnv
    from .make import make_aec as make_aec
    from .make import make_parallel as make_parallel
    from .make import make_sb3 as make_sb3
    from .make import make_scalar as make_scalar
    from .make import make_vector as make_vector
    from .vector_env import TensorVectorEnv as TensorVectorEnv

_EXPORTS = {
    "TensorGymEnv": "gym_env",
    "State": "base",
    "TensorEnv": "base",
    "TensorVectorEnv": "vector_env",
    "load_task": "base",
    "make_aec": "make",
    "make_parallel": "make",
    "make_sb3": "make",
    "make_scalar": "make",
    "make_vector": "make",
}
__all__ = sorted(_EXPORTS)


if not TYPE_CHECKING:  # a checker takes names from above, so that it finds a slip in one

    def __getattr__(name: str) -> Any:
        if name in _EXPORTS:
            return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
