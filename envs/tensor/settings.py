"""What was set on an environment object, compared with a fresh one of its spec."""

from __future__ import annotations

import contextlib
import enum
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

# attributes that hold randomness, windows and links rather than settings
_LEFT_OUT = frozenset(
    [
        "np_random",
        "_np_random",
        "_np_random_seed",
        "spec",
        "_cached_spec",
        "env",
        "venv",
        "render_mode",
        "screen",
        "surf",
        "clock",
        "isopen",
        "viewer",
        "window",
        "mujoco_renderer",
        "_mujoco_renderer",
        "renderer",
        "engine",
        "data",
    ]
)
_REMOTE = frozenset(
    {"playwright"}
)  # what a browser has, not the environment, and without end: everything there names everything
_DEEPEST = 8
_STEPS = 2  # of a fresh environment, by which what a step changes is told from settings


def layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Go through the wrappers from the outermost one, down to the environment."""
    inner: Any = env
    while isinstance(inner, gym.Wrapper):
        yield inner
        inner = inner.env
    yield inner


def _code(function: types.FunctionType) -> tuple[Any, ...]:
    code = function.__code__
    cells = [
        cell.cell_contents for cell in function.__closure__ or () if isinstance(cell.cell_contents, int | float | str)
    ]
    return function.__module__, function.__qualname__, code.co_code, repr(code.co_consts), repr(cells)


def _arrays(value: Any) -> Iterator[tuple[str, Any]]:
    """The numbers and arrays of an object of a C extension, such as MuJoCo's model."""
    for name in dir(value):
        if not name.startswith("_"):
            with contextlib.suppress(Exception):
                item = getattr(value, name)
                if isinstance(item, np.ndarray | int | float) and not isinstance(item, bool):
                    yield name, item
                elif name in ("opt", "vis", "stat") and not callable(item):
                    yield from ((f"{name}.{key}", found) for key, found in _arrays(item))


def _digest(value: Any) -> Any:
    array = np.ascontiguousarray(value)
    return array.shape, array.dtype.str, hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


def _walk(path: str, value: Any, parents: tuple[int, ...], found: dict[str, Any]) -> None:
    """Note a value, and what it holds, under its path."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | enum.Enum | type | np.generic):
        found[path] = repr(value)
        return
    if len(parents) > _DEEPEST or id(value) in parents:
        return
    parents = (*parents, id(value))
    found[path] = f"{type(value).__module__}.{type(value).__qualname__}"
    items: Any = ()
    if type(value).__module__.split(".")[0] in _REMOTE:
        return
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        found[path] = _digest(value)
    elif hasattr(value, "detach") and hasattr(value, "cpu"):
        found[path] = _digest(value.detach().cpu().numpy())
    elif isinstance(value, types.FunctionType):
        found[path] = _code(value)
    elif isinstance(value, types.MethodType):
        found[path] = _code(value.__func__) if isinstance(value.__func__, types.FunctionType) else repr(value.__func__)
    elif isinstance(value, Mapping):
        items = ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | np.ndarray):
        items = ((f"[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        found[path] = sorted(map(repr, value))
    elif hasattr(value, "__dict__"):
        items = ((f".{name}", item) for name, item in vars(value).items() if name not in _LEFT_OUT)
    elif type(value).__name__ == "MjModel":
        items = ((f".{name}", item) for name, item in _arrays(value))
    for name, item in items:
        _walk(path + name, item, parents, found)


def settings(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """Return what an environment and its wrappers hold, by path; the values say only whether two are equal."""
    found: dict[str, Any] = {}
    for number, layer in enumerate(layers(env)):
        name = f"{number}:{type(layer).__name__}"
        found[name] = f"{type(layer).__module__}.{type(layer).__qualname__}"
        for key, value in vars(layer).items():
            if key not in _LEFT_OUT:
                _walk(f"{name}.{key}", value, (), found)
    return found


def changed_settings(env: gym.Env[Any, Any], other: gym.Env[Any, Any]) -> list[str]:
    """Return the paths at which `env` is set otherwise than `other`, but for what episodes change.

    Args:
        env: any environment; it is not touched.
        other: a fresh one; a few steps are taken in it, and it is closed.
    """
    try:
        mine, before = settings(env), settings(other)
        moving: set[str] = set()
        other.reset(seed=0)
        after = settings(other)
        for step in range(_STEPS + 1):
            moving |= {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
            if step < _STEPS:
                _, _, terminated, truncated, _ = other.step(other.action_space.sample())
                if terminated or truncated:
                    other.reset()
                after = settings(other)
    finally:
        other.close()
    # what an episode made or removed moves with everything in it
    roots = {path.split("[")[0] for path in moving}
    return sorted(
        path
        for path in mine.keys() | before.keys()
        if mine.get(path) != before.get(path) and not _is_below(path, moving, roots)
    )


def _is_below(path: str, moving: set[str], roots: set[str]) -> bool:
    if path in moving or path.split("[")[0] in roots:
        return True
    parts = path.split(".")
    return any(".".join(parts[:i]) in moving for i in range(2, len(parts)))
