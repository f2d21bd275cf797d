"""A quick reader for the plainest Java and JavaScript calls; whatever it is not sure of is left to the grammars.

It accepts a part of what `source_calls` does, and reads that part the same way: one call in ASCII whose arguments are all
named and are strings without escapes, numbers, or dotted names that are no words of the language; in JavaScript also flat
lists and objects of these. Half of the answers of models are of this kind, and a grammar takes five times as long.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BLANK = r"[ \n\t]*"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_NAMES = rf"{_NAME}(?:\.{_NAME})*"
_WHOLE = r"-?(?:0|[1-9][0-9]{0,17})"
_TEXT = r'"[ !#-\[\]-~]*"'  # printable, without quotes and backslashes
_SINGLE = r"'[ -&(-\[\]-~]*'"
_HEAD = re.compile(rf"{_BLANK}({_NAMES})\({_BLANK}(\))?")
_NAMED = re.compile(_NAME)
_END = {"java": re.compile(rf"{_BLANK};{_BLANK}"), "javascript": re.compile(rf"{_BLANK};?{_BLANK}")}
_JAVA_SCALAR = rf"(?:{_TEXT}|{_NAMES}|{_WHOLE}(?:\.[0-9]{{1,18}}[fFdD]?|[lLfFdD])?)"
_JAVA_SCALARS = rf"{_BLANK}{_JAVA_SCALAR}{_BLANK}(?:,{_BLANK}{_JAVA_SCALAR}{_BLANK})*"
_JAVA_ARRAY = rf"new {_NAME}\[\]{_BLANK}\{{{_JAVA_SCALARS}\}}"
_JAVA_LIST = rf"new ArrayList<(?:{_NAME})?>\(Arrays\.asList\({_JAVA_SCALARS}\)\)"
_JAVA_ELEMENT = re.compile(_JAVA_SCALAR)
_SCALAR = rf"(?:{_TEXT}|{_SINGLE}|{_NAMES}|{_WHOLE}(?:\.[0-9]{{1,18}})?)"
_LIST = rf"\[{_BLANK}(?:{_SCALAR}{_BLANK}(?:,{_BLANK}{_SCALAR}{_BLANK})*)?\]"
_PAIR = rf"(?:{_NAME}|{_TEXT}|{_SINGLE}){_BLANK}:{_BLANK}(?:{_SCALAR}|{_LIST}){_BLANK}"
_OBJECT = rf"\{{{_BLANK}(?:{_PAIR}(?:,{_BLANK}{_PAIR})*)?\}}"
_VALUES = {"java": rf"{_JAVA_ARRAY}|{_JAVA_LIST}|{_JAVA_SCALAR}", "javascript": rf"{_SCALAR}|{_LIST}|{_OBJECT}"}
_ARGUMENT = {
    language: re.compile(rf"({_NAME}){_BLANK}={_BLANK}({value}){_BLANK}([,)]){_BLANK}")
    for language, value in _VALUES.items()
}
_CONSTANTS = frozenset({"true", "false", "null"})  # values, but no names
# reserved words, and those that a grammar reads otherwise in some places
_WORDS = {
    "java": frozenset(
        [
            "abstract",
            "assert",
            "boolean",
            "break",
            "byte",
            "case",
            "catch",
            "char",
            "class",
            "const",
            "continue",
            "default",
            "do",
            "double",
            "else",
            "enum",
            "exports",
            "extends",
            "final",
            "finally",
            "float",
            "for",
            "goto",
            "if",
            "implements",
            "import",
            "instanceof",
            "int",
            "interface",
            "long",
            "module",
            "native",
            "new",
            "non",
            "open",
            "opens",
            "package",
            "permits",
            "private",
            "protected",
            "provides",
            "public",
            "record",
            "requires",
            "return",
            "sealed",
            "short",
            "static",
            "strictfp",
            "super",
            "switch",
            "synchronized",
            "this",
            "throw",
            "throws",
            "to",
            "transient",
            "transitive",
            "true",
            "false",
            "null",
            "try",
            "uses",
            "var",
            "void",
            "volatile",
            "when",
            "while",
            "with",
            "yield",
            "_",
        ]
    ),
    "javascript": frozenset(
        [
            "accessor",
            "arguments",
            "as",
            "async",
            "await",
            "break",
            "case",
            "catch",
            "class",
            "const",
            "continue",
            "debugger",
            "default",
            "delete",
            "do",
            "else",
            "enum",
            "eval",
            "export",
            "extends",
            "finally",
            "for",
            "from",
            "function",
            "get",
            "if",
            "implements",
            "import",
            "in",
            "instanceof",
            "interface",
            "let",
            "meta",
            "new",
            "of",
            "package",
            "private",
            "protected",
            "public",
            "return",
            "set",
            "static",
            "super",
            "switch",
            "target",
            "this",
            "throw",
            "true",
            "false",
            "null",
            "undefined",
            "try",
            "typeof",
            "using",
            "var",
            "void",
            "while",
            "with",
            "yield",
        ]
    ),
}


class PlainCall(NamedTuple):
    """The name of a call, and its arguments in order, strings with their quotes."""

    name: str
    arguments: list[tuple[str, str]]


def read_quickly(source: str, language: str) -> PlainCall | None:
    """Read a call, or return None where the grammar must.

    Args:
        source: the text without its outer brackets.
        language: "java" or "javascript".
    """
    head = _HEAD.match(source)
    if head is None:
        return None
    words, argument = _WORDS[language], _ARGUMENT[language]
    if not words.isdisjoint(head[1].split(".")):
        return None
    place, is_over, found = head.end(), head[2] is not None, []
    while not is_over:
        one = argument.match(source, place)
        if one is None:
            return None
        name, value, follows = one.groups()
        if name in words:
            return None
        if value.startswith("new "):
            value = _as_leaves(value)
            plain = words.isdisjoint(_NAMED.findall(value, 4))
        else:
            plain = _is_plain(value, words)
        if not plain:
            return None
        found.append((name, value))
        place, is_over = one.end(), follows == ")"
    return PlainCall(head[1], found) if _END[language].fullmatch(source, place) else None


def _as_leaves(value: str) -> str:
    """Return the elements of `new Kind[] {...}` as the leaves of its tree, without blanks; other values as they are."""
    head, bracket, body = value.partition("[]")
    if not bracket or "(" in head:
        return value
    return f"{head}[]{{{','.join(_JAVA_ELEMENT.findall(body))}}}"


def _is_plain(value: str, words: frozenset[str]) -> bool:
    """Return whether no name in a value is a word of the language; one that stands in a list's strings counts too."""
    if value[0] in "\"'-0123456789":
        return True
    if value[0] in "[{" or "." in value:
        return words.isdisjoint(_NAMED.findall(value))
    return value not in words or value in _CONSTANTS
