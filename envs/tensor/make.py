"""Make a tensor task as a Gymnasium, vector, Stable-Baselines3 or PettingZoo environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from gymnasium.vector import AutoresetMode

from polyathlon.envs.errors import require

from .base import TensorEnv, load_task
from .gym_env import ScalarFace
from .vector_env import VectorFace

if TYPE_CHECKING:
    from .pettingzoo import AECFace, ParallelFace
    from .sb3 import SB3Face

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


def make_sb3(tensor_env: Task | VectorFace, num_envs: int = 1, **options: Any) -> SB3Face:
    """Make a task as a Stable-Baselines3 vector environment.

    Args:
        tensor_env: the task, its class, "module:Class", or a vector face in SAME_STEP mode.
        num_envs: number of rows; of a vector face, its own.
        options: as for `make_vector`.

    Raises:
        UsageError: an argument is outside what is allowed.
    """
    from .sb3 import SB3Face

    if not isinstance(tensor_env, VectorFace):
        tensor_env = make_vector(tensor_env, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
    return SB3Face(tensor_env)


def make_aec(
    tensor_env: Task, render_mode: str | None = None, max_episode_steps: int | None = None, **options: Any
) -> AECFace:
    """Make a game as a PettingZoo environment in turns.

    Args:
        tensor_env: the task, its class, or "module:Class".
        render_mode: a render mode of the task.
        max_episode_steps: steps after which a game is cut; None for the task's own limit.
        options: the task's own options, and `device` and `dtype`.

    Raises:
        UsageError: the task has one player, or an argument is outside what is allowed.
    """
    require("pettingzoo", "all")
    from .pettingzoo import AECFace

    return AECFace(load_task(tensor_env, **options), render_mode, max_episode_steps)


def make_parallel(
    tensor_env: Task, render_mode: str | None = None, max_episode_steps: int | None = None, **options: Any
) -> ParallelFace:
    """Make a game as a PettingZoo environment in which all act at once; see `make_aec`.

    Raises:
        UsageError: the task has one player, or an argument is outside what is allowed.
    """
    require("pettingzoo", "all")
    from .pettingzoo import ParallelFace

    return ParallelFace(load_task(tensor_env, **options), render_mode, max_episode_steps)
