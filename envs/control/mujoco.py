"""Gymnasium's MuJoCo tasks (v5) with many rows in one process: `polyathlon/HalfCheetah-v5` and its kin."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from gymnasium.vector import AutoresetMode

from polyathlon.envs.tensor.quiet import quiet_robots

from .mujoco_objectives import PARTS, make_mo_gymnasium, pays_vector
from .mujoco_options import find_task
from .mujoco_scalar import guarded
from .mujoco_vector import MujocoVector


def make_vector(
    task: str = "HalfCheetah",
    num_envs: int = 1,
    device: str = "cpu",
    output: str = "numpy",
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = 1000,
    num_threads: int | None = None,
    backend: str = "cpu",
    dtype: str | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> MujocoVector:
    """Make a vector environment of one of Gymnasium's MuJoCo tasks; the arguments are those of `MujocoVector`."""
    return MujocoVector(
        task,
        num_envs,
        device=device,
        output=output,
        autoreset_mode=autoreset_mode,
        max_episode_steps=max_episode_steps,
        num_threads=num_threads,
        backend=backend,
        dtype=dtype,
        render_mode=render_mode,
        **options,
    )


def make_scalar(task: str, reward: str = "scalar", cost_objective: bool = True, **options: Any) -> Any:
    """Make Gymnasium's own environment of a task, or MO-Gymnasium's for reward="vector", with the guards of `Guarded`.

    Args:
        task: HalfCheetah, Hopper, Walker2d, Ant, Humanoid or Swimmer.
        reward: "scalar" or "vector".
        cost_objective: with reward "vector", whether the control cost is an objective of its own (Hopper and Ant alone have a
            choice).
        options: those of Gymnasium's class.

    Raises:
        UsageError: `reward` is something else, or `cost_objective` has no meaning here.
        ImportError: MO-Gymnasium is needed and not installed.
    """
    if pays_vector(task, reward, cost_objective):
        has_choice = PARTS[task].has_optional_cost
        return make_mo_gymnasium(task, **options, **({"cost_objective": cost_objective} if has_choice else {}))
    module, _, name = find_task(task).class_name.partition(":")
    with quiet_robots(module):
        return guarded(getattr(import_module(module), name))(**options)


make_half_cheetah = partial(make_vector, "HalfCheetah")
make_hopper = partial(make_vector, "Hopper")
make_walker2d = partial(make_vector, "Walker2d")
make_ant = partial(make_vector, "Ant")
make_humanoid = partial(make_vector, "Humanoid")
make_swimmer = partial(make_vector, "Swimmer")
half_cheetah = partial(make_scalar, "HalfCheetah")
hopper = partial(make_scalar, "Hopper")
walker2d = partial(make_scalar, "Walker2d")
ant = partial(make_scalar, "Ant")
humanoid = partial(make_scalar, "Humanoid")
swimmer = partial(make_scalar, "Swimmer")

__all__ = [
    "MujocoVector",
    "ant",
    "half_cheetah",
    "hopper",
    "humanoid",
    "make_ant",
    "make_half_cheetah",
    "make_hopper",
    "make_humanoid",
    "make_scalar",
    "make_swimmer",
    "make_vector",
    "make_walker2d",
    "swimmer",
    "walker2d",
]
