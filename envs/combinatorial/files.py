"""Instances of TSPLIB and CVRPLIB: files of TSP, ATSP, CVRP and OP, with the distances that the libraries define.

Reinelt, "TSPLIB 95", 1995. Distances are rounded as the file's EDGE_WEIGHT_TYPE says, so that costs can be compared with
the published optima. Every complaint names the line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyathlon.envs.errors import UsageError, require, unknown_name

PROBLEMS = {"TSP": "tsp", "ATSP": "atsp", "CVRP": "cvrp", "VRP": "cvrp", "OP": "op"}
_EARTH_RADIUS = 6378.388  # kilometres, as TSPLIB has it
_MOST_NODES = 100_000


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
        if not words or words == "EOF":
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
        number = float(word)
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


def _nearest(x: np.ndarray) -> np.ndarray:
    return np.floor(x + 0.5)


def _euclidean(xy: np.ndarray) -> np.ndarray:
    return np.sqrt(((xy[:, None] - xy[None]) ** 2).sum(-1))


def _pseudo_euclidean(xy: np.ndarray) -> np.ndarray:
    exact = np.sqrt(((xy[:, None] - xy[None]) ** 2).sum(-1) / 10.0)
    return np.ceil(exact)


def _geographical(xy: np.ndarray) -> np.ndarray:
    """Return distances on the earth in kilometres; coordinates are degrees and minutes, as DDD.MM."""
    degrees = np.trunc(xy)
    radians = 3.141592 * (degrees + 5.0 * (xy - degrees) / 3.0) / 180.0
    latitude, longitude = radians[:, 0], radians[:, 1]
    q1 = np.cos(longitude[:, None] - longitude[None])
    q2 = np.cos(latitude[:, None] - latitude[None])
    q3 = np.cos(latitude[:, None] + latitude[None])
    angle = np.arccos(np.clip(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3), -1.0, 1.0))
    return np.floor(_EARTH_RADIUS * angle + 1.0)


WEIGHTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "EUC_2D": lambda xy: _nearest(_euclidean(xy)),
    "CEIL_2D": lambda xy: np.ceil(_euclidean(xy)),
    "FLOOR_2D": lambda xy: np.floor(_euclidean(xy)),
    "EXACT_2D": lambda xy: np.round(1000.0 * _euclidean(xy)),
    "MAN_2D": lambda xy: _nearest(np.abs(xy[:, None] - xy[None]).sum(-1)),
    "MAX_2D": lambda xy: _nearest(np.abs(xy[:, None] - xy[None])).max(-1),
    "ATT": _pseudo_euclidean,
    "GEO": _geographical,
}


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
    wanted = count * count if kind == "FULL_MATRIX" else len(_triangle(count, kind)[0])
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


def _distances(text: _Text, count: int, xy: np.ndarray | None) -> np.ndarray:
    line, kind = _required(text, "EDGE_WEIGHT_TYPE")
    if kind == "EXPLICIT":
        return _explicit(text, count)
    if kind not in WEIGHTS:
        raise text.error(line, str(unknown_name("EDGE_WEIGHT_TYPE", kind, [*WEIGHTS, "EXPLICIT"])))
    if xy is None:
        raise text.error(line, f"EDGE_WEIGHT_TYPE {kind} needs a NODE_COORD_SECTION")
    matrix = WEIGHTS[kind](xy)
    np.fill_diagonal(matrix, 0.0)
    return matrix


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


def parse_instance(text: str, path: str = "instance") -> FileInstance:
    """Read an instance from the text of a file; see `read_file`.

    Raises:
        UsageError: the text is malformed; the message names the line.
    """
    parts = _split(path, text)
    line, kind = _required(parts, "TYPE")
    if kind.upper() not in PROBLEMS:
        raise parts.error(line, str(unknown_name("TYPE", kind, PROBLEMS)))
    problem, count = PROBLEMS[kind.upper()], _dimension(parts)
    xy = _coordinates(parts, count)
    distances = _distances(parts, count, xy)
    if problem in ("tsp", "cvrp", "op") and not np.array_equal(distances, distances.T):
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


def read_file(path: str | Path) -> FileInstance:
    """Read a file of TSPLIB or CVRPLIB (.tsp, .atsp, .vrp), or of the orienteering library OPLib (.oplib).

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: the file is malformed; the message names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file ({error})") from error
    return parse_instance(text, str(path))


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
