"""A quick reader for the plainest Python calls; whatever it is not sure of is left to the full one.

It accepts a part of what `python_calls` does, and reads that part the same way: ASCII names, numbers without exponents,
strings without escapes, True, False, None, and flat lists of these. Most answers are of this kind.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from typing import Any

from .calls import Call

_BLANK = r"[ \n\t]*"
_TEXT = r"'([^'\\\n\r\0\ud800-\udfff]*)'|\"([^\"\\\n\r\0\ud800-\udfff]*)\""
_NUMBER = r"(-?(?:0|[1-9][0-9]{0,17}))|(-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18})"
_SCALAR = rf"(?:{_TEXT}|{_NUMBER}|(True|False|None))"
_HEAD = re.compile(rf"{_BLANK}([A-Za-z_][A-Za-z0-9_.]*)\({_BLANK}(\))?")
_ARGUMENT = re.compile(rf"([A-Za-z_][A-Za-z0-9_]*){_BLANK}={_BLANK}(?:{_SCALAR}{_BLANK}([,)]){_BLANK}|\[{_BLANK}(\])?)")
_ELEMENT = re.compile(rf"{_SCALAR}{_BLANK}([,\]]){_BLANK}")
_AFTER_LIST = re.compile(rf"{_BLANK}([,)]){_BLANK}")
_NEXT = re.compile(rf"{_BLANK}([,\]])")
# commas of a text, so that reading it is a matter of milliseconds
_MOST_VALUES = 1 << 13
_KEYWORDS = frozenset(keyword.kwlist)
_CONSTANTS = {"True": True, "False": False, "None": None}
# by the number of the group that matched
_VALUES: tuple[Callable[[str], Any], ...] = (str, str, int, float, _CONSTANTS.__getitem__)


def read_quickly(text: str, most: int) -> list[Call] | None:
    """Read the calls of a text `[name(parameter=value, ...), ...]`, or return None where the full reader must.

    Args:
        text: the text, with its outer brackets.
        most: largest number of calls.
    """
    if len(text) > 2 * _MOST_VALUES and text.count(",") > _MOST_VALUES:
        return None
    calls: list[Call] = []
    place = 1
    while len(calls) < most:
        head = _HEAD.match(text, place)
        if head is None:
            return None
        name = head[1]
        if not _is_name(name):
            return None
        place = head.end()
        arguments: dict[str, Any] = {}
        if head[2] is None:
            end = _read_arguments(text, place, arguments)
            if end is None:
                return None
            place = end
        calls.append(Call(name, arguments))
        after = _NEXT.match(text, place)
        if after is None:
            return None
        place = after.end()
        if after[1] == "]":
            return calls if place == len(text) else None
    return None


def _is_name(name: str) -> bool:
    if name in _KEYWORDS or "__" in name:
        return False
    if "." not in name:
        return True
    parts = name.split(".")
    return all(part and not part[0].isdigit() for part in parts) and _KEYWORDS.isdisjoint(parts)


def _read_arguments(text: str, place: int, arguments: dict[str, Any]) -> int | None:
    """Read arguments into a dict and return where the call ends, or None."""
    while True:
        found = _ARGUMENT.match(text, place)
        if found is None:
            return None
        name, place = found[1], found.end()
        if name in _KEYWORDS or "__" in name:
            return None
        follows = found[7]
        if follows is None:
            values: list[Any] = []
            end = place if found[8] else _read_elements(text, place, values)
            after = None if end is None else _AFTER_LIST.match(text, end)
            if after is None:
                return None
            arguments[name], follows, place = values, after[1], after.end()
        else:
            k = _kind(found, 2)
            arguments[name] = _VALUES[k](found[k + 2])
        if follows == ")":
            return place


def _read_elements(text: str, place: int, values: list[Any]) -> int | None:
    """Read the elements of a flat list and return where it ends, or None."""
    while True:
        found = _ELEMENT.match(text, place)
        if found is None:
            return None
        k = _kind(found, 1)
        values.append(_VALUES[k](found[k + 1]))
        place = found.end()
        if found[6] == "]":
            return place


def _kind(found: re.Match[str], first: int) -> int:
    for k in range(5):
        if found[first + k] is not None:
            return k
    raise AssertionError("the pattern matches one of five kinds")
