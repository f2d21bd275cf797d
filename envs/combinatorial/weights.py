"""The distances that TSPLIB defines between points, rounded as it says or not at all, and the memory that they need.

Reinelt, "TSPLIB 95", 1995, section 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from polyathlon.envs.errors import UsageError

from .tours import matrix_by_blocks

ROUNDINGS = ("nearest", "none")
_EARTH_RADIUS = 6378.388  # kilometres, as TSPLIB has it
_GIGABYTE = 1e9
# points [K, 2] and [N, 2] -> distances [K, N]
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _nearest(x: np.ndarray) -> np.ndarray:
    return np.floor(x + 0.5)


def _differences(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]


def _euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dx, dy = _differences(a, b)
    return np.sqrt(dx * dx + dy * dy)


def _pseudo_euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dx, dy = _differences(a, b)
    return np.sqrt((dx * dx + dy * dy) / 10.0)


def _manhattan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dx, dy = _differences(a, b)
    return np.abs(dx) + np.abs(dy)


def _maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dx, dy = _differences(a, b)
    return np.maximum(np.abs(dx), np.abs(dy))


def _maximum_rounded(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dx, dy = _differences(a, b)
    return np.maximum(_nearest(np.abs(dx)), _nearest(np.abs(dy)))


def _geographical(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return distances on the earth in kilometres; coordinates are degrees and minutes, as DDD.MM."""

    def radians(xy: np.ndarray) -> np.ndarray:
        degrees = np.trunc(xy)
        return 3.141592 * (degrees + 5.0 * (xy - degrees) / 3.0) / 180.0

    (latitude, longitude), (others, far) = radians(a).T, radians(b).T
    q1 = np.cos(longitude[:, None] - far[None])
    q2 = np.cos(latitude[:, None] - others[None])
    q3 = np.cos(latitude[:, None] + others[None])
    angle = np.arccos(np.clip(0.5 * ((1.0 + q1) * q2 - (1.0 - q1) * q3), -1.0, 1.0))
    return np.floor(_EARTH_RADIUS * angle + 1.0)


WEIGHTS: dict[str, Between] = {
    "EUC_2D": lambda a, b: _nearest(_euclidean(a, b)),
    "CEIL_2D": lambda a, b: np.ceil(_euclidean(a, b)),
    "FLOOR_2D": lambda a, b: np.floor(_euclidean(a, b)),
    "EXACT_2D": lambda a, b: np.round(1000.0 * _euclidean(a, b)),
    "MAN_2D": lambda a, b: _nearest(_manhattan(a, b)),
    "MAX_2D": _maximum_rounded,
    "ATT": lambda a, b: np.ceil(_pseudo_euclidean(a, b)),
    "GEO": _geographical,
}
UNROUNDED: dict[str, Between] = {
    "EUC_2D": _euclidean,
    "CEIL_2D": _euclidean,
    "FLOOR_2D": _euclidean,
    "MAN_2D": _manhattan,
    "MAX_2D": _maximum,
    "ATT": _pseudo_euclidean,
}


def distances_between(xy: np.ndarray, kind: str, rounding: str = "nearest") -> np.ndarray:
    """Return the distances [N, N] float64 between points [N, 2].

    Args:
        xy: the points.
        kind: a key of `WEIGHTS`, with rounding "none" one of `UNROUNDED`.
        rounding: one of `ROUNDINGS`.

    Raises:
        UsageError: the distances do not fit into the memory that is free.
    """
    check_memory(len(xy), 8, f"the distances between {len(xy)} nodes")
    with np.errstate(over="ignore", invalid="ignore"):  # whoever asks looks whether they are finite
        matrix = matrix_by_blocks(xy, (WEIGHTS if rounding == "nearest" else UNROUNDED)[kind])
    np.fill_diagonal(matrix, 0.0)
    return matrix


def check_memory(count: int, bytes_each: int, what: str) -> None:
    """Refuse what needs a number of bytes for each pair of nodes, where that is more than is free.

    Raises:
        UsageError: it is; the message says how much is needed.
    """
    needed, free = count * count * bytes_each, free_memory()
    if needed > free:
        raise UsageError(
            f"{what} need {needed / _GIGABYTE:.1f} GB of memory, and {free / _GIGABYTE:.1f} GB are free here; "
            "take a machine with more memory, or a smaller instance"
        )


def free_memory() -> float:
    """Return the bytes that this process can still have, as far as the system says; infinity where it does not."""
    return min(_of_the_machine(), _of_the_group(), _of_the_process())


def _of_the_machine() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * float(line.split()[1])
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return float("inf")


def _of_the_group() -> float:
    """Return what the container leaves (control groups, version 2)."""
    try:
        most, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current"))
        return float("inf") if most == "max" else max(float(most) - float(used), 0.0)
    except (OSError, ValueError):
        return float("inf")


def _of_the_process() -> float:
    """Return what the limit of address space (`ulimit -v`) leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most == resource.RLIM_INFINITY:
            return float("inf")
        return float(most - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    except (ImportError, OSError, ValueError):
        return float("inf")
