"""MuJoCo's own physics for many rows, on CPU threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol

import mujoco
import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .mujoco_arrays import Array

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION.value
# Handing a chunk to another thread costs about as much as a few steps of HalfCheetah; below this it does not pay.
_WORTH_A_THREAD = 16


class Physics(Protocol):
    """What a back end gives; rows are numbered from 0.

    Attributes:
        fields: the fields of `mujoco.MjData` that the task reads, [N, ...], as `read` left them.
    """

    fields: dict[str, Array]

    def reset(self, rows: Sequence[int], qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put rows at [K, nq] positions and [K, nv] velocities, at rest otherwise."""

    def step(self, action: np.ndarray, rows: Sequence[int] | None) -> None:
        """Apply [N, nu] actions for a whole step in some rows, or in all (None)."""

    def read(self, rows: Sequence[int] | None = None) -> None:
        """Bring `fields` up to date in some rows, or in all (None)."""

    def get_state(self) -> dict[str, Tensor]:
        """Copy everything that later steps depend on."""

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `get_state` gave."""

    def copy_to(self, data: Any, row: int) -> None:
        """Copy a row into a `mujoco.MjData`, for drawing."""

    def close(self) -> None:
        """Give threads back."""


class CpuPhysics:
    """One `MjData` per row, stepped in chunks by threads (`mj_step` runs without Python's lock).

    The result does not depend on the number of threads. As fast on one core as `mujoco.rollout`, which keeps no
    contact forces.
    """

    def __init__(
        self,
        model: Any,
        names: Sequence[str],
        num_envs: int,
        frame_skip: int,
        has_contact_forces: bool,
        num_threads: int,
    ) -> None:
        """Allocate the rows.

        Args:
            model: `mujoco.MjModel`, shared by all rows.
            names: the fields of `MjData` to read.
            num_envs: number of environments N.
            frame_skip: physics steps of one step.
            has_contact_forces: compute `cfrc_ext` after each step.
            num_threads: threads that step, the caller's included.
        """
        self.model = model
        self.frame_skip = frame_skip
        self.has_contact_forces = has_contact_forces
        self.num_threads = num_threads
        self.rows = [mujoco.MjData(model) for _ in range(num_envs)]
        self.is_stale = False
        self._pool: ThreadPoolExecutor | None = None
        self._ctrl = np.zeros((num_envs, model.nu))
        self._ctrl_rows = list(self._ctrl)
        self._ctrl_targets = [row.ctrl for row in self.rows]
        self._sources: dict[str, list[np.ndarray]] = {}
        self._buffers: dict[str, np.ndarray] = {}
        for name in names:
            views = [getattr(row, name) for row in self.rows]
            self._sources[name] = [view.reshape(-1) for view in views]
            self._buffers[name] = np.zeros((num_envs, *views[0].shape))
        self._flat = {name: buffer.reshape(-1) for name, buffer in self._buffers.items()}
        self.fields: dict[str, Array] = dict(self._buffers)

    def reset(self, rows: Sequence[int], qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put rows at [K, nq] positions and [K, nv] velocities, at rest otherwise."""
        for row, position, velocity in zip(rows, qpos, qvel, strict=True):
            data = self.rows[row]
            mujoco.mj_resetData(self.model, data)
            data.qpos[:] = position
            data.qvel[:] = velocity
            mujoco.mj_forward(self.model, data)

    def step(self, action: np.ndarray, rows: Sequence[int] | None) -> None:
        """Apply [N, nu] actions for a whole step in some rows, or in all (None)."""
        self._ctrl[...] = action
        self.is_stale = False
        chosen = range(len(self.rows)) if rows is None else rows
        threads = min(self.num_threads, len(chosen))
        if threads <= 1:
            self._advance(chosen)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.num_threads - 1, thread_name_prefix="mujoco")
        bounds = [len(chosen) * part // threads for part in range(threads + 1)]
        chunks = [chosen[low:high] for low, high in pairwise(bounds)]
        pending = [self._pool.submit(self._advance, chunk) for chunk in chunks[1:]]
        self._advance(chunks[0])
        for future in pending:
            future.result()

    def _advance(self, rows: Sequence[int]) -> None:
        step, finish, model, frame_skip = mujoco.mj_step, mujoco.mj_rnePostConstraint, self.model, self.frame_skip
        data, targets, sources = self.rows, self._ctrl_targets, self._ctrl_rows
        needs_finish = self.has_contact_forces
        for row in rows:
            targets[row][:] = sources[row]
            step(model, data[row], frame_skip)
            if needs_finish:
                finish(model, data[row])

    def read(self, rows: Sequence[int] | None = None) -> None:
        """Bring `fields` up to date in some rows, or in all (None)."""
        if rows is None:
            for name, views in self._sources.items():
                np.concatenate(views, out=self._flat[name])
            return
        for name, views in self._sources.items():
            buffer = self._buffers[name]
            for row in rows:
                buffer[row].reshape(-1)[:] = views[row]

    def get_state(self) -> dict[str, Tensor]:
        """Copy everything that later steps depend on."""
        state = np.empty((len(self.rows), mujoco.mj_stateSize(self.model, _STATE)))
        for row, data in zip(state, self.rows):
            mujoco.mj_getState(self.model, data, row, _STATE)
        return {"integration": torch.from_numpy(state), **self._saved_fields()}

    def _saved_fields(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(field.copy()) for name, field in self.fields.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `get_state` gave.

        Raises:
            UsageError: it belongs to another model or another number of environments.
        """
        expected = (len(self.rows), mujoco.mj_stateSize(self.model, _STATE))
        rows = state["integration"].detach().cpu().numpy()
        if rows.shape != expected:
            raise UsageError(f"the saved physics state has shape {rows.shape}, this environment needs {expected}")
        for row, data in zip(np.ascontiguousarray(rows, dtype=np.float64), self.rows):
            mujoco.mj_setState(self.model, data, row, _STATE)
        for name, field in self.fields.items():
            field[...] = state[name].cpu().numpy()
        self.is_stale = True

    def copy_to(self, data: Any, row: int) -> None:
        """Copy a row into a `mujoco.MjData`, for drawing."""
        mujoco.mj_copyData(data, self.model, self.rows[row])
        if self.is_stale:
            mujoco.mj_forward(self.model, data)

    def close(self) -> None:
        """Give threads back."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def default_threads(num_envs: int, step_cost: int) -> int:
    """Choose a number of threads: as many as cores, but each with enough rows to be worth waking.

    Args:
        num_envs: rows.
        step_cost: physics time of one step in units of HalfCheetah's.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, num_envs * step_cost // _WORTH_A_THREAD))
