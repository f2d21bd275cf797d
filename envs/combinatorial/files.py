"""Instances of TSPLIB and CVRPLIB: files of TSP, ATSP, CVRP and OP, with the distances that the libraries define.

Reinelt, "TSPLIB 95", 1995. Distances are rounded as the file's EDGE_WEIGHT_TYPE says, so that costs can be compared with
the published optima. Every complaint names the line.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyathlon.envs.errors import UsageError, require, unknown_name

from .weights import ROUNDINGS, UNROUNDED, WEIGHTS, check_memory, distances_between

PROBLEMS = {"TSP": "tsp", "ATSP": "atsp", "CVRP": "cvrp", "VRP": "cvrp", "OP": "op"}
_MOST_NODES = 100_000
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # bytes of no text
# what a file may say in every problem, and what has a meaning in one
_EVERYWHERE = (
    *("NAME", "COMMENT", "TYPE", "DIMENSION", "EDGE_WEIGHT_TYPE", "EDGE_WEIGHT_FORMAT", "NODE_COORD_TYPE"),
    *("DISPLAY_DATA_TYPE", "NODE_COORD_SECTION", "DISPLAY_DATA_SECTION", "EDGE_WEIGHT_SECTION"),
)
_MEANT = {
    "tsp": (),
    "atsp": (),
    "cvrp": ("CAPACITY", "DEMAND_SECTION", "DEPOT_SECTION"),
    "op": ("COST_LIMIT", "NODE_SCORE_SECTION", "DEPOT_SECTION"),
}
# what other problems ask for
_NOT_HONOURED = {
    "DISTANCE": "limits the length of each route",
    "SERVICE_TIME": "adds a time at each customer to the length of a route",
    "VEHICLES": "limits the number of routes",
    "CAPACITY": "limits the load of each route",
    "TIME_WINDOW_SECTION": "says when each customer is served",
    "SERVICE_TIME_SECTION": "says how long each customer is served",
    "FIXED_EDGES_SECTION": "fixes edges that every tour must have",
    "DEMAND_SECTION": "gives demands",
    "BACKHAUL_SECTION": "names customers that are served last",
    "PICKUP_AND_DELIVERY_SECTION": "pairs what is fetched with what is brought",
    "LINEHAUL_CAPACITY": "limits the load of each route",
}


class FileInstance(NamedTuple):
    """An instance read from a file.

    Attributes:
        name: its name.
        problem: "tsp", "atsp", "cvrp" or "op".
        instance: for solvers and costs, with the library's "distances" [N, N] float64 (see `solutions`).
        given: for `reset(options={"instance": ...})` of the task: coordinates where the file has them.
        comment: what the file says about itself.
    """

    name: str
    problem: str
    instance: dict[str, Any]
    given: dict[str, Any]
    comment: str


class _Text(NamedTuple):
    """The parts of a file, with the number of the line each came from."""

    path: str
    values: dict[str, tuple[int, str]]
    sections: dict[str, list[tuple[int, list[str]]]]
    starts: dict[str, int]

    def error(self, line: int, message: str) -> UsageError:
        return UsageError(f"{self.path}, line {line}: {message}")


def _split(path: str, text: str) -> _Text:
    """Cut a file into its specifications and sections."""
    found = _Text(path, {}, {}, {})
    section = ""
    for line, raw in enumerate(text.splitlines(), start=1):
        words = raw.strip()
        if not words or words.upper() == "EOF":
            section = "" if words else section
            continue
        key, colon, value = (part.strip() for part in words.partition(":"))
        key = key.upper().replace(" ", "_")
        if key.endswith("_SECTION"):
            if key in found.starts:
                raise found.error(line, f"{key} stands here a second time; first in line {found.starts[key]}")
            section = key
            found.sections[key], found.starts[key] = [], line
        elif colon and not key[:1].isdigit() and key[:1] != "-":
            if key == "COMMENT" and key in found.values:
                first, said = found.values[key]
                found.values[key] = (first, f"{said}\n{value}")
                continue
            if key in found.values:
                raise found.error(line, f"{key} stands here a second time; first in line {found.values[key][0]}")
            section, found.values[key] = "", (line, value)
        elif section:
            found.sections[section].append((line, words.split()))
        else:
            raise found.error(line, f"neither KEY : VALUE nor a row of a section: {words[:60]!r}")
    return found


def _required(text: _Text, key: str) -> tuple[int, str]:
    if key not in text.values:
        raise UsageError(f"{text.path}: the line {key} : ... is missing; is this a TSPLIB or CVRPLIB file?")
    return text.values[key]


def _number(text: _Text, line: int, word: str, what: str) -> float:
    try:
        number = float("" if "_" in word else word)  # which Python takes for 10 in "1_0"
    except ValueError:
        raise text.error(line, f"{what} must be a number, got {word[:40]!r}") from None
    if not math.isfinite(number):
        raise text.error(line, f"{what} must be finite, got {word!r}")
    return number


def _specified(text: _Text, key: str, what: str) -> float:
    line, value = _required(text, key)
    return _number(text, line, value, what)


def _table(text: _Text, section: str, count: int, width: int, what: str) -> np.ndarray:
    """Read a section with a row for each node: its number and `width` values; return [count, width]."""
    if section not in text.sections:
        raise UsageError(f"{text.path}: the section {section} is missing")
    table = np.full((count, width), np.nan)
    for line, words in text.sections[section]:
        if len(words) != width + 1:
            raise text.error(line, f"a row of {section} is a node and {width} {what}, got {' '.join(words)[:60]!r}")
        node = _number(text, line, words[0], "the number of a node")
        if node != int(node) or not 1 <= node <= count:
            raise text.error(line, f"nodes are numbers from 1 to {count} (DIMENSION), got {words[0]}")
        if not np.isnan(table[int(node) - 1]).any():
            raise text.error(line, f"node {int(node)} stands in {section} a second time")
        table[int(node) - 1] = [_number(text, line, word, what) for word in words[1:]]
    missing = np.flatnonzero(np.isnan(table).any(axis=1))
    if len(missing):
        raise text.error(
            text.starts[section],
            f"{section} has rows for {count - len(missing)} of {count} nodes; node {missing[0] + 1} is missing",
        )
    return table


def _triangle(n: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the numbers of a half matrix, in their order."""
    offset = 0 if "DIAG" in kind else 1
    if kind.startswith("UPPER"):
        return np.triu_indices(n, offset)
    return np.tril_indices(n, -offset)


FORMATS = ("FULL_MATRIX", "UPPER_ROW", "LOWER_ROW", "UPPER_DIAG_ROW", "LOWER_DIAG_ROW")


def _explicit(text: _Text, count: int) -> np.ndarray:
    """Read the distances of EDGE_WEIGHT_SECTION."""
    line, kind = _required(text, "EDGE_WEIGHT_FORMAT")
    if kind not in FORMATS:
        raise text.error(line, str(unknown_name("EDGE_WEIGHT_FORMAT", kind, FORMATS)))
    section = "EDGE_WEIGHT_SECTION"
    if section not in text.sections:
        raise UsageError(f"{text.path}: the section {section} is missing")
    flat: list[float] = []
    # counted, for the indices of a triangle take more memory than the matrix
    wanted = count * count if kind == "FULL_MATRIX" else count * (count + (1 if "DIAG" in kind else -1)) // 2
    for number, words in text.sections[section]:
        flat += [_number(text, number, word, "a distance") for word in words]
        if any(value < 0 for value in flat[-len(words) :]):
            raise text.error(number, "a distance must not be negative")
        if len(flat) > wanted:
            raise text.error(number, f"{kind} of {count} nodes has {wanted} distances; here are more")
    if len(flat) < wanted:
        last = text.sections[section][-1][0] if text.sections[section] else text.starts[section]
        raise text.error(last, f"{kind} of {count} nodes has {wanted} distances; the section ends after {len(flat)}")
    matrix = np.zeros((count, count))
    if kind == "FULL_MATRIX":
        matrix[:] = np.reshape(flat, (count, count))
    else:
        rows, columns = _triangle(count, kind)
        matrix[rows, columns] = flat
        matrix[columns, rows] = flat
    np.fill_diagonal(matrix, 0.0)  # some files hold large numbers there, to keep solvers from staying
    return matrix


def _coordinates(text: _Text, count: int) -> np.ndarray | None:
    for section in ("NODE_COORD_SECTION", "DISPLAY_DATA_SECTION"):
        if section in text.sections:
            return _table(text, section, count, 2, "coordinates")
    return None


def _distances(text: _Text, count: int, xy: np.ndarray | None, rounding: str) -> np.ndarray:
    line, kind = _required(text, "EDGE_WEIGHT_TYPE")
    if rounding == "none" and kind not in UNROUNDED:
        raise text.error(
            line, f"rounding='none' has no meaning for distances of the type {kind}; it has for {', '.join(UNROUNDED)}"
        )
    if kind == "EXPLICIT":
        check_memory(count, 8, f"the distances between {count} nodes")
        return _explicit(text, count)
    if kind not in WEIGHTS:
        raise text.error(line, str(unknown_name("EDGE_WEIGHT_TYPE", kind, [*WEIGHTS, "EXPLICIT"])))
    if xy is None:
        raise text.error(line, f"EDGE_WEIGHT_TYPE {kind} needs a NODE_COORD_SECTION")
    return distances_between(xy, kind, rounding)


def _check_meant(text: _Text, problem: str) -> None:
    """Refuse what would change the problem and is not honoured, or is not known."""
    known = (*_EVERYWHERE, *_MEANT[problem])
    lines = {key: line for key, (line, _) in text.values.items()} | text.starts
    for key, line in sorted(lines.items(), key=lambda pair: pair[1]):
        if key in known or (key == "SERVICE_TIME" and _number(text, line, text.values[key][1], key) == 0.0):
            continue
        if key in _NOT_HONOURED:
            raise text.error(
                line,
                f"{key} {_NOT_HONOURED[key]}, which is no part of {problem.upper()} here; "
                "take it out of the file to solve the problem without it",
            )
        raise text.error(line, str(unknown_name("keyword", key, known)))


def _dimension(text: _Text) -> int:
    line, value = _required(text, "DIMENSION")
    number = _number(text, line, value, "DIMENSION")
    if number != int(number) or not 2 <= number <= _MOST_NODES:
        raise text.error(line, f"DIMENSION must be an integer from 2 to {_MOST_NODES}, got {value}")
    return int(number)


def _check_depot(text: _Text) -> None:
    """Refuse files with several depots, or one that is not the first node."""
    rows = text.sections.get("DEPOT_SECTION", [])
    nodes = [(line, word) for line, words in rows for word in words if word != "-1"]
    if nodes and [word for _, word in nodes] != ["1"]:
        raise text.error(nodes[0][0], f"the depot must be node 1, and the only one; got {[w for _, w in nodes]}")


def _cvrp(text: _Text, count: int) -> dict[str, Any]:
    _check_depot(text)
    capacity = _specified(text, "CAPACITY", "CAPACITY")
    if capacity <= 0:
        raise text.error(text.values["CAPACITY"][0], f"CAPACITY must be positive, got {capacity:g}")
    demand = _table(text, "DEMAND_SECTION", count, 1, "demand")[:, 0]
    for line, words in text.sections["DEMAND_SECTION"]:
        node, wanted = int(float(words[0])), float(words[1])
        if wanted < 0 or wanted > capacity:
            raise text.error(
                line, f"the demand of node {node} must be from 0 to the capacity {capacity:g}, got {wanted:g}"
            )
        if node == 1 and wanted:
            raise text.error(line, f"the demand of the depot, node 1, must be 0, got {wanted:g}")
    return {"demand": demand, "capacity": capacity}


def _op(text: _Text, count: int) -> dict[str, Any]:
    _check_depot(text)
    limit = _specified(text, "COST_LIMIT", "COST_LIMIT")
    if limit <= 0:
        raise text.error(text.values["COST_LIMIT"][0], f"COST_LIMIT must be positive, got {limit:g}")
    score = _table(text, "NODE_SCORE_SECTION", count, 1, "score")[:, 0]
    for line, words in text.sections["NODE_SCORE_SECTION"]:
        if float(words[1]) < 0:
            raise text.error(line, f"a score must not be negative, got {words[1]}")
    return {"prize": score[1:], "max_length": limit}


def parse_instance(text: str, path: str = "instance", rounding: str = "nearest") -> FileInstance:
    """Read an instance from the text of a file; see `read_file`.

    Raises:
        UsageError: the text is malformed, or its distances need more memory than is free; the message names the line.
    """
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", str(rounding), ROUNDINGS)
    parts = _split(path, text.removeprefix("\ufeff"))
    line, kind = _required(parts, "TYPE")
    kind = kind.partition("(")[0].strip()  # some say more in brackets: TSP (M.~Hofmeister)
    if kind.upper() not in PROBLEMS:
        raise parts.error(line, str(unknown_name("TYPE", kind, PROBLEMS)))
    problem, count = PROBLEMS[kind.upper()], _dimension(parts)
    _check_meant(parts, problem)
    xy = _coordinates(parts, count)
    distances = _distances(parts, count, xy, rounding)
    if not np.isfinite(distances).all():
        raise parts.error(parts.starts["NODE_COORD_SECTION"], "coordinates are so large that distances are not finite")
    is_given = "EDGE_WEIGHT_SECTION" in parts.starts  # other distances are the same both ways by their formula
    if problem in ("tsp", "cvrp", "op") and is_given and not np.array_equal(distances, distances.T):
        raise parts.error(
            parts.starts["EDGE_WEIGHT_SECTION"],
            f"the distances depend on the direction, but TYPE is {kind}; for such a matrix TYPE is ATSP",
        )
    extra = {"cvrp": _cvrp, "op": _op}[problem](parts, count) if problem in ("cvrp", "op") else {}
    given = {"distances": distances} if problem == "atsp" else {} if xy is None else {"xy": xy}
    shown = {"xy": xy} if xy is not None else {}
    name, comment = (parts.values.get(key, (0, ""))[1] for key in ("NAME", "COMMENT"))
    return FileInstance(
        name or Path(path).stem, problem, {**shown, "distances": distances, **extra}, {**given, **extra}, comment
    )


def read_file(path: str | Path, rounding: str = "nearest") -> FileInstance:
    """Read a file of TSPLIB or CVRPLIB (.tsp, .atsp, .vrp), or of the orienteering library OPLib (.oplib).

    Args:
        path: the file, in UTF-8 or Latin-1.
        rounding: "nearest" rounds distances as the file's EDGE_WEIGHT_TYPE says. "none" does not round them: so count the
            published costs of CVRPLIB's sets CMT, Golden, Li and tai.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: the file is malformed, or says what is not honoured; the message names the line. Or its distances need
            more memory than is free.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if _CONTROL.search(data):
            raise UsageError(f"{path} is not a text file ({error})") from error
        text = data.decode("latin-1")
    return parse_instance(text, str(path), rounding)


def read_solution_cost(path: str | Path) -> float:
    """Read the cost of a known solution from a CVRPLIB solution file (.sol).

    Raises:
        ImportError: vrplib is not installed.
        UsageError: the file has no line "Cost ...".
    """
    try:
        return float(require("vrplib", "solvers").read_solution(path)["cost"])
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{path} is no solution file of CVRPLIB: it has no line 'Cost NUMBER'") from error
