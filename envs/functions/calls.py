"""A function call as data, and how one is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

LANGUAGES = ("python", "java", "javascript")
MAX_DEPTH = 64


class Call(NamedTuple):
    """A call: the dotted name of the function and its keyword arguments.

    Arguments of a Python call are plain values; those of a Java or JavaScript call are source texts.
    """

    name: str
    arguments: dict[str, Any]


class DecodeError(ValueError):
    """A text holds no function calls, and why."""


def write_value(value: Any) -> str:
    """Write a plain value as Python source; a nested call {name: {...}} stays a dict."""
    return repr(value)


def write_calls(calls: Sequence[Call], language: str = "python") -> str:
    """Write calls as a policy answers them: `[name(parameter=value), ...]`.

    A Java call gets a semicolon: the grammar reads statements, and without one it recovers from long calls only.

    Args:
        calls: the calls; values are Python values, or source texts in the other languages.
        language: one of `LANGUAGES`.
    """
    write = write_value if language == "python" else str
    one = [f"{call.name}({', '.join(f'{k}={write(v)}' for k, v in call.arguments.items())})" for call in calls]
    return "[" + ", ".join(one) + (";]" if language == "java" else "]")


def shown(value: Any, longest: int = 60) -> str:
    """Return a value as a short text, whatever it is; an integer too long to print is described."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to print"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def check_depth(text: str, opening: str = "([{", closing: str = ")]}") -> None:
    """Refuse a text whose brackets, those in strings included, nest deeper than `MAX_DEPTH`.

    Args:
        text: the text.
        opening: the brackets that open.
        closing: those that close.

    Raises:
        DecodeError: they do.
    """
    # most texts have too few brackets to nest that deep
    if sum(map(text.count, opening)) <= MAX_DEPTH:
        return
    depth = 0
    for bracket in re.findall(f"[{re.escape(opening + closing)}]", text):
        depth = depth + 1 if bracket in opening else max(depth - 1, 0)
        if depth > MAX_DEPTH:
            raise DecodeError(f"brackets are nested deeper than {MAX_DEPTH}")
