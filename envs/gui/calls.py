"""Actions on a page in words: one call, read and never run."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from typing import Any

from polyathlon.envs.errors import nearest

REF, TEXT, NUMBER = "ref", "text", "number"
# name -> the kinds of its arguments
CALLS: dict[str, tuple[str, ...]] = {
    "click": (REF,),
    "dblclick": (REF,),
    "hover": (REF,),
    "focus": (REF,),
    "fill": (REF, TEXT),
    "select": (REF, TEXT),
    "press": (TEXT,),
    "type": (TEXT,),
    "click_at": (NUMBER, NUMBER),
    "drag": (NUMBER, NUMBER, NUMBER, NUMBER),
    "scroll": (NUMBER, NUMBER),
    "goto": (TEXT,),
    "tab": (NUMBER,),
    "noop": (),
}
LONGEST_TEXT = 1000
LARGEST = 100_000


class CallError(ValueError):
    """A text that is no call of the page; its message says why."""


@dataclass(frozen=True)
class Call:
    """A call.

    Attributes:
        name: one of `CALLS`.
        arguments: numbers and texts.
    """

    name: str
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(quoted_text(x) if isinstance(x, str) else str(x) for x in self.arguments)})"


def quoted_text(text: str) -> str:
    """Return a text in quotation marks, as a call holds it."""
    kept = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{kept}"'


def signature(name: str) -> str:
    """Return how a call is written, such as fill(ref, text)."""
    return f"{name}({', '.join(CALLS[name])})"


def read_call(text: str) -> Call:
    """Read one call, such as `fill(7, "abc")`; surrounding white space and a code fence do not count.

    Args:
        text: the answer.

    Raises:
        CallError: it is no call, has arguments that are no literals, or their number or kinds are wrong.
    """
    given = _without_fence(text)
    if len(given) > 4 * LONGEST_TEXT:
        raise CallError(f"an action is one short call, the answer has {len(given)} characters")
    try:
        tree = ast.parse(given, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CallError('an action is one call, such as click(3) or fill(7, "abc")') from error
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise CallError('an action is one call of a plain name, such as click(3) or fill(7, "abc")')
    name = tree.func.id
    if name not in CALLS:
        close = nearest(name, CALLS)
        raise CallError(f"there is no action {name!r}" + (f"; did you mean {signature(close)}?" if close else ""))
    if tree.keywords or any(isinstance(argument, ast.Starred) for argument in tree.args):
        raise CallError(f"arguments are given by their places: {signature(name)}")
    if len(tree.args) != len(CALLS[name]):
        raise CallError(f"{signature(name)} takes {len(CALLS[name])} arguments, got {len(tree.args)}")
    return Call(name, tuple(_literal(node, kind, name) for node, kind in zip(tree.args, CALLS[name])))


def _without_fence(text: str) -> str:
    given = text.strip()
    if given.startswith("```") and given.endswith("```") and len(given) > 6:
        given = given[3:-3].removeprefix("python").strip()
    return given.removeprefix("action:").strip()


def _literal(node: ast.expr, kind: str, name: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise CallError(f"arguments are numbers and texts written out: {signature(name)}") from error
    if kind == TEXT:
        if not isinstance(value, str):
            raise CallError(f"{signature(name)} takes a text in quotation marks there, got {value!r:.40}")
        return _checked_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or (kind == REF and not isinstance(value, int)):
        what = "the whole number of an element" if kind == REF else "a number"
        raise CallError(f"{signature(name)} takes {what} there, got {value!r:.40}")
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise CallError(f"numbers are at most {LARGEST} in size, got {str(value)[:40]}")
    return value


def _checked_text(value: str) -> str:
    if len(value) > LONGEST_TEXT:
        raise CallError(f"a text has at most {LONGEST_TEXT} characters, got {len(value)}")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise CallError("a text holds a lone surrogate, which is no character")
    if any((c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" for c in value):
        raise CallError("a text holds a control character")
    return value


def listed_element(ref: int, tag: str, text: str, value: str = "", checked: bool | None = None, more: str = "") -> str:
    """Write an element of a page in a line: `[ref] tag "text" value "..."`."""
    line = f"[{ref}] {tag}"
    if text:
        line += f" {quoted_text(text)}"
    if value:
        line += f" value {quoted_text(value)}"
    if checked is not None:
        line += " (checked)" if checked else " (not checked)"
    return line + more
