"""What an answer that fails is told: bounded, without hidden tests, and with nothing that could pass for another line."""

from __future__ import annotations

from typing import Any

from . import plain
from .problems import Problem
from .running import RunResult

LEVELS = ("none", "status", "first_fail")
LONGEST = 500
_SHOWN = 120


def harmless(text: str, longest: int) -> str:
    """Return a text on one line: what is no printable character as an escape, cut after `longest` characters."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text[:longest]
    )
    return shown[:longest] + ("..." if len(text) > longest or len(shown) > longest else "")


def call_of(problem: Problem, inputs: Any) -> str:
    """Return a test's input as it is shown: a call, or the text on standard input."""
    if problem.kind == "stdio":
        return f"input {inputs!r}"
    return f"{problem.entry}({', '.join(map(repr, inputs))})"


def feedback(problem: Problem, passed: list[bool], outcomes: list[RunResult], level: str) -> str:
    """Say what failed.

    Args:
        problem: the problem.
        passed: for each test whether it passed.
        outcomes: for each test what came out.
        level: "none", "status" (how many tests passed) or "first_fail" (also the first shown test that failed).

    Returns:
        At most `LONGEST` characters.
    """
    if level == "none":
        return "Not all tests passed."
    said = [f"{sum(passed)} of {len(passed)} tests passed."]
    if level == "first_fail":
        said.append(_first(problem, passed, outcomes))
    return " ".join(said)[:LONGEST]


def _first(problem: Problem, passed: list[bool], outcomes: list[RunResult]) -> str:
    if all(outcome.status == "error" and outcome.error == outcomes[0].error for outcome in outcomes):
        return harmless(outcomes[0].error, _SHOWN) + "."
    for test, is_passed, outcome in zip(problem.tests, passed, outcomes):
        if test.visible and not is_passed:
            wanted = harmless(repr(test.expected), _SHOWN)
            return f"{harmless(call_of(problem, test.inputs), _SHOWN)}: expected {wanted}, got {_got(outcome)}."
    return "A hidden test failed."


def _got(outcome: RunResult) -> str:
    if outcome.status != "ok":
        return harmless(f"{outcome.status}: {outcome.error}" if outcome.error else outcome.status, _SHOWN)
    if len(outcome.data) > 8 * _SHOWN:
        return "a long value"
    try:
        return harmless(repr(outcome.value), _SHOWN)
    except (plain.NotPlainError, RecursionError, ValueError):
        return "a value that cannot be read"
