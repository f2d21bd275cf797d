"""How the vector environment of MuJoCo tasks hands out tensors: as numpy arrays or on a device, infos with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .mujoco_arrays import Array


class Output:
    """Turns results (numpy arrays or tensors) into what the user asked for; nothing that it gives shares memory with the state.

    Attributes:
        kind: "numpy" or "torch".
        dtype: type of observations, rewards and infos.
        device: where the tensors of "torch" go.
    """

    def __init__(self, kind: str, dtype: torch.dtype, device: torch.device) -> None:
        self.kind, self.dtype, self.device = kind, dtype, device
        self.numpy_dtype: Any = np.float64 if dtype == torch.float64 else np.float32

    def values(self, values: Array) -> Any:
        """Hand out a fresh tensor."""
        if isinstance(values, np.ndarray):
            if self.kind == "numpy":
                return values.astype(self.numpy_dtype, copy=False)
            return torch.from_numpy(values).to(self.device, self.dtype)
        if self.kind == "numpy":
            return values.to("cpu", self.dtype).numpy()
        return values.to(self.device, self.dtype)

    def rewards(self, values: Array) -> Any:
        """Hand out [N] rewards, or [N, k] for k objectives, which are float32 as MO-Gymnasium's."""
        if values.ndim == 1:
            return self.values(values)
        if self.kind == "numpy":
            return values if isinstance(values, np.ndarray) else values.cpu().numpy()
        return torch.as_tensor(values).to(self.device)

    def flags(self, values: np.ndarray) -> Any:
        """Hand out a fresh array of bools."""
        return values if self.kind == "numpy" else torch.from_numpy(values).to(self.device)

    def info(self, info: dict[str, Array], mask: np.ndarray | None, also: Sequence[str] = ()) -> dict[str, Any]:
        """Batch infos as Gymnasium does, each with its mask `_key`; values are zero where it is False.

        Args:
            info: [N] or [N, K] each.
            mask: [N] bool, rows that have the infos; None for all.
            also: names of infos that all rows have.
        """
        given: dict[str, Any] = {}
        for key, value in info.items():
            if mask is None or key in also:
                given[key] = self._info_value(value)
                given[f"_{key}"] = self.flags(np.ones(len(value), dtype=np.bool_))
            elif mask.any():
                keep = mask if isinstance(value, np.ndarray) else torch.from_numpy(mask).to(value.device)
                given[key] = self._info_value(value * keep.reshape(-1, *[1] * (value.ndim - 1)))
                given[f"_{key}"] = self.flags(mask.copy())
        return given

    def _info_value(self, values: Array) -> Any:
        """Keep the type that Gymnasium gives an info (`reward_ctrl` has the action's), unless another is asked for."""
        if self.kind == "numpy" and self.dtype == torch.float64:
            return values if isinstance(values, np.ndarray) else values.cpu().numpy()
        return self.values(values)

    def final(self, final: Array, rows: Sequence[int]) -> Any:
        """Hand out final observations: an object array with None elsewhere (numpy), or all rows (torch)."""
        values = self.values(final)
        if self.kind == "torch":
            return values
        array = np.full(len(final), None, dtype=object)
        for row in rows:
            array[row] = values[row].copy()
        return array
