"""Java and JavaScript source text into plain values, as the Berkeley Function Calling Leaderboard reads it.

Each rule is matched in time that grows at most with the square of the text, and texts over `MAX_SOURCE` characters stay
texts, so that no value can hold the judge up. Whatever does not match stays the text that it is.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

MAX_SOURCE = 4096
_WHOLE = re.compile(r"^-?\d+$")
_LONG = re.compile(r"^-?\d+[lL]$")
_JAVA_FLOAT = re.compile(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?[fF]$")
_JAVA_DOUBLE = re.compile(r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$")
_JS_FLOAT = re.compile(r"^-?\d+(\.\d+)?$")
_BIGINT = re.compile(r"^-?\d+n$")
_JAVA_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*?)\}")
_LIST_AS_LIST = re.compile(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)")
_LIST_BODY = re.compile(r"new\s+ArrayList<\w*>\(\)\s*\{\{")
_LIST_EMPTY = re.compile(r"new\s+ArrayList<\w*>\(\)")
_LIST_ADD = re.compile(r"add\((.+?)\)")
_MAP_BODY = re.compile(r"new\s+HashMap<.*?>\s*\(\)\s*\{", re.DOTALL)
_MAP_EMPTY = re.compile(r"new\s+HashMap<.*?>\s*\(\)")
_JS_ARRAY = re.compile(r"\[(.*?)\]|new\s+Array\((.*?)\)")
_JS_ROWS = re.compile(r"\[\s*\[|new\s+Array\(\s*\[")
_JS_ROW = re.compile(r"\[(.*?)\]")
_JS_DICT = re.compile(r"\{(.*?)\}")
_JS_PAIR = re.compile(r"([^:]+):\s*(.*?)(?:,\s*(?=[^,]+:)|$)")
_BLANK = re.compile(r"\s*")


def _number(text: str) -> Any:
    """Read a number as Python writes it; anything else stays a text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _guess_java(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    if _LONG.match(text):
        return _whole(text[:-1])
    return float(text[:-1]) if _JAVA_FLOAT.match(text) else _number(text)


def _whole(text: str) -> Any:
    try:
        return int(text)
    except ValueError:  # more digits than Python converts
        return text


def _java_element(text: str, element: str | None) -> Any:
    return convert_java(text, element) if element else _guess_java(text)


def _java_array(text: str, element: str | None) -> Any:
    found = _JAVA_ARRAY.search(text)
    if found is None:
        return text
    return [_java_element(piece.strip(), element) for piece in found[1].split(",") if piece.strip()]


def _java_list(text: str, element: str | None) -> Any:
    as_list = _LIST_AS_LIST.search(text)
    if as_list is not None:
        pieces = as_list[1].split(",")
    else:
        body = _list_body(text)
        if body is None:
            return [] if _LIST_EMPTY.search(text) else text
        pieces = _LIST_ADD.findall(body)
    stripped = [piece.strip() for piece in pieces]
    if element in ("char", "String"):
        return [piece[1:-1] for piece in stripped]
    return [_java_element(piece, element) for piece in stripped]


def _list_body(text: str) -> str | None:
    """Return what stands between `new ArrayList<...>() {{` and `}}`: at least one character."""
    for head in _LIST_BODY.finditer(text):
        start = _skip_blank(text, head.end())
        end = text.find("}}", start + 1)
        if end >= 0:
            return text[start:end]
        if start > head.end() and text.startswith("}}", start):
            return ""
    return None


def _java_map(text: str) -> Any:
    head = _MAP_BODY.search(text)
    end = -1 if head is None else text.find("}", head.end())
    if head is None or end < 0:
        return {} if _MAP_EMPTY.search(text) else text
    return {key: _guess_java(value.strip()) for key, value in _puts(text[head.end() : end])}


def _puts(body: str) -> list[tuple[str, str]]:
    """Return the keys and values of `put("key", value)`, as far as a line; an expression takes the cube of the length for it."""
    ends = [i for i in range(len(body)) if body.startswith('",', i)]
    values: dict[int, tuple[int, int]] = {}  # of the ends of keys behind which a value stands
    for i in ends:
        start = _skip_blank(body, i + 2)
        stop, line_end = body.find(")", start), body.find("\n", start)
        if stop >= 0 and not 0 <= line_end < stop:
            values[i] = (start, stop)
    usable = list(values)
    found, place = [], 0
    while (place := body.find('put("', place)) >= 0:
        key = place + len('put("')
        line_end = body.find("\n", key)
        k = bisect_left(usable, key)
        if k == len(usable) or 0 <= line_end < usable[k]:
            place += 1
            continue
        start, stop = values[usable[k]]
        found.append((body[key : usable[k]], body[start:stop]))
        place = stop + 1
    return found


def convert_java(text: str, kind: str, element: str | None = None) -> Any:
    """Turn Java source text into a value.

    Args:
        text: the source.
        kind: type of the schema, one of the keys of `checking.JAVA_TYPES`.
        element: type of the elements, of an Array or ArrayList.

    Returns:
        The value, or the text itself where it is no source of that type.
    """
    if len(text) > MAX_SOURCE:
        return text
    if kind in ("byte", "short", "integer"):
        return _whole(text) if _WHOLE.match(text) else text
    if kind == "float":
        return float(text.rstrip("\n")[:-1]) if _JAVA_FLOAT.match(text) else text
    if kind == "double":
        return float(text) if _JAVA_DOUBLE.match(text) else text
    if kind == "long":
        return _whole(text.rstrip("\n")[:-1]) if _LONG.match(text) else text
    if kind == "boolean":
        return text == "true" if text in ("true", "false") else text
    if kind == "Array":
        return _java_array(text, element)
    if kind == "ArrayList":
        return _java_list(text, element)
    return _java_map(text) if kind == "HashMap" else text


def _is_quoted(text: str) -> bool:
    return (text.startswith('"') and text.endswith('"')) or (text.startswith("'") and text.endswith("'"))


def _guess_javascript(text: str) -> Any:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    return text[1:-1] if _is_quoted(text) else _number(text)


def _skip_blank(text: str, start: int) -> int:
    found = _BLANK.match(text, start)
    assert found is not None
    return found.end()


def _rows_end(text: str, start: int, closing: str) -> int | None:
    """Return where a list of bracketed pieces ends, as `[...] , [...] ... closing`.

    Args:
        text: the source.
        start: where the first piece's content begins.
        closing: the character that ends the list.
    """
    closings = [i for i in range(start, len(text)) if text[i] == "]"]
    ends: dict[int, int | None] = {}

    def first(begin: int) -> int | None:
        line_end = text.find("\n", begin)
        for k in range(bisect_left(closings, begin), len(closings)):
            i = closings[k]
            if 0 <= line_end < i:
                return None
            if ends[i] is not None:
                return ends[i]
        return None

    for i in reversed(closings):
        place = _skip_blank(text, i + 1)
        end = None
        if text.startswith(",", place):
            piece = _skip_blank(text, place + 1)
            end = first(piece + 1) if text.startswith("[", piece) else None
        ends[i] = place + 1 if end is None and text.startswith(closing, place) else end
    return first(start)


def _javascript_array(text: str, element: str | None) -> Any:
    text = text.strip()
    head = _JS_ROWS.match(text)
    end = None if head is None else _rows_end(text, head.end(), "]" if text.startswith("[") else ")")
    if end is not None:
        rows = [row.strip() for row in _JS_ROW.findall(text[:end])]
        if rows and rows[0].startswith("["):
            rows[0] = rows[0][1:]
        return [[_guess_javascript(piece.strip()) for piece in row.split(",")] for row in rows]
    found = _JS_ARRAY.match(text)
    if found is None:
        return text
    inside = (found[1] if found[1] is not None else found[2]).strip()
    pieces = [piece.strip() for piece in inside.split(",")] if inside else []
    if not element:
        return [_guess_javascript(piece) for piece in pieces]
    return [convert_javascript(p, element, "String" if p[:1] in ("'", '"') else None) for p in pieces]


def _javascript_dict(text: str) -> Any:
    text = text.strip()
    found = _JS_DICT.match(text)
    if text == "{}" or found is None:
        return {} if text == "{}" else text
    read = {}
    for key, value in _JS_PAIR.findall(found[1]):
        value = value.strip()
        is_array = value.startswith("[") and value.endswith("]")
        read[key.strip().strip("'\"")] = (
            _javascript_array(value, None) if is_array else _guess_javascript(value.strip("'\""))
        )
    return read


def convert_javascript(text: str, kind: str, element: str | None = None) -> Any:
    """Turn JavaScript source text into a value.

    Args:
        text: the source.
        kind: type of the schema, one of the keys of `checking.JAVASCRIPT_TYPES`.
        element: type of the elements, of an array.

    Returns:
        The value, or the text itself where it is no source of that type.
    """
    if len(text) > MAX_SOURCE:
        return text
    if kind == "String":
        return text[1:-1] if _is_quoted(text) else text
    if kind == "integer":
        return _whole(text) if _WHOLE.match(text) else text
    if kind == "float":
        return float(text) if _JS_FLOAT.match(text) else text
    if kind == "Bigint":
        return _whole(text[:-1]) if _BIGINT.match(text) else text
    if kind == "Boolean":
        return text == "true" if text in ("true", "false") else text
    if kind == "array":
        return _javascript_array(text, element)
    return _javascript_dict(text) if kind == "dict" else text


CONVERTERS: dict[str, Callable[[str, str, str | None], Any]] = {"java": convert_java, "javascript": convert_javascript}
