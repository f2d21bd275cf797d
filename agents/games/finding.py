"""The tensor form of a game, however it is named."""

from __future__ import annotations

import contextlib
from typing import Any

import gymnasium as gym
import torch

from polyathlon.agents.streams.environments import find_spec
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import TensorEnv, load_task

from .foreign import ForeignGame
from .league_files import find_class


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
            task = _task_behind(env_fn, env_kwargs, device)
        else:
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


def find_game(env_fn: Any, env_kwargs: dict[str, Any], device: torch.device) -> TensorEnv | ForeignGame:
    """Return the game on tensors where it has that form, else how it is made in PettingZoo's.

    Args:
        env_fn: see `find_task`; also "module:function".
        env_kwargs: options of it.
        device: where agents that play it lie.

    Raises:
        UsageError: it is no game of several players.
    """
    if isinstance(env_fn, str) and _is_class_path(env_fn):
        named = find_class(env_fn)
        env_fn = env_fn if isinstance(named, type) and issubclass(named, TensorEnv) else named
    is_task = isinstance(env_fn, str | TensorEnv) or (isinstance(env_fn, type) and issubclass(env_fn, TensorEnv))
    if is_task or not callable(env_fn):
        return find_task(env_fn, env_kwargs, device)
    made = env_fn(**env_kwargs)
    if isinstance(made, TensorEnv) or tensor_task(made) is not None:
        return find_task(env_fn, env_kwargs, device)
    close = getattr(made, "close", None)
    if close is not None:
        close()
    game = ForeignGame(env_fn, env_kwargs, device)
    if game.num_players < 2:
        raise UsageError(f"{game.name} has one player: train the agent on it directly")
    return game


def _task_behind(name: str, env_kwargs: dict[str, Any], device: torch.device) -> TensorEnv:
    """Return the game of which the environment of an id is one seat, as `polyathlon/Werewolf-v0` is."""
    with contextlib.closing(gym.make(name, disable_env_checker=True, **env_kwargs)) as seat:
        task = tensor_task(seat)
    if task is None:
        raise UsageError(f"{name} is no game on tensors, which SelfPlay needs")
    if task.device.type == device.type or "device" in env_kwargs:
        return task
    return _task_behind(name, {**env_kwargs, "device": device}, device)


def _is_class_path(name: str) -> bool:
    return ":" in name and "/" not in name.partition(":")[2]


def tensor_task(env: Any) -> TensorEnv | None:
    """Return the game on tensors that an environment of PettingZoo, or one seat of a game, tells of, or None."""
    for layer in (env, getattr(env, "unwrapped", None)):
        tell = getattr(layer, "tensor_task", None)
        if callable(tell) and (task := tell()) is not None:
            found: TensorEnv = task
            return found
    return None


def _task_of(env: Any) -> TensorEnv:
    if isinstance(env, TensorEnv):
        return env
    task = tensor_task(env)
    if task is not None:
        return task
    raise UsageError(
        f"{env} tells no tensor_task(), so its seats cannot be played at once on tensors; "
        "polyathlon.wrappers.SingleAgent makes one seat of it, on which any agent trains"
    )
