"""Problems that read standard input and write standard output."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from polyathlon.envs.code.problems import Problem, Test

from .making import HIDDEN, numbers, plain_source, text, words

PROBLEMS: list[Problem] = []


def program(
    level: int, examples: Sequence[tuple[str, str]], draw: Callable[[random.Random], str]
) -> Callable[..., None]:
    """Make a problem of the function below, which turns the text of the input into that of the output.

    Args:
        level: difficulty.
        examples: inputs and outputs, by hand; shown.
        draw: draws an input.
    """

    def make(function: Callable[[str], str]) -> None:
        name = function.__name__
        source = f"import sys\n\n{plain_source(function)}\nprint({name}(sys.stdin.read()))\n"
        rng = random.Random(name)
        shown = [Test(given, wanted, "lines", visible=True) for given, wanted in examples]
        drawn = [draw(rng) for _ in range(HIDDEN)]
        hidden = [Test(given, function(given), "lines") for given in drawn]
        question = " ".join((function.__doc__ or "").split())
        PROBLEMS.append(Problem(name, question, "", (*shown, *hidden), "stdio", source, level))

    return make


@program(1, [("3 4\n", "7\n"), ("-1 1\n", "0\n")], lambda r: f"{r.randint(-99, 99)} {r.randint(-99, 99)}\n")
def add_line(given: str) -> str:
    """Read two whole numbers on one line and print their sum."""
    a, b = map(int, given.split())
    return str(a + b)


@program(
    2,
    [("3\n5\n1\n4\n", "1\n4\n5\n")],
    lambda r: "\n".join(map(str, (lambda v: [len(v), *v])(numbers(r, least=1)))) + "\n",
)
def sort_lines(given: str) -> str:
    """Read how many numbers follow, then so many numbers, one a line. Print them in ascending order, one a line."""
    values = list(map(int, given.split()))[1:]
    return "\n".join(map(str, sorted(values)))


@program(2, [("b a b\n", "a 1\nb 2\n")], lambda r: " ".join(words(r, least=1)) + "\n")
def word_table(given: str) -> str:
    """Read words on one line. Print each different word and how often it occurs, one a line, in alphabetical order."""
    found = given.split()
    return "\n".join(f"{word} {found.count(word)}" for word in sorted(set(found)))


@program(
    3,
    [("3 3\n..#\n.#.\n...\n", "7\n")],
    lambda r: (lambda h, w: f"{h} {w}\n" + "".join(text(r, "..#", w, w) + "\n" for _ in range(h)))(
        r.randint(1, 5), r.randint(1, 5)
    ),
)
def open_squares(given: str) -> str:
    """Read height and width of a map, then its rows of . (open) and # (wall). Print how many squares are open."""
    return str("".join(given.split("\n")[1:]).count("."))
