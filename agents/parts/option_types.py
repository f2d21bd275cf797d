"""Annotations of the options of parts, and the check of what a row gives them; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from polyathlon.envs.errors import UsageError, unknown_name

from .records import Schedule


@dataclass(frozen=True)
class Bounds:
    """The interval that a number lies in, both ends allowed.

    Attributes:
        least: smallest number.
        most: largest number.
    """

    least: float = -math.inf
    most: float = math.inf


NonNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]
Count = Annotated[int, Bounds(0)]
PositiveCount = Annotated[int, Bounds(1)]


def check_option_values(function: Callable[..., object], options: dict[str, object], where: str) -> None:
    """Refuse values that the annotations of a function's arguments do not allow.

    Literals, numbers with `Bounds`, truth values, texts and unions of these are checked; other annotations allow anything. A
    schedule stands for its first and last number.

    Args:
        function: a function, or a class whose `__init__` takes the options.
        options: the values by name.
        where: what has them, for messages.

    Raises:
        UsageError: a value is of another type or outside its interval; nearest names are suggested.
    """
    called: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    try:
        hints = get_type_hints(called, include_extras=True)
    except (NameError, AttributeError, TypeError):  # annotations of the user's own that cannot be looked up
        return
    for name, value in options.items():
        if name in hints:
            check_value(hints[name], value, f"{name} of {where}")


def check_value(hint: Any, value: object, where: str) -> None:
    """Refuse a value that an annotation does not allow; see `check_option_values`."""
    if isinstance(value, Schedule):
        check_value(hint, value.start, f"the start of the schedule {where}")
        check_value(hint, value.end, f"the end of the schedule {where}")
        return
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        _check_union(get_args(hint), value, where)
    elif origin is Literal:
        if value not in get_args(hint):
            raise unknown_name(where, str(value), [str(choice) for choice in get_args(hint)])
    elif origin is Annotated:
        base, *further = get_args(hint)
        bounds = next((item for item in further if isinstance(item, Bounds)), Bounds())
        _check_plain(base, bounds, value, where)
    else:
        _check_plain(hint, Bounds(), value, where)


def _check_union(choices: tuple[Any, ...], value: object, where: str) -> None:
    if value is None and type(None) in choices:
        return
    errors = []
    for choice in choices:
        if choice is not type(None):
            try:
                return check_value(choice, value, where)
            except UsageError as error:
                errors.append(error)
    raise errors[0]


def _check_plain(hint: Any, bounds: Bounds, value: object, where: str) -> None:
    if hint is bool and not isinstance(value, bool):
        raise UsageError(f"{where} must be True or False, got {value!r}")
    if hint is str and not isinstance(value, str):
        raise UsageError(f"{where} must be a text, got {value!r}")
    if hint not in (int, float):
        return
    kind: Any = Integral if hint is int else Real
    is_one = isinstance(value, kind) and not isinstance(value, bool)
    if not (is_one and bounds.least <= float(value) <= bounds.most):  # type: ignore[arg-type]
        if hint is int and bounds == Bounds(1):
            raise UsageError(f"{where} must be a positive integer, got {value!r}")
        word = "an integer" if hint is int else "a number"
        raise UsageError(f"{where} must be {word}{_interval(bounds)}, got {value!r}")


def _interval(bounds: Bounds) -> str:
    if bounds.least == -math.inf and bounds.most == math.inf:
        return ""
    if bounds.most == math.inf:
        return f" of at least {bounds.least:g}"
    return f" from {bounds.least:g} to {bounds.most:g}"
