"""How the vector environment hands out arrays: numpy's, or torch tensors on a device; infos with masks."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from polyathlon.envs.errors import unknown_name


def _references() -> int:
    """Count the references to an object that a list, the loop over it and the count itself hold."""
    kept = [np.zeros(1)]
    for candidate in kept:
        return sys.getrefcount(candidate)
    return 0


_UNHELD = _references()


class Copies:
    """Copies of arrays, into memory of earlier copies that nobody holds any more.

    Fresh memory of this size comes from the system page by page, which costs as much as the copy itself.
    """

    least, most = 1 << 16, 4  # bytes from which on it pays; copies kept of one array

    def __init__(self) -> None:
        self._kept: dict[str, list[np.ndarray]] = {}

    def of(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return a copy of the array called `name`, which nobody else has."""
        if array.nbytes < self.least:
            return array.copy()
        kept = self._kept.setdefault(name, [])
        for candidate in kept:
            if sys.getrefcount(candidate) == _UNHELD:  # views and tensors of it hold it too
                np.copyto(candidate, array)
                return candidate
        copy = array.copy()
        if len(kept) < self.most:
            kept.append(copy)
        return copy


class Output:
    """Turns arrays that belong to the caller into what was asked for.

    Args:
        kind: "numpy" or "torch".
        device: where the tensors of "torch" go.

    Raises:
        UsageError: the kind or the device is unknown.
    """

    def __init__(self, kind: str, device: Any) -> None:
        if kind not in ("numpy", "torch"):
            raise unknown_name("output", str(kind), ("numpy", "torch"))
        self.kind, self.device = kind, device
        if kind == "torch" or str(device) != "cpu":
            from polyathlon.envs.tensor.base import parse_device

            self.device = parse_device(device)

    def give(self, tree: Any) -> Any:
        """Hand out an array, or a dict of them; objects stay as they are."""
        if self.kind == "numpy":
            return tree
        import torch

        if isinstance(tree, dict):
            return {name: self.give(value) for name, value in tree.items()}
        if not isinstance(tree, np.ndarray) or tree.dtype == object:
            return tree
        tensor = torch.from_numpy(tree).to(self.device)
        return tensor.float() if tensor.dtype == torch.float64 else tensor

    def info(self, info: dict[str, np.ndarray], mask: np.ndarray) -> dict[str, Any]:
        """Batch infos as Gymnasium does: each with its mask `_key`, and zero where that is False."""
        given: dict[str, Any] = {}
        if not mask.any():
            return given
        for name, value in info.items():
            kept = value
            if not mask.all():
                blank = np.array(None, object) if value.dtype == object else np.zeros((), value.dtype)
                kept = np.where(mask.reshape(-1, *[1] * (value.ndim - 1)), value, blank)
            given[name] = self.give(kept)
            given[f"_{name}"] = self.give(mask.copy())
        return given

    def final(self, tree: Any, rows: np.ndarray) -> Any:
        """Hand out last observations: an object array with None elsewhere (numpy), or all rows (torch)."""
        if self.kind == "torch":
            return self.give(tree)
        number = len(next(iter(tree.values()))) if isinstance(tree, dict) else len(tree)
        found = np.full(number, None, dtype=object)
        for row in np.flatnonzero(rows).tolist():
            found[row] = {k: v[row].copy() for k, v in tree.items()} if isinstance(tree, dict) else tree[row].copy()
        return found
