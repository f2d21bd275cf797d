"""Errors that users meet, worded once: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from types import ModuleType


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
    return known


def refuse_unknown_arguments(cls: type, given: Iterable[str], hidden: Iterable[str] = ()) -> None:
    """Refuse keywords that no constructor of a class names.

    Args:
        cls: the class that is to be made.
        given: names of the keywords.
        hidden: keywords that the message does not list, for they are not for users.

    Raises:
        UnknownArgument: naming the first one, and the nearest that there is.
    """
    known = constructor_keywords(cls)
    for name in given:
        if name not in known:
            raise UnknownArgument(str(unknown_name(f"argument of {cls.__name__}", name, known - set(hidden))))
