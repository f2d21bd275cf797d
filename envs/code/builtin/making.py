"""How a problem is written down: a right function, a few examples by hand, and a way to draw inputs.

The docstring is the question. Examples are shown; the hidden tests are edge cases and drawn inputs, whose right values
the function gives. What is drawn depends on the problem's name alone.
"""

from __future__ import annotations

import ast
import inspect
import random
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from polyathlon.envs.code.problems import Problem, Test

Draw = Callable[[random.Random], tuple[Any, ...]]
HIDDEN = 10
_TOLERANCE = 1e-6


class Book:
    """Collects the problems of one level.

    Args:
        level: difficulty.
    """

    def __init__(self, level: int) -> None:
        self.level = level
        self.problems: list[Problem] = []

    def problem(
        self,
        examples: Sequence[tuple[tuple[Any, ...], Any]],
        draw: Draw,
        edges: Sequence[tuple[Any, ...]] = (),
        compare: str = "equal",
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make a problem of the function below.

        Args:
            examples: arguments and right values, worked out by hand; shown.
            draw: draws arguments.
            edges: further arguments, hidden.
            compare: how values are compared.
        """

        def make(function: Callable[..., Any]) -> Callable[..., Any]:
            source = plain_source(function)
            question = question_of(function)
            self.problems.append(
                make_problem(function.__name__, question, source, function, examples, draw, edges, self.level, compare)
            )
            return function

        return make


def plain_source(function: Callable[..., Any]) -> str:
    """Return the source of a function without decorators and docstring."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    tree.body = tree.body[1:]
    return ast.unparse(tree) + "\n"


def question_of(function: Callable[..., Any]) -> str:
    """Return the head of a function with its docstring, as it is shown."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    head = f"def {function.__name__}({ast.unparse(tree.args)}) -> {ast.unparse(tree.returns or ast.Name('object'))}:"
    return head + '\n    """' + textwrap.indent(inspect.getdoc(function) or "", "    ").strip() + '"""'


def make_problem(
    name: str,
    question: str,
    source: str,
    function: Callable[..., Any],
    examples: Sequence[tuple[tuple[Any, ...], Any]],
    draw: Draw,
    edges: Sequence[tuple[Any, ...]] = (),
    level: int = 1,
    compare: str = "equal",
    entry: str | None = None,
) -> Problem:
    """Make a problem with visible and hidden tests.

    Args:
        name: its id.
        question: head of the function with its docstring.
        source: a right program.
        function: the same as a function.
        examples: arguments and right values that are shown.
        draw: draws arguments.
        edges: further hidden arguments.
        level: difficulty.
        compare: how values are compared.
        entry: name of the function asked for; None: the problem's name.
    """
    tolerance = _TOLERANCE if compare == "close" else 0.0
    shown = [Test(list(arguments), value, compare, tolerance, visible=True) for arguments, value in examples]
    rng = random.Random(name)
    hidden = [*edges, *(draw(rng) for _ in range(HIDDEN))]
    tests = [Test(list(a), function(*_copied(a)), compare, tolerance) for a in hidden]
    return Problem(name, question, entry or name, (*shown, *tests), solution=source, level=level)


def _copied(arguments: Any) -> Any:
    if isinstance(arguments, list | tuple):
        return type(arguments)(_copied(item) for item in arguments)
    return dict(arguments) if isinstance(arguments, dict) else arguments


def numbers(rng: random.Random, low: int = -20, high: int = 20, least: int = 0, most: int = 10) -> list[int]:
    """Draw a list of integers."""
    return [rng.randint(low, high) for _ in range(rng.randint(least, most))]


def text(rng: random.Random, alphabet: str = "abcde ", least: int = 0, most: int = 16) -> str:
    """Draw a text."""
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(least, most)))


def words(rng: random.Random, alphabet: str = "abc", least: int = 0, most: int = 8) -> list[str]:
    """Draw a list of words."""
    return [text(rng, alphabet, 1, 4) for _ in range(rng.randint(least, most))]


def grid(rng: random.Random, values: Sequence[int] = (0, 1), most: int = 5) -> list[list[int]]:
    """Draw a rectangle of numbers."""
    rows, columns = rng.randint(1, most), rng.randint(1, most)
    return [[rng.choice(values) for _ in range(columns)] for _ in range(rows)]


def graph(rng: random.Random, nodes: int = 7, part: float = 0.25) -> dict[str, list[str]]:
    """Draw a directed graph: a node -> the nodes that its edges lead to."""
    names = "abcdefgh"[: rng.randint(1, nodes)]
    return {a: [b for b in names if b != a and rng.random() < part] for a in names}
