"""Gymnasium's MuJoCo tasks (v5) with many rows in one process: `polyathlon/HalfCheetah-v5` and its kin."""

from __future__ import annotations

from functools import partial
from typing import Any

from gymnasium.vector import AutoresetMode

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


make_half_cheetah = partial(make_vector, "HalfCheetah")
make_hopper = partial(make_vector, "Hopper")
make_walker2d = partial(make_vector, "Walker2d")
make_ant = partial(make_vector, "Ant")
make_humanoid = partial(make_vector, "Humanoid")
make_swimmer = partial(make_vector, "Swimmer")

__all__ = [
    "MujocoVector",
    "make_ant",
    "make_half_cheetah",
    "make_hopper",
    "make_humanoid",
    "make_swimmer",
    "make_vector",
    "make_walker2d",
]
