"""What a programming problem is, and what of an answer is the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from polyathlon.envs.errors import UsageError, unknown_name

from . import plain
from .running import RunResult

# comparison -> does a value that was read satisfy it; both sides plain data
Comparison = Callable[[Any, Any, float], bool]
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
_PYTHON = {"python", "py", "python3"}
_ROOM = 4096


@dataclass(frozen=True)
class Test:
    """One input and what is right for it.

    Attributes:
        inputs: arguments of the function, or the text on standard input.
        expected: the right value, or the right text on standard output.
        compare: "equal" (exact types), "number" (2 is 2.0), "close" (numbers within the tolerance), "truth" (as true or
            false as expected), "members" (the same members in any order), "lines" (texts: line by line, blanks at the
            ends of lines and empty lines at the end do not count, numbers within the tolerance), "root" (a zero of
            the polynomial whose coefficients are expected).
        tolerance: how far numbers may differ, absolutely or relatively.
        visible: shown in the question and in feedback.
        unit: tests of one unit are paid together.
    """

    __test__: ClassVar[bool] = False  # no test of pytest's

    inputs: Any
    expected: Any
    compare: str = "equal"
    tolerance: float = 0.0
    visible: bool = False
    unit: int = -1

    def __post_init__(self) -> None:
        if self.compare not in COMPARISONS:
            raise unknown_name("comparison", self.compare, COMPARISONS)


@dataclass(frozen=True)
class Problem:
    """A programming problem.

    Attributes:
        name: its id.
        prompt: the question in words; for a completion, the beginning of the program.
        entry: name of the function asked for; empty for kind "stdio".
        tests: what an answer must do.
        kind: "call" or "stdio".
        solution: a right program, or None.
        level: difficulty, from 1.
        is_completion: the prompt is the beginning of the program, and an answer goes on from there.
    """

    name: str
    prompt: str
    entry: str
    tests: tuple[Test, ...]
    kind: str = "call"
    solution: str | None = None
    level: int = 1
    is_completion: bool = False
    units: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.tests:
            raise UsageError(f"the problem {self.name!r} has no tests")
        if self.kind not in ("call", "stdio"):
            raise unknown_name("kind of problem", self.kind, ("call", "stdio"))
        if self.kind == "call" and not self.entry.isidentifier():
            raise UsageError(f"the problem {self.name!r} needs the name of a function, got {self.entry!r}")
        object.__setattr__(self, "units", len({self.unit_of(i) for i in range(len(self.tests))}))

    def unit_of(self, i: int) -> int:
        """Return the unit of test i; a test of no unit is one by itself."""
        return self.tests[i].unit if self.tests[i].unit >= 0 else -1 - i

    def fraction(self, passed: list[bool]) -> float:
        """Return the part of the units of which every test passed."""
        failed = {self.unit_of(i) for i, is_passed in enumerate(passed) if not is_passed}
        return (self.units - len(failed)) / self.units


def passes(test: Test, outcome: RunResult) -> bool:
    """Return whether an outcome is right; never raises, whatever the bytes."""
    if outcome.status != "ok":
        return False
    try:
        gold = plain.encode(test.expected, 1 << 26)
        if test.compare == "equal" and outcome.data == gold:
            return True
        if len(outcome.data) > 8 * len(gold) + _ROOM:
            return False
        return COMPARISONS[test.compare](plain.decode(outcome.data), test.expected, test.tolerance)
    except (plain.NotPlainError, OverflowError, RecursionError):
        return False


def _truth(found: Any, expected: Any, tolerance: float) -> bool:
    return type(found) in (bool, int, float, str, type(None)) and bool(found) == bool(expected)


def _members(found: Any, expected: Any, tolerance: float) -> bool:
    if type(found) not in (list, tuple) or len(found) != len(expected):
        return False
    left = list(expected)
    for item in found:
        match = next((i for i, other in enumerate(left) if plain.same(item, other, tolerance)), None)
        if match is None:
            return False
        del left[match]
    return True


def _lines(found: Any, expected: Any, tolerance: float) -> bool:
    if type(found) is not str:
        return False
    left, right = (text.rstrip().split("\n") for text in (found, expected))
    return len(left) == len(right) and all(_same_line(a, b, tolerance) for a, b in zip(left, right))


def _same_line(found: str, expected: str, tolerance: float) -> bool:
    if found.rstrip() == expected.rstrip():
        return True
    words, right = found.split(), expected.split()
    if not tolerance or len(words) != len(right):
        return False
    return all(a == b or _same_number(a, b, tolerance) for a, b in zip(words, right))


def _same_number(found: str, expected: str, tolerance: float) -> bool:
    if len(found) > 64 or "_" in found:
        return False
    try:
        return plain.same(float(found), float(expected), tolerance)
    except ValueError:
        return False


def _root(found: Any, expected: Any, tolerance: float) -> bool:
    if type(found) not in (int, float):
        return False
    value = sum(c * float(found) ** i for i, c in enumerate(expected))
    return abs(value) < tolerance


COMPARISONS: dict[str, Comparison] = {
    "equal": plain.same,
    "number": lambda found, expected, tolerance: plain.same(found, expected, tolerance, exact_types=False),
    "close": lambda found, expected, tolerance: plain.same(found, expected, tolerance, exact_types=False),
    "truth": _truth,
    "members": _members,
    "lines": _lines,
    "root": _root,
}


def extract(text: str) -> str:
    """Return the program in an answer: the last fenced block in Python, else the last fenced block, else the text.

    A fence that is never closed goes to the end of the text. Never raises.
    """
    blocks: list[tuple[str, str]] = []
    opened: tuple[str, str, int] | None = None
    for found in _FENCE.finditer(text):
        fence, language = found.group(1), found.group(2).lower()
        if opened is None:
            opened = (fence, language, found.end() + 1)
        elif not language and fence[0] == opened[0][0] and len(fence) >= len(opened[0]):
            blocks.append((opened[1], text[opened[2] : found.start()]))
            opened = None
    if opened is not None:
        blocks.append((opened[1], text[opened[2] :]))
    if not blocks:
        return text
    python = [block for language, block in blocks if language in _PYTHON]
    return python[-1] if python else blocks[-1][1]


def program_of(problem: Problem, text: str) -> str:
    """Return the program that an answer to a problem stands for; never raises.

    Where the prompt is the beginning of the program, an answer that defines the function by itself is a program, with
    what the prompt has above the function before it; any other goes on where the prompt stops.
    """
    program = extract(text)
    if not problem.is_completion:
        return program
    if re.search(rf"^(async[ \t]+)?def[ \t]+{problem.entry}\b", program, re.MULTILINE) and _is_program(program):
        return preamble(problem) + "\n" + program
    return problem.prompt + program


def _is_program(text: str) -> bool:
    try:
        compile(text, "<answer>", "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def preamble(problem: Problem) -> str:
    """Return what stands in a prompt above the function asked for: imports and helpers."""
    lines = problem.prompt.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if re.match(rf"(async[ \t]+)?def[ \t]+{problem.entry}\b", line)]
    return "".join(lines[: starts[-1]]) if starts else ""
