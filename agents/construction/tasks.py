"""Finding the task behind an environment, and reading instances of any size for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvWrapper
from torch import Tensor

from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor import load_task


def find_task(env: VecEnv, device: torch.device) -> ConstructionTask:
    """Return the combinatorial task behind an agent's environment, on a device.

    Raises:
        UsageError: there is none.
    """
    inner: Any = env
    while isinstance(inner, VecEnvWrapper):
        inner = inner.venv
    vector_env = getattr(inner, "vector_env", None) or (
        inner.envs[0].unwrapped if getattr(inner, "envs", None) else None
    )
    task = getattr(vector_env, "task", None)
    if not isinstance(task, ConstructionTask):
        raise UsageError(
            f"the environment {vector_env or env} is no combinatorial task, or hides its task from this process; make it with "
            "gym.make or gym.make_vec, without wrappers"
        )
    return task if task.device == device else resized(task, None, device)


def task_of(problem: str, mdp: str, device: torch.device) -> ConstructionTask:
    """Return a task of a problem, such as "TSP", with the options that it has by default."""
    task = load_task(f"polyathlon.envs.combinatorial.{problem.lower()}:{problem}", mdp=mdp, device=device)
    assert isinstance(task, ConstructionTask)
    return task


def resized(task: ConstructionTask, num_points: int | None, device: torch.device | None = None) -> ConstructionTask:
    """Return a task of the same kind for another number of nodes, or on another device.

    Args:
        task: the task.
        num_points: most nodes N of an instance, with a depot; None keeps it.
        device: where its tensors live; None keeps it.
    """
    points = task.num_points if num_points is None else num_points
    depot = int(task.num_points - getattr(task, task.size_name))
    options: dict[str, Any] = {
        name: getattr(task, name)
        for name in ("reward", "mdp", "distribution", "prize", "capacity", "max_length")
        if hasattr(task, name)
    }
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
    main = given
    if isinstance(given, dict):
        name = next((name for name in ("xy", "distances", "value") if name in given), None)
        if name is None:
            return task, task.read(given, 1, None)  # which says what is missing
        main = given[name]
    shape = main.shape if isinstance(main, Tensor | np.ndarray) else np.shape(main)
    own = 1 if isinstance(given, dict) and "value" in given else 2
    if len(shape) not in (own, own + 1):
        return task, task.read(given, 1, None)
    rows = int(shape[0]) if len(shape) == own + 1 else 1
    points = int(shape[-own])
    least = task.num_points - getattr(task, task.size_name) + (1 if task.size_name == "num_items" else 2)
    found = resized(task, max(points, least))
    return found, found.read(given, rows, None)
