"""Which MuJoCo tasks there are, what they accept, and the checks of what users give."""

from __future__ import annotations

import inspect
import warnings
from importlib import import_module
from typing import Any, TypeVar

import mujoco
from packaging.version import Version

from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor.quiet import quiet_robots

from .mujoco_bodies import Ant, Humanoid
from .mujoco_tasks import HalfCheetah, Hopper, MujocoTask, Swimmer, Walker2d

TASKS: dict[str, type[MujocoTask]] = {
    task.__name__: task for task in (HalfCheetah, Hopper, Walker2d, Ant, Humanoid, Swimmer)
}
_VIEW_OPTIONS = ("width", "height", "camera_id", "camera_name", "max_geom", "visual_options")
_warned: set[str] = set()

T = TypeVar("T")


def find_task(name: str) -> type[MujocoTask]:
    """Find a task by its name, with or without "-v5".

    Raises:
        UsageError: there is none of that name.
    """
    plain = name.rpartition("/")[2].removesuffix("-v5") if isinstance(name, str) else name
    if plain not in TASKS:
        raise unknown_name("MuJoCo task", name, TASKS)
    return TASKS[plain]


def make_model_env(
    task: type[MujocoTask], options: dict[str, Any], render_mode: str | None
) -> tuple[Any, dict[str, Any]]:
    """Make Gymnasium's own environment, which holds the model, spaces and camera.

    Args:
        task: the task.
        options: keyword arguments of Gymnasium's class.
        render_mode: Gymnasium's.

    Returns:
        The environment, and all its options with the defaults filled in.

    Raises:
        UsageError: an option is unknown, or Gymnasium refuses its value.
    """
    module, _, attribute = task.class_name.partition(":")
    cls = getattr(import_module(module), attribute)
    named = {
        name: item.default
        for name, item in inspect.signature(cls.__init__).parameters.items()
        if item.default is not inspect.Parameter.empty
    }
    for name in options:
        if name not in named and name not in _VIEW_OPTIONS:
            raise unknown_name(f"option of {task.__name__}", name, (*named, *_VIEW_OPTIONS))
    try:
        with quiet_robots(module):
            env = cls(**options, render_mode=render_mode)
    except (AssertionError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"Gymnasium refuses these options of {task.__name__}: {options} ({error})") from error
    return env, {**named, **options}


def warn_of_new_contacts(task: type[MujocoTask], model: Any) -> None:
    """Say once per task when its contacts are not those of the published curves."""
    if task.__name__ in _warned or Version(mujoco.__version__) < Version("3.5.0") or not (model.geom_margin > 0).any():
        return
    _warned.add(task.__name__)
    warnings.warn(
        f"{task.__name__}'s contacts changed in MuJoCo 3.5.0 (this is {mujoco.__version__}): returns are not comparable "
        "with curves or data sets recorded before; install mujoco==3.4.0 for those",
        stacklevel=4,
    )


def choice(name: str, given: T, allowed: tuple[T, ...]) -> T:
    """Return `given` if it is allowed.

    Raises:
        UsageError: it is not.
    """
    if given not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {given!r}")
    return given
