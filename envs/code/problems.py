"""What a programming problem is, and which outcomes of a program are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from polyathlon.envs.errors import UsageError, unknown_name

from . import plain
from .running import LONGEST_INPUT, LONGEST_OUTPUT, RunResult

# comparison -> does a value that was read satisfy it; both sides plain data
Comparison = Callable[[Any, Any, float], bool]
_ROOM = 4096


@dataclass(frozen=True)
class Test:
    """One input and what is right for it.

    Attributes:
        inputs: arguments of the function, or the text on standard input.
        expected: the right value, or the right text on standard output.
        compare: "equal" (exact types), "number" (2 is 2.0), "python" (as Python's `==`: 1 is True and 1.0), "close" (numbers within the tolerance), "truth" (as true or
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
        as_base: values of subclasses of plain types count as those types: a Counter is a dict.

    Raises:
        UsageError: something is missing, or what goes in or what is right is more than a sandbox passes on.
    """

    name: str
    prompt: str
    entry: str
    tests: tuple[Test, ...]
    kind: str = "call"
    solution: str | None = None
    level: int = 1
    is_completion: bool = False
    as_base: bool = False
    units: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not self.tests:
            raise UsageError(f"the problem {self.name!r} has no tests")
        if self.kind not in ("call", "stdio"):
            raise unknown_name("kind of problem", self.kind, ("call", "stdio"))
        if self.kind == "call" and not self.entry.isidentifier():
            raise UsageError(f"the problem {self.name!r} needs the name of a function, got {self.entry!r}")
        for i, test in enumerate(self.tests, 1):
            _check_size(test, self.kind, f"test {i} of the problem {self.name!r}")
        object.__setattr__(self, "units", len({self.unit_of(i) for i in range(len(self.tests))}))

    def unit_of(self, i: int) -> int:
        """Return the unit of test i; a test of no unit is one by itself."""
        return self.tests[i].unit if self.tests[i].unit >= 0 else -1 - i

    def fraction(self, passed: list[bool]) -> float:
        """Return the part of the units of which every test passed."""
        failed = {self.unit_of(i) for i, is_passed in enumerate(passed) if not is_passed}
        return (self.units - len(failed)) / self.units


def _check_size(test: Test, kind: str, what: str) -> None:
    """Refuse a test that no program could pass, since what is right does not come through.

    Raises:
        UsageError: it is too long, nests too deep, or is no plain data.
    """
    if kind == "stdio":
        size = len(str(test.expected).encode("utf-8", "surrogatepass"))
        if size > LONGEST_OUTPUT:
            raise UsageError(
                f"{what} expects {size} bytes of output; of a program's, {LONGEST_OUTPUT} are kept: use a smaller test"
            )
        return
    for part, value, most in (("expects", test.expected, plain.MAX_SIZE), ("takes", test.inputs, LONGEST_INPUT)):
        try:
            plain.decode(plain.encode(value, most))
        except plain.NotPlainError as error:
            raise UsageError(f"{what} {part} what does not pass into or out of a sandbox: {error}") from error


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
    if tolerance:
        # in order: the first one within reach may be another one's only partner
        given, right = ([x for x in part if type(x) is float and math.isfinite(x)] for part in (found, expected))
        if len(given) != len(right) or not all(map(plain.same, sorted(given), sorted(right), [tolerance] * len(right))):
            return False
        found, expected = (
            [x for x in part if type(x) is not float or not math.isfinite(x)] for part in (found, expected)
        )
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
    "python": lambda found, expected, tolerance: plain.same_in_python(found, expected),
    "number": lambda found, expected, tolerance: plain.same(found, expected, tolerance, exact_types=False),
    "close": lambda found, expected, tolerance: plain.same(found, expected, tolerance, exact_types=False),
    "truth": _truth,
    "members": _members,
    "lines": _lines,
    "root": _root,
}
