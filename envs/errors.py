"""Errors that users meet, worded once: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from types import ModuleType
from typing import Any


class UsageError(ValueError):
    """Input that cannot be honoured.

    The command line prints its message in one line and exits with code 2; from Python it is an ordinary `ValueError`.
    """


class UnknownArgument(UsageError, TypeError):
    """A keyword that a constructor does not take: Python's own `TypeError`, with the nearest keyword that it does take."""


def nearest(given: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that looks most like `given`, or None when nothing comes close."""
    names = list(allowed)
    matches = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if matches:
        return matches[0]
    folded = {name.lower(): name for name in names}
    matches = difflib.get_close_matches(given.lower(), list(folded), n=1, cutoff=0.5)
    return folded[matches[0]] if matches else None


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> UsageError:
    """Build the error for a name that is not in a table.

    Args:
        kind: what the name stands for, e.g. "environment" or "recipe".
        given: the name that was given.
        allowed: the names that exist.

    Returns:
        The error to raise; its message lists the nearest name first.
    """
    names = sorted(allowed)
    close = nearest(str(given), names)
    hint = f" Did you mean {close!r}?" if close else ""
    listed = ", ".join(names) if len(names) <= 24 else ", ".join(names[:24]) + f" ... ({len(names)} in all)"
    return UsageError(f"unknown {kind} {given!r}.{hint} Known: {listed}.")


def check_choice(kind: str, given: Any, allowed: Iterable[str]) -> None:
    """Refuse a word that is none of a table's, also where it is no text at all.

    Raises:
        UsageError: see `unknown_name`.
    """
    names = list(allowed)
    if not isinstance(given, str) or given not in names:
        raise unknown_name(kind, str(given), names)


def check_options(**given: Any) -> None:
    """Refuse options for something else that are no dict; None gives none.

    Raises:
        UsageError: naming the argument.
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{name} must be a dict such as {{'option': value}}, got {value!r}")


def check_listed(**given: Any) -> None:
    """Refuse what is no list, tuple or set where several values are asked for; None stands for all.

    Raises:
        UsageError: naming the argument.
    """
    for name, value in given.items():
        if value is not None and (not isinstance(value, Collection) or isinstance(value, str | bytes | Mapping)):
            raise UsageError(f"{name} must be a list, got {value!r}: write [{value!r}] for one alone")


def is_integer(value: Any, least: int) -> bool:
    """Return whether `value` is an integer of at least `least` (numpy's count, truth values do not)."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_int(least: int, **numbers: Any) -> None:
    """Refuse arguments that are no integer of at least `least`.

    Raises:
        UsageError: naming the argument.
    """
    wanted = "a positive integer" if least == 1 else f"an integer of at least {least}"
    for name, value in numbers.items():
        if not is_integer(value, least):
            raise UsageError(f"{name} must be {wanted}, got {value!r}")


def check_positive_int(**numbers: Any) -> None:
    """Refuse arguments that are no positive integer.

    Raises:
        UsageError: naming the argument.
    """
    check_int(1, **numbers)


def check_non_negative(**numbers: Any) -> None:
    """Refuse arguments that are no number of at least 0 (infinity is one, NaN is none).

    Raises:
        UsageError: naming the argument.
    """
    for name, value in numbers.items():
        if not (isinstance(value, Real) and not isinstance(value, bool) and float(value) >= 0):
            raise UsageError(f"{name} must be a number and must not be negative, got {value!r}")


def check_finite(**numbers: Any) -> None:
    """Refuse arguments that are no finite number.

    Raises:
        UsageError: naming the argument.
    """
    for name, value in numbers.items():
        if not _is_finite(value):
            raise UsageError(f"{name} must be a finite number, got {value!r}")


def check_positive(**numbers: Any) -> None:
    """Refuse arguments that are no finite number above 0.

    Raises:
        UsageError: naming the argument.
    """
    for name, value in numbers.items():
        if not (_is_finite(value) and value > 0):
            raise UsageError(f"{name} must be a positive number, got {value!r}")


def check_fraction(**numbers: Any) -> None:
    """Refuse arguments that do not lie between 0 and 1, both allowed.

    Raises:
        UsageError: naming the argument.
    """
    for name, value in numbers.items():
        if not (_is_finite(value) and 0 <= value <= 1):
            raise UsageError(f"{name} must lie between 0 and 1, got {value!r}")


def refuse_idle(reason: str, **given: Any) -> None:
    """Refuse arguments of a function or command that change nothing in the form that was asked for; None and False were not given.

    Args:
        reason: why they change nothing, and what takes them.
        **given: the arguments by name.

    Raises:
        UsageError: naming the first.
    """
    for name, value in given.items():
        if value is not None and value is not False:
            raise UsageError(f"{name}={value!r} has no effect: {reason}. Leave {name} out")


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra brings it.

    Args:
        module: dotted name of the module.
        extra: name of the extra of this package that depends on it.

    Raises:
        ImportError: the module is not installed; the message is the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(f"{module} is not installed. Install it with: pip install 'polyathlon[{extra}]'") from error


POLICY_POSITIONS = ("observation_space", "action_space", "lr_schedule")  # what an agent gives its policy itself


def require_program(program: str, *commands: str) -> ImportError:
    """Build the error for a program that is not installed.

    Args:
        program: its name.
        commands: commands, each of which installs it.
    """
    return ImportError(
        f"the program {program} was not found. Install it with: {' (or: '.join(commands)}{')' * (len(commands) - 1)}"
    )


def constructor_keywords(cls: type) -> set[str]:
    """Return the keywords that a class takes: those of its constructor, and of the next in line while there is `**kwargs`."""
    known: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        known |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return known - set(getattr(cls, "unread", ()))  # what a class says that it does not use


def refuse_unknown_arguments(
    cls: type, given: Iterable[str], hidden: Iterable[str] = (), given_as: str | None = None
) -> None:
    """Refuse keywords that no constructor of a class names; `cls.refused_words` has the reasons of words known from elsewhere.

    `cls.holder_of(name)`, where there is one, names the dictionary among the arguments that takes a word.

    Args:
        cls: the class that is to be made.
        given: names of the keywords.
        hidden: keywords that the message does not list, for they are not for users.
        given_as: name of the dictionary that they were given in, such as "policy_kwargs".

    Raises:
        UnknownArgument: naming the first one, and the nearest that there is.
    """
    known, refused = constructor_keywords(cls), getattr(cls, "refused_words", {})
    for name in given:
        if name in refused and given_as is None:
            raise UnknownArgument(f"{cls.__name__} does not take {name}, whatever its value: {refused[name]}")
        holder = getattr(cls, "holder_of", lambda _: None)(name) if given_as is None else None
        if name not in known and holder is not None:
            raise UnknownArgument(
                f"{name!r} is no argument of {cls.__name__} by itself: it goes into {holder}, {holder}={{{name!r}: ...}}"
            )
        if name not in known:
            kind = f"argument of {cls.__name__}" + (f" in {given_as}" if given_as else "")
            raise UnknownArgument(str(unknown_name(kind, name, known - set(hidden))))


def refuse_without_effect(cls: type, given: Mapping[str, object], reason: str) -> None:
    """Refuse arguments that nothing reads beside the others, where they are not what they are by default.

    Args:
        cls: the class that is made.
        given: values of the arguments.
        reason: when they have no effect, such as 'with learn_from="rewards"'.

    Raises:
        UsageError: naming the first of them.
    """
    defaults = {
        name: parameter.default
        for base in reversed(cls.__mro__)
        if "__init__" in vars(base)
        for name, parameter in inspect.signature(base.__init__).parameters.items()  # type: ignore[misc]
    }
    for name, value in given.items():
        if value is not defaults[name] and value != defaults[name]:
            raise UsageError(f"{name}={value!r} has no effect {reason}: leave {name} out")
