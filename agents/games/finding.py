"""The tensor form of a game, however it is named."""

from __future__ import annotations

from typing import Any

import torch

from polyathlon.agents.streams.environments import find_spec
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv, load_task


def find_task(env_fn: Any, env_kwargs: dict[str, Any], device: torch.device) -> TensorEnv:
    """Return the game on tensors.

    Args:
        env_fn: a `TensorEnv`, its class or "module:Class", an id, or a function that makes a PettingZoo environment.
        env_kwargs: options of it.
        device: where it lies.

    Raises:
        UsageError: it has no tensor form, or one player.
    """
    if isinstance(env_fn, str) and not _is_class_path(env_fn):
        spec = find_spec(env_fn)
        named = spec.kwargs.get("tensor_env")
        if named is None:
            raise UsageError(f"{env_fn} is no game on tensors, which SelfPlay needs")
        defaults = {name: value for name, value in spec.kwargs.items() if name != "tensor_env"}
        task = load_task(named, **{**defaults, "device": device, **env_kwargs})
    elif isinstance(env_fn, TensorEnv):
        task = load_task(env_fn, **env_kwargs)
    elif isinstance(env_fn, str) or (isinstance(env_fn, type) and issubclass(env_fn, TensorEnv)):
        task = load_task(env_fn, **{"device": device, **env_kwargs})
    elif callable(env_fn):
        task = _task_of(env_fn(**env_kwargs))
    else:
        raise UsageError(f"env_fn is a game, its class, an id or a function that makes it, got {env_fn!r}")
    if task.num_players < 2:
        raise UsageError(f"{type(task).__name__} has one player: train the agent on it directly")
    return task


def _is_class_path(name: str) -> bool:
    return ":" in name and "/" not in name.partition(":")[2]


def _task_of(env: Any) -> TensorEnv:
    if isinstance(env, TensorEnv):
        return env
    for layer in (env, getattr(env, "unwrapped", None)):
        tell = getattr(layer, "tensor_task", None)
        if callable(tell) and (task := tell()) is not None:
            found: TensorEnv = task
            return found
    raise UsageError(
        f"{env} tells no tensor_task(), so its seats cannot be played at once on tensors; "
        "AECSeats (polyathlon.agents.games.aec_seats) makes one seat of it, on which any agent trains"
    )
