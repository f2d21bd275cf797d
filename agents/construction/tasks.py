"""Finding the task behind an environment, and reading instances of any size for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecCheckNan, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.base import option_names
from polyathlon.envs.tensor.copies import changing_wrappers

from .problems.kit import kit_of


def find_task(env: VecEnv, device: torch.device) -> ConstructionTask:
    """Return the combinatorial task behind an agent's environment, on a device.

    Raises:
        UsageError: there is none.
    """
    vector_env = _inner_env(env)
    task = getattr(vector_env, "task", None)
    if not isinstance(task, ConstructionTask):
        raise UsageError(
            f"the environment {vector_env or env} is no combinatorial task, or hides its task from this process; make it with "
            "gym.make or gym.make_vec, without wrappers"
        )
    return task if task.device == device else resized(task, None, device)


def problem_in(env: VecEnv | None, known: str | None) -> str | None:
    """Return the key of the kit of the task behind an environment; `known` where none is there or it hides its task.

    Args:
        env: the environment of an agent.
        known: what the agent solves, None for a new one.

    Raises:
        UsageError: the task has no kit, or its problem is not `known`.
    """
    task = getattr(_inner_env(env), "task", None)
    if not isinstance(task, ConstructionTask):
        return known
    key = kit_of(task).key
    if known not in (None, key):
        raise UsageError(f"this agent solves {known}, the task of the environment is {key}; make a new agent for it")
    return key


def _inner_env(env: Any) -> Any:
    """Return the environment whose task is read.

    Raises:
        UsageError: a wrapper around it would be left out.
    """
    around: list[Any] = []
    while isinstance(env, VecEnvWrapper):
        around += [] if isinstance(env, VecMonitor | VecCheckNan) else [type(env).__name__]
        env = env.venv
    rows = getattr(env, "envs", None)
    if rows:
        around += [str(layer) for layer in changing_wrappers(rows[0])]
    if around:
        raise UsageError(
            f"the task itself is learnt, with its own rewards and ends, so that {around[0]} around it would have no effect: leave it out, "
            "or take an agent that acts in the environment, such as PPO('AttentionPolicy', env)"
        )
    return getattr(env, "vector_env", None) or (rows[0].unwrapped if rows else None)


def resized(task: ConstructionTask, num_points: int | None, device: torch.device | None = None) -> ConstructionTask:
    """Return a task of the same kind for another number of nodes, or on another device.

    Args:
        task: the task.
        num_points: most nodes N of an instance, with a depot; None keeps it.
        device: where its tensors live; None keeps it.

    Raises:
        UsageError: the task does not keep an option of its constructor as an attribute of that name.
    """
    points = task.num_points if num_points is None else num_points
    depot = int(task.num_points - getattr(task, task.size_name))
    options: dict[str, Any] = {}
    for name in sorted(option_names(type(task)) - {"device", "dtype"}):
        if not hasattr(task, name):
            raise UsageError(
                f"{type(task).__name__} cannot be made anew for another size or device: keep its option {name!r} as self.{name}"
            )
        options[name] = getattr(task, name)
    options[task.size_name] = points - depot
    return type(task)(**options, device=device or task.device, dtype=task.dtype)


def read_instances(task: ConstructionTask, given: Any) -> tuple[ConstructionTask, Any]:
    """Read instances of any size, and return them with a task that has room for them.

    Args:
        task: a task of their problem.
        given: one instance or a batch, as `reset(options={"instance": ...})` takes it, or tensors as `task.generate` makes.

    Raises:
        UsageError: an instance is malformed.
    """
    if hasattr(given, "_fields") and hasattr(given, "size") and hasattr(given, "reference"):
        found = resized(task, given.nodes.shape[1])
        return found, type(given)(*(part.to(found.device) for part in given))
    main, kit = given, kit_of(task)
    if isinstance(given, dict):
        if kit.instance_entry not in given:
            return task, task.read(given, 1, None)  # which says what is missing
        main = given[kit.instance_entry]
    shape = main.shape if isinstance(main, Tensor | np.ndarray) else np.shape(main)
    own = 1 if kit.geometry == "items" else 2
    if len(shape) not in (own, own + 1):
        return task, task.read(given, 1, None)
    rows = int(shape[0]) if len(shape) == own + 1 else 1
    points = int(shape[-own])
    least = task.num_points - getattr(task, task.size_name) + (2 if task.has_route else 1)
    found = resized(task, max(points, least))
    return found, found.read(given, rows, None)
