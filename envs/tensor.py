"""TensorEnv, a task as pure functions on batched tensors, and its faces: Gymnasium, vector, SB3 and PettingZoo.

A task is a subclass of `TensorEnv`; everything else comes for free. Faces know seeds, resets, time limits, masks and
output formats, so that an episode depends on (seed of the row, number of the episode) only, in every face.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.vector import AutoresetMode

from .faces.base import State, TensorEnv, load_task
from .faces.scalar import ScalarFace
from .faces.vector import VectorFace

__all__ = [
    "ScalarFace",
    "State",
    "TensorEnv",
    "VectorFace",
    "load_task",
    "make_scalar",
    "make_vector",
]

Task = str | type[TensorEnv] | TensorEnv


def make_scalar(
    tensor_env: Task,
    render_mode: str | None = None,
    on_illegal: str = "terminate",
    max_episode_steps: int | None = None,
    **options: Any,
) -> ScalarFace:
    """Make a task as a Gymnasium environment.

    Args:
        tensor_env: the task, its class, or "module:Class".
        render_mode: a render mode of the task.
        on_illegal: "terminate" or "raise", see `ScalarFace`.
        max_episode_steps: steps after which an episode is cut; None for the task's own limit.
        options: the task's own options, and `device` and `dtype`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    return ScalarFace(load_task(tensor_env, **options), render_mode, on_illegal, max_episode_steps)


def make_vector(
    tensor_env: Task,
    num_envs: int = 1,
    device: torch.device | str = "cpu",
    output: str = "numpy",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    compile: bool = False,
    **options: Any,
) -> VectorFace:
    """Make a task as a Gymnasium vector environment.

    Args:
        tensor_env: the task, its class, or "module:Class".
        num_envs: number of rows N.
        device: where the tensors live; of a task that is made already, its own.
        output: "numpy", or "torch" for tensors that stay on the device.
        autoreset_mode: when finished rows start again.
        max_episode_steps: steps after which an episode is cut; None for the task's own limit.
        render_mode: a render mode of the task.
        compile: run the whole step as one graph of `torch.compile`: a pause of seconds at first, then faster.
        options: the task's own options, and `dtype`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    if not isinstance(tensor_env, TensorEnv):
        options["device"] = device
    task = load_task(tensor_env, **options)
    return VectorFace(task, num_envs, output, autoreset_mode, max_episode_steps, render_mode, compile)
