"""Instances of routing problems: generated from keys, or given by the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, unknown_name

INSTANCE_STREAM = 1
_NUM_CLUSTERS = 5
_CLUSTER_WIDTH = 0.07


class Instance(NamedTuple):
    """A batch of instances with points in the plane.

    Attributes:
        xy: [B, N, 2] coordinates in the unit square; rows from `size` on are 0.
        size: [B] int64 number of points.
        scale: [B] float64 length of the unit square's side in the units of the instance.
        reference: [B] float64 cost of a known solution, NaN where none is known.
    """

    xy: Tensor
    size: Tensor
    scale: Tensor
    reference: Tensor


def uniform(keys: Tensor, num_points: int, dtype: torch.dtype) -> Tensor:
    """Draw points uniformly from the unit square.

    Args:
        keys: [B, 2] int64 random keys.
        num_points: number of points N.
        dtype: floating type of the coordinates.

    Returns:
        [B, N, 2] coordinates in [0, 1).
    """
    return random.uniform(keys, 0, (num_points, 2), dtype, stream=INSTANCE_STREAM)


def clusters(keys: Tensor, num_points: int, dtype: torch.dtype) -> Tensor:
    """Draw points around five uniform centres, normally with standard deviation 0.07, cut at the unit square.

    Args:
        keys: [B, 2] int64 random keys.
        num_points: number of points N.
        dtype: floating type of the coordinates.

    Returns:
        [B, N, 2] coordinates in [0, 1].
    """
    centres = random.uniform(keys, 0, (_NUM_CLUSTERS, 2), dtype, stream=INSTANCE_STREAM)
    choice = random.integers(keys, 1, 0, _NUM_CLUSTERS, (num_points,))
    noise = random.normal(keys, 2, (num_points, 2), dtype)
    own_centre = centres.gather(1, choice.long().unsqueeze(-1).expand(-1, -1, 2))
    return (own_centre + _CLUSTER_WIDTH * noise).clamp(0.0, 1.0)


DISTRIBUTIONS: dict[str, Callable[[Tensor, int, torch.dtype], Tensor]] = {"uniform": uniform, "clusters": clusters}


def distribution_named(name: str) -> Callable[[Tensor, int, torch.dtype], Tensor]:
    """Look up a generator of points.

    Raises:
        UsageError: there is no such distribution.
    """
    if name not in DISTRIBUTIONS:
        raise unknown_name("distribution", name, DISTRIBUTIONS)
    return DISTRIBUTIONS[name]


def generate(distribution: str, keys: Tensor, num_points: int, dtype: torch.dtype = torch.float32) -> Instance:
    """Draw one instance for each key.

    Args:
        distribution: a name in `DISTRIBUTIONS`.
        keys: [B, 2] int64 random keys; equal keys give equal instances, on any device and in any batch.
        num_points: number of points N.
        dtype: floating type of the coordinates.

    Raises:
        UsageError: there is no such distribution.
    """
    rows = keys.shape[0]
    return Instance(
        distribution_named(distribution)(keys, num_points, dtype),
        torch.full((rows,), num_points, dtype=torch.int64, device=keys.device),
        torch.ones(rows, dtype=torch.float64, device=keys.device),
        torch.full((rows,), torch.nan, dtype=torch.float64, device=keys.device),
    )


def read_points(given: Any, rows: int, max_points: int) -> np.ndarray:
    """Check points that a user gave and return them as [B, m, 2] float64.

    Args:
        given: (m, 2) numbers for every row, or (B, m, 2).
        rows: number of rows B.
        max_points: most points that fit.

    Raises:
        UsageError: the shape is wrong, a number is not finite, or there are fewer than 2 or more than `max_points`.
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    try:
        points = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"an instance is an array of coordinates (m, 2), got {type(given).__name__}: {error}"
        ) from error
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[2] != 2 or points.shape[0] not in (1, rows):
        raise UsageError(f"an instance has the shape (m, 2), or ({rows}, m, 2) for every row; got {np.shape(given)}")
    if not 2 <= points.shape[1] <= max_points:
        raise UsageError(
            f"an instance has 2 to {max_points} points here, got {points.shape[1]}; "
            "make the environment with a larger num_nodes for larger instances"
        )
    if not np.isfinite(points).all():
        raise UsageError("an instance holds a coordinate that is not finite (NaN or infinity)")
    return np.broadcast_to(points, (rows, *points.shape[1:]))


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


def read_reference(given: Any, rows: int) -> np.ndarray:
    """Check reference costs and return them as [B] float64; None gives NaN.

    Raises:
        UsageError: they are not positive finite numbers, one or one for each row.
    """
    if given is None:
        return np.full(rows, np.nan)
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    try:
        reference = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"'reference' is a cost, or one for each row, got {given!r}") from error
    if reference.shape not in ((), (1,), (rows,)) or not np.isfinite(reference).all() or not (reference > 0).all():
        raise UsageError(f"'reference' is a positive cost, or one for each of {rows} rows, got {str(given)[:80]}")
    return np.broadcast_to(reference, (rows,))


def read_instance(
    given: Any, rows: int, max_points: int, dtype: torch.dtype, device: torch.device, reference: Any = None
) -> Instance:
    """Make a batch of instances from what a user gave.

    Args:
        given: coordinates (m, 2), or (B, m, 2); or a dict with "xy" and, if known, "reference".
        rows: number of rows B.
        max_points: number of points N that each row has room for; fewer are padded.
        dtype: floating type of the coordinates.
        device: where the tensors go.
        reference: cost of a known solution, in the units of the instance.

    Raises:
        UsageError: the instance is malformed.
    """
    if isinstance(given, dict):
        unknown = sorted(set(given) - {"xy", "reference"}, key=str)
        if unknown:
            raise unknown_name("entry of an instance", str(unknown[0]), ("xy", "reference"))
        if "xy" not in given:
            raise UsageError("an instance given as a dict needs the entry 'xy', its coordinates (m, 2)")
        reference = given.get("reference") if reference is None else reference
        given = given["xy"]
    points, scale = to_unit_square(read_points(given, rows, max_points))
    xy = torch.zeros((rows, max_points, 2), dtype=dtype, device=device)
    xy[:, : points.shape[1]] = torch.as_tensor(points, dtype=dtype, device=device)
    return Instance(
        xy,
        torch.full((rows,), points.shape[1], dtype=torch.int64, device=device),
        torch.as_tensor(scale, dtype=torch.float64, device=device),
        torch.as_tensor(np.array(read_reference(reference, rows)), dtype=torch.float64, device=device),
    )


def augment8(xy: Tensor) -> Tensor:
    """Return the eight symmetries of the unit square of each instance: tours keep their lengths.

    Args:
        xy: [B, N, 2] coordinates in the unit square.

    Returns:
        [8 B, N, 2]; rows k B to (k + 1) B hold the k-th symmetry, the first is the identity.
    """
    x, y = xy[..., 0], xy[..., 1]
    pairs = ((x, y), (1 - x, y), (x, 1 - y), (1 - x, 1 - y), (y, x), (1 - y, x), (y, 1 - x), (1 - y, 1 - x))
    return torch.cat([torch.stack(pair, dim=-1) for pair in pairs])
