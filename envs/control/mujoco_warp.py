"""The physics of `mujoco_warp` (float32, all rows at once, made for GPUs) behind the same interface as MuJoCo's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError, require

# What a step depends on beyond the model.
_STATE = ("time", "qpos", "qvel", "act", "ctrl", "qacc_warmstart")


def _supported(model: Any) -> Any:
    """Replace the one solver that `mujoco_warp` lacks (PGS, Humanoid's) by Newton's, for the same constraints."""
    if model.opt.solver != mujoco.mjtSolver.mjSOL_PGS.value:
        return model
    changed = copy.copy(model)
    changed.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON.value
    return changed


class WarpPhysics:
    """Rows as worlds of `mujoco_warp`, close to MuJoCo's own numbers within float32.

    Humanoid's constraints, which Gymnasium solves approximately (PGS), are solved exactly here (Newton).
    """

    def __init__(
        self,
        model: Any,
        names: Sequence[str],
        num_envs: int,
        frame_skip: int,
        has_contact_forces: bool,
        device: torch.device,
    ) -> None:
        """Build the worlds; the first step compiles kernels, which takes up to a minute and is cached on disk.

        Args:
            model: `mujoco.MjModel`.
            names: the fields of `MjData` to read.
            num_envs: number of environments N.
            frame_skip: physics steps of one step.
            has_contact_forces: compute `cfrc_ext` after each step.
            device: "cpu" or a CUDA device.

        Raises:
            ImportError: `mujoco_warp` is not installed.
            UsageError: the device is of another type.
        """
        self._warp = require("warp", "warp")
        self._engine = require("mujoco_warp", "warp")
        if device.type not in ("cpu", "cuda"):
            raise UsageError(f"backend 'warp' computes on 'cpu' or 'cuda', got device {str(device)!r}")
        self.num_envs, self.frame_skip, self.has_contact_forces = num_envs, frame_skip, has_contact_forces
        self.device = device
        self._place = self._warp.get_device(str(device))
        with self._warp.ScopedDevice(self._place):
            self._model = self._engine.put_model(_supported(model))
            self._data = self._engine.make_data(model, nworld=num_envs)
        self._live = {name: self._warp.to_torch(getattr(self._data, name)) for name in {*names, *_STATE}}
        shapes = {name: getattr(mujoco.MjData(model), name).shape for name in names}
        self._views = {name: self._live[name].reshape(num_envs, *shape) for name, shape in shapes.items()}
        self.fields = {name: torch.zeros_like(view) for name, view in self._views.items()}
        self._graph: Any = None

    def reset(self, rows: Sequence[int], qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put rows at [K, nq] positions and [K, nv] velocities, at rest otherwise."""
        chosen = torch.as_tensor(list(rows), device=self.device)
        for name in _STATE:
            self._live[name][chosen] = 0
        self._live["qpos"][chosen] = torch.as_tensor(qpos, dtype=torch.float32, device=self.device)
        self._live["qvel"][chosen] = torch.as_tensor(qvel, dtype=torch.float32, device=self.device)
        # The kinematics can only be evaluated for all rows, so what the others start from is put back afterwards.
        kept = self._live["qacc_warmstart"].clone()
        with self._warp.ScopedDevice(self._place):
            self._engine.forward(self._model, self._data)
        others = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        others[chosen] = False
        self._live["qacc_warmstart"][others] = kept[others]
        if self.has_contact_forces:
            self._live["cfrc_ext"][chosen] = 0

    def step(self, action: np.ndarray, rows: Sequence[int] | None) -> None:
        """Apply [N, nu] actions for a whole step in all rows; those not in `rows` are left where they were."""
        before = None if rows is None else self.get_state()
        self._live["ctrl"].copy_(torch.from_numpy(action))
        self._run(self._advance)
        if before is not None:
            idle = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
            idle[list(rows or ())] = False
            for name in _STATE:
                self._live[name][idle] = before[name][idle]

    def _advance(self) -> None:
        for _ in range(self.frame_skip):
            self._engine.step(self._model, self._data)
        if self.has_contact_forces:
            self._engine.rne_postconstraint(self._model, self._data)

    def _run(self, function: Callable[[], None]) -> None:
        """Call a function; on a GPU record it as a graph at the second call, when all its kernels are loaded."""
        with self._warp.ScopedDevice(self._place):
            if self.device.type == "cpu" or self._graph is None:
                function()
            if self.device.type == "cpu":
                return
            if self._graph is None:
                with self._warp.ScopedCapture() as capture:
                    function()
                self._graph = capture.graph
            else:
                self._warp.capture_launch(self._graph)

    def read(self, rows: Sequence[int] | None = None) -> None:
        """Bring `fields` up to date in some rows, or in all (None)."""
        self._synchronize()
        for name, view in self._views.items():
            if rows is None:
                self.fields[name].copy_(view)
            else:
                self.fields[name][list(rows)] = view[list(rows)]

    def _synchronize(self) -> None:
        if self.device.type != "cpu":
            self._warp.synchronize_device(self._place)

    def get_state(self) -> dict[str, Tensor]:
        """Copy everything that later steps depend on."""
        self._synchronize()
        read = {f"read_{name}": field.clone() for name, field in self.fields.items()}
        return {**{name: self._live[name].clone() for name in _STATE}, **read}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `get_state` gave.

        Raises:
            UsageError: it belongs to another model or another number of environments.
        """
        if state["qpos"].shape != self._live["qpos"].shape:
            expected, given = tuple(self._live["qpos"].shape), tuple(state["qpos"].shape)
            raise UsageError(f"the saved positions have shape {given}, this environment needs {expected}")
        for name in _STATE:
            self._live[name].copy_(state[name])
        for name, field in self.fields.items():
            field.copy_(state[f"read_{name}"])

    def copy_to(self, data: Any, row: int) -> None:
        """Copy a row into a `mujoco.MjData`, for drawing."""
        self._synchronize()
        data.qpos[:] = self._live["qpos"][row].cpu().numpy()
        data.qvel[:] = self._live["qvel"][row].cpu().numpy()

    def close(self) -> None:
        """Nothing to give back: memory goes with the object."""
        self._graph = None
