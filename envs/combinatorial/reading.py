"""What users give as instances, checked where it enters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, unknown_name

from .instances import Instance

_ROUNDING = 1e-9  # by which a share of a capacity may exceed it


def numbers(given: Any, name: str) -> np.ndarray:
    """Turn what a user gave into a float64 array.

    Args:
        given: numbers, nested lists of them, an array or a tensor.
        name: what they are, for the message.

    Raises:
        UsageError: they are no numbers, or one of them is not finite.
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    try:
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be numbers, got {type(given).__name__}: {error}") from error
    if not np.isfinite(array).all():
        raise UsageError(f"{name} holds a number that is not finite (NaN or infinity)")
    return array


def entries(given: Any, needed: Iterable[str], example: str) -> dict[str, Any]:
    """Check the names of an instance that is a dict; "reference" may be among them.

    Raises:
        UsageError: it is no dict, an entry is unknown or missing.
    """
    needed = tuple(needed)
    if not isinstance(given, dict):
        raise UsageError(f"an instance is a dict like {example}, got {type(given).__name__}")
    for name in given:
        if name not in (*needed, "reference"):
            raise unknown_name("entry of an instance", str(name), (*needed, "reference"))
    for name in needed:
        if name not in given:
            raise UsageError(f"an instance needs the entry {name!r}; give a dict like {example}")
    return given


PLAIN_ENTRIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # of which one is needed, and which all are
    "tsp": (("xy", "distances"), ()),
    "atsp": (("distances", "xy"), ()),
    "cvrp": (("xy", "distances"), ("demand", "capacity")),
    "op": (("xy", "distances"), ("prize", "max_length")),
    "knapsack": ((), ("value", "weight", "capacity")),
}


def check_plain(problem: str, instance: Mapping[str, Any]) -> None:
    """Refuse an instance that a solver would misread: NaN, negative numbers, lengths that do not belong together.

    Args:
        problem: a key of `PLAIN_ENTRIES`.
        instance: one instance, see `solutions`.

    Raises:
        UsageError: an entry is unknown, missing or malformed, or a customer needs more than a vehicle holds.
    """
    if not isinstance(instance, Mapping):
        raise UsageError(f"an instance of {problem} is a dict, got {type(instance).__name__}")
    places, needed = PLAIN_ENTRIES[problem]
    for name in instance:
        if name not in (*places, *needed, "reference"):
            raise unknown_name(f"entry of an instance of {problem}", str(name), (*places, *needed, "reference"))
    missing = [name for name in needed if name not in instance]
    if missing or (places and not any(name in instance for name in places)):
        raise UsageError(f"an instance of {problem} needs the entry {(missing or [' or '.join(places)])[0]}")
    amounts = {name: read_amount(instance[name], name, 1) for name in ("capacity", "max_length") if name in needed}
    if not places:
        count = _length(instance["value"], "value")
        if count == 0:
            raise UsageError("an instance of knapsack has at least one item")
        for name in ("value", "weight"):
            read_column(instance[name], name, 1, count)
        return
    count = _check_places(instance)
    for name in (name for name in ("demand", "prize") if name in needed):
        has_depot = _length(instance[name], name) == count
        column = read_column(instance[name], name, 1, count if has_depot else count - 1)
        if name == "demand" and (column > amounts["capacity"][0] * (1.0 + _ROUNDING)).any():
            raise UsageError(
                f"a customer has the demand {column.max():g}, more than the capacity {amounts['capacity'][0]:g}: "
                "no vehicle can serve it"
            )


def _length(given: Any, name: str) -> int:
    column = numbers(given, name)
    if column.ndim != 1:
        raise UsageError(f"{name} is a list of numbers, got the shape {column.shape}")
    return len(column)


def _check_places(instance: Mapping[str, Any]) -> int:
    """Check the distances or, where there are none, the points of an instance; return how many nodes it has."""
    name = "distances" if "distances" in instance else "xy"
    given = numbers(instance[name], name)
    is_right = given.ndim == 2 and len(given) >= 2 and given.shape[1] == (2 if name == "xy" else len(given))
    if not is_right:
        wanted = "(N, 2)" if name == "xy" else "(N, N)"
        raise UsageError(f"{name} of an instance has the shape {wanted} with N >= 2, got {given.shape}")
    if name == "distances" and (given < 0).any():
        i, j = np.argwhere(given < 0)[0]
        raise UsageError(f"a distance must not be negative, got {given[i, j]:g} from node {i} to node {j}")
    return len(given)


def read_points(given: Any, rows: int, least: int, most: int, size_name: str = "num_nodes") -> np.ndarray:
    """Check points that a user gave and return them as [B, m, 2] float64.

    Args:
        given: (m, 2) numbers for every row, or (B, m, 2).
        rows: number of rows B.
        least: fewest points allowed.
        most: most points that fit.
        size_name: option that makes room for more.

    Raises:
        UsageError: the shape is wrong, a number is not finite, or there are too few or too many.
    """
    points = numbers(given, "an instance is an array of coordinates (m, 2); its entries")
    points = points[None] if points.ndim == 2 else points
    if points.ndim == 3 and points.shape[2] == points.shape[1] != 2:
        raise UsageError(
            f"an instance here is an array of coordinates (m, 2), got a matrix {points.shape[1:]}; "
            "for a matrix of distances use polyathlon/ATSP-v0, which takes symmetric ones too"
        )
    if points.ndim != 3 or points.shape[2] != 2 or points.shape[0] not in (1, rows):
        raise UsageError(f"an instance has the shape (m, 2), or ({rows}, m, 2) for every row; got {np.shape(given)}")
    check_count(points.shape[1], least, most, "points", size_name)
    return np.broadcast_to(points, (rows, *points.shape[1:]))


def check_count(count: int, least: int, most: int, what: str, size_name: str) -> None:
    """Refuse instances that are too small or too large.

    Raises:
        UsageError: `count` is not from `least` to `most`.
    """
    if not least <= count <= most:
        raise UsageError(
            f"an instance has {least} to {most} {what} here, got {count}; "
            f"make the environment with a larger {size_name} for larger instances"
        )


def read_column(given: Any, name: str, rows: int, count: int) -> np.ndarray:
    """Check one number for each node and return them as [B, count] float64.

    Args:
        given: (count,) for every row, or (B, count).
        name: what they are, for the message.
        rows: number of rows B.
        count: how many are needed.

    Raises:
        UsageError: the shape is wrong, or a number is negative or not finite.
    """
    column = numbers(given, name)
    column = column[None] if column.ndim == 1 else column
    if column.ndim != 2 or column.shape[1] != count or column.shape[0] not in (1, rows):
        raise UsageError(f"{name} has the shape ({count},), or ({rows}, {count}) for every row; got {np.shape(given)}")
    if (column < 0).any():
        row, node = np.argwhere(column < 0)[0]
        raise UsageError(f"{name} must not be negative, got {column[row, node]:g} at position {node}")
    return np.broadcast_to(column, (rows, count))


def read_amount(given: Any, name: str, rows: int) -> np.ndarray:
    """Check a capacity or a length and return it as [B] float64.

    Raises:
        UsageError: it is not positive and finite, or not one number or one for each row.
    """
    amount = numbers(given, name)
    if amount.shape not in ((), (1,), (rows,)) or not (amount > 0).all():
        raise UsageError(f"{name} is a positive number, or one for each of {rows} rows, got {str(given)[:80]}")
    return np.broadcast_to(amount, (rows,))


def to_unit_square(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shift and scale instances that leave the unit square into it, by the larger side; leave the others alone.

    Args:
        points: [B, m, 2] float64.

    Returns:
        The points in [0, 1], and [B] float64 the length of the unit in the given coordinates.

    Raises:
        UsageError: the extent of an instance is not a finite number.
    """
    with np.errstate(over="ignore"):
        low, high = points.min(axis=1), points.max(axis=1)
        side = (high - low).max(axis=1)
    if not np.isfinite(side).all():
        raise UsageError("the extent of an instance is larger than a float64 can hold; scale its coordinates down")
    inside = (low >= 0.0).all(axis=1) & (high <= 1.0).all(axis=1)
    scale = np.where(inside | (side == 0.0), 1.0, side)
    origin = np.where(inside[:, None], 0.0, low)
    return np.clip((points - origin[:, None]) / scale[:, None, None], 0.0, 1.0), scale


def to_unit(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide the rows of [B, m] that exceed 1 by their maximum; return them and [B] the divisors."""
    largest = column.max(axis=1)
    scale = np.where(largest > 1.0, largest, 1.0)
    return column / scale[:, None], scale


def read_reference(given: Any, rows: int, is_gain: bool = False) -> np.ndarray:
    """Check reference costs and return them as [B] float64; None gives NaN.

    Args:
        given: one number, or one for each row.
        rows: number of rows B.
        is_gain: the task collects, so that its cost is minus what was collected.

    Raises:
        UsageError: they are not finite or of the wrong sign, or not one or one for each row.
    """
    if given is None:
        return np.full(rows, np.nan)
    wanted = "a negative cost (minus what was collected)" if is_gain else "a positive cost"
    try:
        reference = numbers(given, "'reference'")
    except UsageError as error:
        raise UsageError(f"'reference' is {wanted}, or one for each of {rows} rows: {error}") from error
    is_right = (reference < 0) if is_gain else (reference > 0)
    if reference.shape not in ((), (1,), (rows,)) or not is_right.all():
        raise UsageError(f"'reference' is {wanted}, or one for each of {rows} rows, got {str(given)[:80]}")
    return np.broadcast_to(reference, (rows,))


def make_instance(
    columns: np.ndarray,
    most: int,
    dtype: torch.dtype,
    device: torch.device,
    scale: np.ndarray,
    reference: np.ndarray,
    amount: np.ndarray | None = None,
) -> Instance:
    """Put checked numbers on the device, with padding.

    Args:
        columns: [B, m, F] features in [0, 1].
        most: number of nodes N that each row has room for.
        dtype: floating type of the features.
        device: where the tensors go.
        scale: [B] what 1 is worth in the units of the cost.
        reference: [B] costs of known solutions or NaN.
        amount: [B] capacity or length allowed in the units of the features; None for a task without one.
    """
    rows, count, features = columns.shape
    nodes = torch.zeros((rows, most, features), dtype=dtype, device=device)
    nodes[:, :count] = torch.as_tensor(columns, dtype=dtype, device=device)

    def on_device(values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.array(values), dtype=torch.float64, device=device)

    return Instance(
        nodes,
        on_device(np.zeros(rows) if amount is None else amount),
        torch.full((rows,), count, dtype=torch.int64, device=device),
        on_device(scale),
        on_device(reference),
    )
