"""Functions that an environment holds and that reach back into it, so that a copy of it must have its own.

`copy.deepcopy` and specs hand functions on as they are. A lambda of a wrapper that reads the environment, or a function set
in the place of a method that calls the one before it, would thus read, and step, the original in every copy.
"""

from __future__ import annotations

import copy
import dis
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym

from .settings import layers

_DEEPEST = 4
# what all copies of an environment have alike
_ALIKE = frozenset(["observation_space", "action_space", "spec", "metadata"])


def functions_that_reach_in(env: gym.Env[Any, Any]) -> list[types.FunctionType]:
    """Return the functions that `env` or its wrappers hold and whose closure or defaults name one of these, or its method."""
    own = {id(layer) for layer in layers(env)}
    found: dict[int, types.FunctionType] = {}
    for layer in layers(env):
        for name, value in vars(layer).items():
            if name != "env":
                for function in _functions(value, _DEEPEST):
                    if _reaches(function, own, set()):
                        found |= {id(each): each for each in _with_inner(function, own)}
    return list(found.values())


def global_name_within(env: gym.Env[Any, Any]) -> str | None:
    """Return the global name by which a function that `env` holds reads more of it than its spaces, or None.

    Copies cannot have a name of their own for it, as they can for what a closure or a default holds.
    """
    own = {id(layer) for layer in layers(env)}
    for layer in layers(env):
        for name, value in vars(layer).items():
            for function in () if name == "env" else _functions(value, _DEEPEST):
                for each in _with_inner(function, own):
                    if (found := _global_of(each, own)) is not None:
                        return found
    return None


def _global_of(function: types.FunctionType, own: set[int]) -> str | None:
    steps = list(dis.get_instructions(function))
    for i, step in enumerate(steps):
        if step.opname not in ("LOAD_GLOBAL", "LOAD_NAME") or not _is_own(function.__globals__.get(step.argval), own):
            continue
        after = [s.argval for s in steps[i + 1 : i + 3] if s.opname in ("LOAD_ATTR", "LOAD_METHOD")]
        if not after or (after[0] if after[0] != "unwrapped" else after[-1]) not in _ALIKE:
            return str(step.argval)
    return None


def copy_with_functions(env: gym.Env[Any, Any], functions: list[types.FunctionType]) -> gym.Env[Any, Any]:
    """Return a deep copy of `env` in which these functions are copies as well, which reach into the copy.

    Args:
        env: the environment.
        functions: those of `functions_that_reach_in(env)`.

    Raises:
        ValueError: the environment is not copied together with what the functions name.
    """
    memo: dict[int, Any] = {}
    for function in functions:
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        made = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells)
        memo[id(function)] = functools.update_wrapper(made, function)
        del made.__wrapped__  # type: ignore[attr-defined]
    duplicate: gym.Env[Any, Any] = copy.deepcopy(env, memo)
    for layer in layers(env):
        if id(layer) not in memo:
            raise ValueError(f"{layer} is not copied with what is around it, and a function names it")
    own = {id(layer) for layer in layers(env)}

    def moved(value: Any) -> Any:
        return memo.get(id(value), copy.deepcopy(value, memo) if _is_own(value, own) else value)

    for function in functions:
        made = memo[id(function)]
        for cell, new in zip(function.__closure__ or (), made.__closure__ or (), strict=True):
            if _is_filled(cell):
                new.cell_contents = moved(cell.cell_contents)
        made.__defaults__ = None if function.__defaults__ is None else tuple(map(moved, function.__defaults__))
        words = function.__kwdefaults__
        made.__kwdefaults__ = None if words is None else {name: moved(value) for name, value in words.items()}
    return duplicate


def _functions(value: Any, depth: int) -> Iterator[types.FunctionType]:
    """Go through the functions in a value of an attribute."""
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, types.MethodType):
        yield from _functions(value.__func__, depth)
    elif depth:
        for each in _held(value):
            yield from _functions(each, depth - 1)


def _held(value: Any) -> list[Any]:
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, gym.Env | gym.Space | type | types.ModuleType):
        return []
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # a name that was never given a value
        return False


def _named(function: types.FunctionType) -> list[Any]:
    """Return what a function holds besides its code."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _is_own(value: Any, own: set[int]) -> bool:
    return id(value) in own or (isinstance(value, types.MethodType) and id(value.__self__) in own)


def _reaches(function: types.FunctionType, own: set[int], seen: set[int]) -> bool:
    seen.add(id(function))
    return any(
        _is_own(value, own)
        or (isinstance(value, types.FunctionType) and id(value) not in seen and _reaches(value, own, seen))
        for value in _named(function)
    )


def _with_inner(function: types.FunctionType, own: set[int]) -> Iterator[types.FunctionType]:
    """A function, and those that it names and that reach in, each once."""
    waiting, seen = [function], set()
    while waiting:
        each = waiting.pop()
        seen.add(id(each))
        yield each
        waiting += [
            value
            for value in _named(each)
            if isinstance(value, types.FunctionType) and id(value) not in seen and _reaches(value, own, set())
        ]
