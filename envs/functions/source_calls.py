"""Java and JavaScript text into calls, by their grammars; arguments stay source text.

The rules are those of the Berkeley Function Calling Leaderboard (Patil et al. 2025); where they are odd (the body of an
anonymous class is lost, byte offsets are used as character offsets in Java) they are kept, so that verdicts agree.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from polyathlon.envs.errors import require

from .calls import MAX_DEPTH, Call, DecodeError, check_depth
from .quick_sources import PlainCall, read_quickly

MAX_SOURCE = 1 << 14
# processor time for one text; the longest ones without errors need 12 ms, those with errors any time
PARSE_SECONDS = 0.025
_SLICE = 10_000  # microseconds
_NODES_A_LOOK = 32  # at the clock, which takes longer than looking at a node
UNNAMED = "*"  # an argument without a name
_QUOTED = frozenset({"string_literal", "character_literal"})
_WORDS = frozenset({"identifier", "class_literal", "type_identifier", "method_invocation"})


_parsers = threading.local()  # a parser keeps where it is, so that threads cannot share one


def grammar_parser(language: str) -> Any:
    """Return this thread's parser of a language.

    Raises:
        ImportError: the extra `functions` is not installed.
    """
    found = getattr(_parsers, language, None)
    if found is None:
        tree_sitter = require("tree_sitter", "functions")
        grammar = require(f"tree_sitter_{language}", "functions")
        found = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
        with warnings.catch_warnings():
            # what is to come in its place works for texts given piece by piece alone
            warnings.simplefilter("ignore", DeprecationWarning)
            found.timeout_micros = _SLICE
        setattr(_parsers, language, found)
    return found


def _parsed(parser: Any, source: bytes) -> Any:
    """Return the tree of a text, or None where its errors keep the parser busy for more than `PARSE_SECONDS`.

    The limit is one of processor time: a busy machine parses in more slices, not less.
    """
    with contextlib.suppress(ValueError):
        return parser.parse(source)  # most texts need a hundredth of a slice
    began = time.thread_time()
    while time.thread_time() - began < PARSE_SECONDS:
        with contextlib.suppress(ValueError):  # a slice is over; the next call goes on
            return parser.parse(source)
    parser.reset()
    return None


def _source(text: str, language: str) -> str:
    """Return a text without its outer brackets.

    Raises:
        DecodeError: it is too long, or brackets nest too deep.
    """
    text = _bracketed(text)
    if len(text) > MAX_SOURCE:
        raise DecodeError(f"the text has {len(text)} characters; at most {MAX_SOURCE} are read as {language}")
    if text.count("(") + text.count("[") + text.count("{") + text.count("<") <= MAX_DEPTH:
        return text
    check_depth(text)
    check_depth(text, "<", ">")  # type arguments: no slice of time ends what the parser does at the end of a deep tree
    return text


def _tree(text: str, language: str) -> Any:
    """Return the root of a text's syntax tree.

    Raises:
        DecodeError: the grammar finds an error (a missing semicolon or bracket is none).
    """
    tree = _parsed(grammar_parser(language), text.encode("utf-8", "replace"))
    if tree is None:
        raise DecodeError(f"the text cannot be read as {language}: its errors are too many")
    root = tree.root_node
    if root.has_error:
        _refuse_errors(root, language)
    return root


def _refuse_errors(root: Any, language: str) -> None:
    """Refuse a tree with an error in it; looking for one has a budget too, since deep trees are slow to walk.

    Raises:
        DecodeError: there is one, or looking takes longer than `PARSE_SECONDS` of processor time.
    """
    began = None
    for number, node in enumerate(_nodes(root), 1):
        if node.is_error:
            raise DecodeError(f"the text cannot be read as {language}")
        if number % _NODES_A_LOOK:
            continue
        began = time.thread_time() if began is None else began
        if time.thread_time() - began > PARSE_SECONDS:
            raise DecodeError(f"the text cannot be read as {language}: its errors are too many")


def _nodes(root: Any) -> Iterator[Any]:
    """Walk through the parts of a tree that hold an error or something missing."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in node.children if child.has_error]


def _bracketed(text: str) -> str:
    text = text.strip("`\n ")
    if not text.startswith("["):
        text = "[" + text
    return text[1:-1] if text.endswith("]") else text[1:]


def _add(arguments: dict[str, str], name: str, value: str) -> None:
    if name in arguments:
        raise DecodeError("an argument is given twice")
    arguments[name] = value


def _plain_call(plain: PlainCall) -> Call:
    arguments: dict[str, str] = {}
    for name, value in plain.arguments:
        _add(arguments, name, value[1:-1] if value[0] in "\"'" else value)
    return Call(plain.name, arguments)


def decode_java(text: str) -> list[Call]:
    """Read the first call of a Java text `[name(parameter=value, ...)]`.

    Raises:
        DecodeError: the text is something else, or an argument is given twice.
        ImportError: the extra `functions` is not installed.
    """
    source = _source(text, "java")
    plain = read_quickly(source, "java")
    if plain is not None:
        return [_plain_call(plain)]
    root = _tree(source, "java")
    try:
        call = _first_invocation(root)
        if call is None:
            raise DecodeError("the text holds no call")
        name, owner = call.child_by_field_name("name"), call.child_by_field_name("object")
        full = _cut(source, name) if owner is None else f"{_cut(source, owner)}.{_cut(source, name)}"
        return [Call(full, _java_arguments(source, call.child_by_field_name("arguments")))]
    except RecursionError:
        raise DecodeError("the text is nested too deep") from None


def _first_invocation(node: Any) -> Any:
    if node.type == "method_invocation":
        return node
    for child in node.children:
        found = _first_invocation(child)
        if found is not None:
            return found
    return None


def _cut(source: str, node: Any) -> str:
    return source[node.start_byte : node.end_byte]


def _java_arguments(source: str, node: Any) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for child in node.children:
        kind = child.type
        if kind == "assignment_expression":
            parts = child.children
            _add(arguments, _cut(source, parts[0]), _java_value(source, parts[2], nested=False))
        elif kind in ("identifier", "class_literal"):
            _add(arguments, UNNAMED, _java_value(source, child, nested=False))
    return arguments


def _java_value(source: str, node: Any, nested: bool = True) -> str:
    kind = node.type
    if kind in _QUOTED:
        return _cut(source, node) if nested else _cut(source, node)[1:-1]
    if kind in _WORDS:
        return _cut(source, node)
    if kind == "array_creation_expression":
        value = node.child_by_field_name("value")
        if value is None:
            raise DecodeError("an array is made without its elements")
        return f"new {_java_value(source, node.child_by_field_name('type'))}[]{_java_value(source, value)}"
    if kind == "object_creation_expression":
        made = _java_value(source, node.child_by_field_name("type"))
        given = node.child_by_field_name("arguments")
        inside = [] if given is None else [child for child in given.children if child.type not in (",", "(", ")")]
        return f"new {made}({', '.join([_java_value(source, child) for child in inside])})"
    children = node.children
    return "".join([_java_value(source, child) for child in children]) if children else _cut(source, node)


def decode_javascript(text: str) -> list[Call]:
    """Read the first call of a JavaScript text `[name(parameter=value, ...)]`.

    Raises:
        DecodeError: the text is something else, or an argument is given twice.
        ImportError: the extra `functions` is not installed.
    """
    source = _source(text, "javascript")
    plain = read_quickly(source, "javascript")
    if plain is not None:
        return [_plain_call(plain)]
    root = _tree(source, "javascript")
    for statement in root.children:
        if statement.type != "expression_statement":
            continue
        for node in statement.children:
            if node.type == "call_expression":
                parts = node.children
                return [Call(_text(parts[0]), _javascript_arguments(parts[1]))]
    raise DecodeError("the text holds no call")


def _text(node: Any) -> str:
    return str(node.text.decode("utf-8", "replace"))


def _javascript_arguments(node: Any) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for child in node.children:
        if child.type == "assignment_expression":
            parts = child.children
            value = _text(parts[2])
            is_quoted = (value[:1] == '"' and value[-1:] == '"') or (value[:1] == "'" and value[-1:] == "'")
            _add(arguments, _text(parts[0]), value[1:-1] if is_quoted else value)
        elif child.type in ("identifier", "true"):
            _add(arguments, UNNAMED, _text(child))
    return arguments
