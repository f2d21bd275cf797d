"""What a function reads, by the names of its arguments, and the records of which the rows of methods are made.

A loss or a part is a pure function on tensors. Arguments before `*` are the fields that it reads, arguments after `*` its
options: `def kl(logp, ref_logp=None, *, coefficient)` reads `logp`, reads `ref_logp` where there is one, and takes the
number `coefficient` from the row. The recipes of language models and the losses of control methods share this reader.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, TypeVar

from polyathlon.envs.errors import UsageError, unknown_name

from .records import (
    Noise,
    Part,
    Schedule,
    Stateful,
    Target,
    check_every,
    from_json,
    json_record,
    options_at,
    part,
    refuse_twice,
    split_path,
    to_json,
)

__all__ = [
    "Noise",
    "Part",
    "Reads",
    "Schedule",
    "Stateful",
    "Target",
    "check_every",
    "check_options",
    "compares_groups",
    "connect",
    "find_part",
    "from_json",
    "function_at",
    "json_record",
    "options_at",
    "part",
    "path_of",
    "reads",
    "split_path",
    "to_json",
]

PARTS = "polyathlon.agents.parts"
Compared = TypeVar("Compared", bound=Callable[..., Any])
_HOMES = {name: f"polyathlon.agents.language.{name}" for name in ("collectors", "prompt_samplers")}


@dataclass(frozen=True)
class Reads:
    """What a function reads.

    Attributes:
        fields: positional arguments without a default: each must resolve.
        optional: positional arguments with the default None: given if the name resolves, else None.
        options: keyword-only arguments: given by the row.
        required: those options that have no default.
    """

    fields: tuple[str, ...]
    optional: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


def reads(function: Callable[..., object]) -> Reads:
    """Say what a function reads, by the names of its arguments.

    Args:
        function: a function, a bound method, or an instance of a class whose `__call__` reads (without self). Wrappers
            made with `functools.wraps` are looked through.

    Raises:
        UsageError: the signature does not say what is read; the message says what to write instead.
    """
    inner, name = _innermost(function)
    found: dict[str, list[str]] = {"fields": [], "optional": [], "options": [], "required": []}
    for parameter in inspect.signature(_called(function)).parameters.values():
        for kind in _kinds(parameter, name):
            found[kind].append(parameter.name)
    _refuse_hidden_numbers(inner, name)
    return Reads(**{kind: tuple(names) for kind, names in found.items()})


def compares_groups(function: Compared) -> Compared:
    """Mark a part (a function or a class) that means nothing in groups of one answer: recipes with it refuse `group_size=1`."""
    function.compares_groups = True  # type: ignore[attr-defined]
    return function


def _called(function: Callable[..., object]) -> Any:
    """Return what Python calls: the function itself, or the bound `__call__` of an instance."""
    if isinstance(function, (FunctionType, MethodType)) or hasattr(function, "__wrapped__"):
        return function
    return getattr(function, "__call__", None)  # noqa: B004 (what is wanted is the bound method)


def _innermost(function: Callable[..., object]) -> tuple[FunctionType, str]:
    """Return the plain function behind wrappers, and its name for messages.

    Raises:
        UsageError: there is none.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if isinstance(function, (functools.partial, functools.partialmethod)):
        raise UsageError(
            "functools.partial hides numbers from schedules and checkpoints; "
            f"make them options of {getattr(function.func, '__qualname__', 'the function')} (after `*`)"
        )
    if isinstance(function, type):
        raise UsageError(f"{name} is a class; pass an instance, or name the class in a Part, whose options it takes")
    inner: Any = _called(function)
    while (inner is not None and not isinstance(inner, FunctionType)) or hasattr(inner, "__wrapped__"):
        if isinstance(inner, functools.partial):
            return _innermost(inner)
        further = inner.__func__ if isinstance(inner, MethodType) else getattr(inner, "__wrapped__", None)
        if further is None:
            break
        inner = further
    if not isinstance(inner, FunctionType):
        raise UsageError(
            f"{name} does not say what it reads: it is built in or cannot be called; "
            "write `def name(logp, adv, *, option): ...` around it"
        )
    return inner, name


def _refuse_hidden_numbers(inner: FunctionType, name: str) -> None:
    if inner.__name__ == "<lambda>":
        raise UsageError("a lambda has no name that a file could hold; write it as a function of a module")
    free = [variable for variable in inner.__code__.co_freevars if variable != "__class__"]
    if free:
        raise UsageError(
            f"{name} takes {', '.join(free)} from the function around it, where no schedule and no checkpoint sees "
            f"them; make them options: def {inner.__name__}(..., *, {', '.join(free)})"
        )


def _kinds(parameter: inspect.Parameter, name: str) -> tuple[str, ...]:
    """Return the entries of `Reads` to which an argument belongs."""
    kind, has_default = parameter.kind, parameter.default is not parameter.empty
    if kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if kind is parameter.VAR_POSITIONAL else "**"
        raise UsageError(
            f"{name} takes {stars}{parameter.name}, which does not say what it reads; "
            "name each argument, and let a wrapper keep its function's signature by functools.wraps"
        )
    if kind is parameter.KEYWORD_ONLY:
        return ("options",) if has_default else ("options", "required")
    if has_default and parameter.default is not None:
        raise UsageError(
            f"{name} has the default {parameter.name}={parameter.default!r} before `*`; an option stands after it: "
            f"def {name.split('.')[-1]}(..., *, {parameter.name}={parameter.default!r})"
        )
    return ("optional",) if has_default else ("fields",)


def connect(
    function: Callable[..., object],
    names: Iterable[str],
    options: Iterable[str] = (),
    rename: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    where: str | None = None,
) -> tuple[str | None, ...]:
    """Find for each argument before `*` the field that it gets.

    Args:
        function: see `reads`.
        names: fields that exist.
        options: names of the options that the row gives.
        rename: argument -> field.
        where: what is wired, for messages, e.g. "loss 'critic'".

    Returns:
        The names of the fields in the order of the arguments; None for an optional one that does not resolve. The call is
        `function(*[None if f is None else fields[f] for f in connected], **options)`.

    Raises:
        UsageError: a name does not resolve, a rename or an option that no argument takes, a required option missing.
    """
    what, allowed, renamed = reads(function), set(names), dict(rename)
    where = where or str(getattr(function, "__qualname__", type(function).__qualname__))
    arguments = (*what.fields, *what.optional)
    for argument in renamed:
        if argument not in arguments:
            raise unknown_name(f"argument in rename= of {where}", argument, arguments)
    check_options(what, options, where)
    connected: list[str | None] = []
    for argument in arguments:
        name = renamed.get(argument, argument)
        if name in allowed:
            connected.append(name)
        elif argument in what.optional and argument not in renamed:
            connected.append(None)
        else:
            raise unknown_name(f"name read by {where}", name, allowed)
    return tuple(connected)


def check_options(what: Reads | type, given: Iterable[str], where: str) -> None:
    """Refuse options that nothing takes, that are given twice, or that are missing.

    Args:
        what: what a function reads, or a class whose `__init__` takes the options.
        given: names of the options in the row.
        where: what is checked, for messages.
    """
    names = list(given)
    refuse_twice(names, where)
    takes = what if isinstance(what, Reads) else _made_with(what)
    for name in names:
        if name not in takes.options:
            hint = " (it is read as a field: rename it)" if name in takes.fields + takes.optional else ""
            raise unknown_name(f"option of {where}{hint}", name, takes.options)
    missing = [name for name in takes.required if name not in names]
    if missing:
        raise UsageError(f"{where} needs the option {', '.join(missing)}, which has no default")


def _made_with(made: type) -> Reads:
    """Return the arguments of a class's `__init__` as options."""
    options: list[str] = []
    required: list[str] = []
    for parameter in inspect.signature(made).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UsageError(f"{made.__qualname__}.__init__ takes *{parameter.name}; name each of its numbers")
        options.append(parameter.name)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    return Reads((), (), tuple(options), tuple(required))


def find_part(path: str) -> Callable[..., Any]:
    """Import the function or class of a path, as `Part.path` has it.

    A module without a dot is looked for in agents/parts, then among the modules that Python can import (a file of the
    user's own).

    Raises:
        UsageError: there is no such module or name; the message has the nearest one.
    """
    module, name = split_path(path)
    return _attribute(_module(module, path), name, path)


def function_at(path: str) -> Callable[..., Any]:
    """Import what `path_of` named.

    Raises:
        UsageError: it cannot be imported.
    """
    module, name = split_path(path)
    try:
        return _attribute(importlib.import_module(module), name, path)
    except ModuleNotFoundError as error:
        raise UsageError(f"{path!r} cannot be imported here: {error}") from error


def path_of(function: Callable[..., object]) -> str:
    """Return "module:function", by which a file names a function.

    Raises:
        UsageError: it stands inside another function or a class, so that no file can name it.
    """
    inner, _ = _innermost(function)
    named: Any = function if isinstance(function, FunctionType) or hasattr(function, "__wrapped__") else inner
    if "." in named.__qualname__:
        raise UsageError(f"{named.__qualname__} cannot be named in a file; move it to the top of a module")
    return f"{named.__module__}:{named.__qualname__}"


@functools.cache
def _modules_of_parts() -> tuple[str, ...]:
    """Return the names of the modules of agents/parts; looking into the folder for every part took a tenth of making a recipe."""
    return tuple(found.name for found in pkgutil.iter_modules(importlib.import_module(PARTS).__path__))


def _module(module: str, path: str) -> Any:
    known = _modules_of_parts()
    full = _HOMES.get(module, f"{PARTS}.{module}" if module in known else module)
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name is None or not (full == error.name or full.startswith(f"{error.name}.")):
            raise
        allowed = [*known, *_HOMES] if "." not in module else [module.rpartition(".")[0]]
        raise unknown_name(f"module in the path {path!r}", module, allowed) from error


def _attribute(module: Any, name: str, path: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if callable(found):
        return found
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    raise unknown_name(f"name in the path {path!r}", name, own)
