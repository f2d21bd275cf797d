"""Python text into calls: parsed, never evaluated.

The rules are those of the Berkeley Function Calling Leaderboard (Patil et al. 2025), with one exception: it evaluates
binary operations with `eval`, here they are computed only between numbers and only while the result stays small.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from typing import Any

from .calls import MAX_DEPTH, Call, DecodeError, check_depth
from .quick_calls import read_quickly

MAX_TEXT = 1 << 17
MAX_CALLS = 128
# characters outside of plain strings that are compiled, at 2 microseconds each; long answers are long texts
MAX_CODE = 1 << 13
MAX_BITS = 4096
# a string and its prefix, as Python's tokenizer finds them where there are no triple quotes and no comments
_STRING = re.compile(r"(?<!\w)(\w*+)(?:'(?:[^'\\\n]|\\[\s\S])*+'?|\"(?:[^\"\\\n]|\\[\s\S])*+\"?)")
_HARD_TO_TELL = ("#", "'''", '"""', "\r")
# what Python warns about while it reads a text: unknown escapes, and numbers that run into words
_MAY_WARN = re.compile(r"\\|\d[A-Za-z_]")
_FAILURES = (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError)
_EVALUATE_ONLY = ast.PyCF_ONLY_AST


def decode_python(text: str) -> list[Call]:
    """Read the calls of a Python text `[name(parameter=value, ...), ...]`.

    Backticks, blanks and line ends around it are removed and missing outer brackets added. Positional arguments are
    dropped. Values: constants; lists, tuples and dicts of values; any unary operator is a minus; a name is its own text;
    a call without keywords and a subscript are their source text; a call with keywords is {name: {parameter: value}}.

    Raises:
        DecodeError: the text is something else, longer than `MAX_TEXT`, nested deeper than `MAX_DEPTH`, or has more than
            `MAX_CALLS` calls.
    """
    if len(text) > MAX_TEXT:
        raise DecodeError(f"the text has {len(text)} characters; at most {MAX_TEXT} are read as calls")
    text = text.strip("`\n ")
    if not text.startswith("["):
        text = "[" + text
    if not text.endswith("]"):
        text += "]"
    text = text.strip().strip("'")
    quick = read_quickly(text, MAX_CALLS)
    if quick is not None:
        return quick
    try:
        body = _parse(text)
        if type(body) is ast.Call:
            return [_call(body)]
        elements = getattr(body, "elts", None)
        if elements is None:
            raise DecodeError("the text is no call and no list of calls")
        if len(elements) > MAX_CALLS:
            raise DecodeError(f"the text has {len(elements)} calls; at most {MAX_CALLS} are read")
        for element in elements:
            if type(element) is not ast.Call:
                raise DecodeError("an element of the list is no call")
        return [_call(element) for element in elements]
    except DecodeError:
        raise
    except _FAILURES as error:
        raise DecodeError(f"the text cannot be read as Python: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = str(getattr(error, "msg", None) or error).splitlines()
    return f"{lines[0][:100]}" if lines else type(error).__name__


def _parse(text: str) -> ast.expr:
    check_depth(text)
    if len(text) > MAX_CODE and _code_size(text) > MAX_CODE:
        raise DecodeError(
            f"the text has more than {MAX_CODE} characters outside of strings; that many are read as calls"
        )
    if _MAY_WARN.search(text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(text, "<calls>", "eval", _EVALUATE_ONLY).body
    return compile(text, "<calls>", "eval", _EVALUATE_ONLY).body


def _code_size(text: str) -> int:
    """Return how many characters there are outside of plain strings; where strings are hard to tell, all of them."""
    size = len(text)
    if any(sign in text for sign in _HARD_TO_TELL):
        return size
    for count, found in enumerate(_STRING.finditer(text)):
        prefix = found[1].lower()
        if "f" in prefix and len(prefix) < 3:  # it holds code
            return len(text)
        size -= 0 if prefix else len(found[0]) - 2
        if 2 * count > MAX_CODE:
            break
    return size


def _call(node: ast.Call) -> Call:
    parts = []
    function = node.func
    while type(function) is ast.Attribute:
        parts.append(function.attr)
        function = function.value
    if type(function) is ast.Name:
        parts.append(function.id)
    arguments = {}
    for keyword in node.keywords:
        value = keyword.value
        # constants are most of what is written
        known = value.value if type(value) is ast.Constant else _READERS[type(value)](value)
        arguments[keyword.arg or "**"] = "..." if known is ... else known
    return Call(".".join(reversed(parts)) if len(parts) != 1 else parts[0], arguments)


def _value(node: Any) -> Any:
    return _READERS[type(node)](node)


def _constant(node: ast.Constant) -> Any:
    return "..." if node.value is ... else node.value


def _negative(node: ast.UnaryOp) -> Any:
    operand = node.operand
    if type(operand) is not ast.Constant or not isinstance(operand.value, int | float | complex):
        raise DecodeError("a sign stands before something that is no number")
    return -operand.value


def _list(node: ast.List) -> list[Any]:
    return [_READERS[type(element)](element) for element in node.elts]


def _tuple(node: ast.Tuple) -> tuple[Any, ...]:
    return tuple([_READERS[type(element)](element) for element in node.elts])


def _dict(node: ast.Dict) -> dict[Any, Any]:
    return {_READERS[type(k)](k): _READERS[type(v)](v) for k, v in zip(node.keys, node.values)}


def _name(node: ast.Name) -> str:
    return node.id


def _nested_call(node: ast.Call) -> Any:
    if not node.keywords:
        return ast.unparse(node)
    call = _call(node)
    return {call.name: call.arguments}


def _subscript(node: ast.Subscript) -> str:
    return ast.unparse(node.value) + "[" + ast.unparse(node.slice) + "]"


def _operation(node: ast.BinOp) -> Any:
    return _arithmetic(node, MAX_DEPTH)


def _arithmetic(node: ast.expr, depth: int) -> Any:
    """Compute + - * / ** of numbers, unless the result would be large.

    Raises:
        DecodeError: something else is computed, or the result would be large.
    """
    if depth < 0:
        raise DecodeError(f"operations are nested deeper than {MAX_DEPTH}")
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_arithmetic(operand, depth - 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return +_arithmetic(operand, depth - 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_arithmetic(left, depth - 1), _arithmetic(right, depth - 1))
    raise DecodeError("only + - * / ** of numbers are computed")


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 64


def _product(a: Any, b: Any) -> Any:
    if _bits(a) + _bits(b) > MAX_BITS:
        raise DecodeError(f"a product has more than {MAX_BITS} bits")
    return a * b


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 0 and _bits(a) * b > MAX_BITS:
        raise DecodeError(f"a power has more than {MAX_BITS} bits")
    return a**b


_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: _product,
    ast.Div: lambda a, b: a / b,
    ast.Pow: _power,
}


class _Readers(dict[type, Callable[[Any], Any]]):
    """What reads each kind of expression; any other kind is refused."""

    def __missing__(self, kind: type) -> Any:
        raise DecodeError(f"a value may not be written as {kind.__name__}")


_READERS = _Readers(
    {
        ast.Constant: _constant,
        ast.UnaryOp: _negative,
        ast.List: _list,
        ast.Tuple: _tuple,
        ast.Dict: _dict,
        ast.Name: _name,
        ast.Call: _nested_call,
        ast.Subscript: _subscript,
        ast.BinOp: _operation,
    }
)
