"""Schemas of Python functions, from their type hints and docstrings."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from polyathlon.envs.errors import UsageError

from .calls import shown

_PLAIN = {
    str: "string",
    int: "integer",
    float: "float",
    bool: "boolean",
    Any: "any",
    dict: "dict",
    list: "array",
    tuple: "tuple",
}
_SEQUENCES = (list, collections.abc.Sequence, collections.abc.Iterable, set, frozenset)
_MAPPINGS = (dict, collections.abc.Mapping)
_PARAMETER = re.compile(r"^\s*(\w+)\s*(?:\([^)]*\))?\s*:\s*(.+)$")
_HEADING = re.compile(r"^\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples|Note|Notes)\s*:\s*$")


def function_schema(function: Callable[..., Any], name: str | None = None) -> dict[str, Any]:
    """Describe a function as a tool: its name, what it does, and its parameters.

    Types come from the hints: str, int, float, bool, list, tuple, dict, Any, Literal and Enum (its values), Optional.
    The text before `Args:` of the docstring is the description; the lines below describe the parameters.

    Args:
        function: a function or a bound method.
        name: the tool's name; None takes the function's own.

    Returns:
        {"name", "description", "parameters": {"type": "dict", "properties", "required"}}.

    Raises:
        UsageError: a parameter has no hint, an unknown one, or takes any number of arguments.
    """
    named = name or getattr(function, "__name__", None)
    if not callable(function) or named is None:
        raise UsageError(f"a tool is a Python function with type hints, got {function!r}")
    description, explained = read_docstring(inspect.getdoc(function) or "")
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise UsageError(f"the type hints of {named} cannot be resolved: {error}") from error
    properties: dict[str, Any] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f"{named}: the parameter {parameter} cannot be given by name; tools take named parameters")
        if parameter.name not in hints:
            raise UsageError(
                f"{named}: the parameter {parameter.name!r} has no type hint, so no schema can be made of it"
            )
        declared = schema_of_hint(hints[parameter.name], f"{named}: the parameter {parameter.name!r}")
        if parameter.name in explained:
            declared["description"] = explained[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif parameter.default is None or isinstance(parameter.default, str | int | float | bool | list | dict | tuple):
            declared["default"] = parameter.default
        properties[parameter.name] = declared
    parameters = {"type": "dict", "properties": properties, "required": required}
    return {"name": named, "description": description, "parameters": parameters}


def schema_of_hint(hint: Any, what: str) -> dict[str, Any]:
    """Turn a type hint into a schema; `what` names the parameter in errors.

    Raises:
        UsageError: there is no schema for the hint.
    """
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        values = [member.value for member in hint]
        if not values:
            raise UsageError(f"{what} takes a member of {hint.__name__}, which has none")
        return {**schema_of_hint(type(values[0]), what), "enum": values}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]} | ({"items": {"type": "any"}} if hint in (list, tuple) else {})
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return schema_of_hint(arguments[0], what)
    if origin is typing.Literal:
        return {**schema_of_hint(type(arguments[0]), what), "enum": list(arguments)}
    if origin in (typing.Union, types.UnionType):
        inner = [one for one in arguments if one is not type(None)]
        return schema_of_hint(inner[0], what) if len(inner) == 1 else {"type": "any"}
    if origin in _SEQUENCES or origin is tuple:
        kinds = [schema_of_hint(one, what) for one in arguments if one is not ...]
        # elements of several types, or of none that is told, may be anything
        items = kinds[0] if kinds and all(kind == kinds[0] for kind in kinds) else {"type": "any"}
        return {"type": "tuple" if origin is tuple else "array", "items": items}
    if origin in _MAPPINGS:
        return {"type": "dict"}
    raise UsageError(
        f"{what} has the type hint {hint!r}; allowed are str, int, float, bool, list, tuple, dict, Any, Literal, Enum and Optional of these"
    )


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a docstring in Google's form into the description and what it says of each parameter."""
    description: list[str] = []
    explained: dict[str, str] = {}
    section, last, indent = "", "", 0
    for line in text.splitlines():
        heading = _HEADING.match(line)
        if heading:
            section, last = heading[1], ""
        elif not section:
            description.append(line.strip())
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            found, depth = _PARAMETER.match(line), len(line) - len(line.lstrip())
            if found and (not last or depth <= indent):
                last, indent = found[1], depth
                explained[last] = found[2].strip()
            elif last:
                explained[last] += " " + line.strip()
    return " ".join(" ".join(description).split()), explained


def fits(value: Any, declared: dict[str, Any]) -> bool:
    """Return whether a decoded value has the type that a schema declares; a whole number is a float as well."""
    kind = declared.get("type", "any")
    if "enum" in declared:
        # True is not 1 here, but a whole number is a float
        kinds = (int, float) if type(value) is int else (type(value),)
        is_allowed = any(type(one) in kinds and value == one for one in declared["enum"])
        return is_allowed or (value is None and declared.get("default", 0) is None)
    if kind == "any" or (value is None and declared.get("default", 0) is None):
        return True
    if kind in ("array", "tuple"):
        items = declared.get("items", {"type": "any"})
        return isinstance(value, list | tuple) and all(fits(one, items) for one in value)
    expected = {"string": str, "integer": int, "float": (int, float), "boolean": bool, "dict": dict}[kind]
    return isinstance(value, expected) and (kind == "boolean" or not isinstance(value, bool))  # type: ignore[arg-type]


def misfit(value: Any, declared: dict[str, Any]) -> str:
    """Say what a schema wants in the place of a value that does not fit: its type, or the values that are allowed."""
    wanted = (
        f"one of {', '.join(map(repr, declared['enum']))}" if "enum" in declared else f"of type {_type_of(declared)}"
    )
    return f"must be {wanted}, got {shown(value)}"


def _type_of(declared: dict[str, Any]) -> str:
    kind = str(declared.get("type", "any"))
    return f"{kind} of {_type_of(declared['items'])}" if kind in ("array", "tuple") and "items" in declared else kind


def enums_of(function: Callable[..., Any]) -> dict[str, type[enum.Enum]]:
    """Return the parameters of a function that take a member of an Enum, or None: name -> the Enum."""
    found = {}
    for name, hint in typing.get_type_hints(function).items():
        kinds = [one for one in (typing.get_args(hint) or (hint,)) if one is not type(None)]
        if name != "return" and len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], enum.Enum):
            is_optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
            if is_optional or hint is kinds[0]:
                found[name] = kinds[0]
    return found
