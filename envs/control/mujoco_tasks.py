"""Observations and rewards of Gymnasium's MuJoCo tasks (v5), on batches of tensors, for every physics back end.

Source of every formula: `gymnasium/envs/mujoco/*_v5.py`. Sums run in numpy's order and types, so that the results on
float64 fields are Gymnasium's to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

Fields = Mapping[str, Tensor]


class Outcome(NamedTuple):
    """What acting gives.

    Attributes:
        obs: [N, D] observation.
        reward: [N].
        terminated: [N] bool; None where episodes only end by the clock.
        track: [N] or [N, 2] where the body is, from which the next step measures its velocity.
        info: Gymnasium's info, each [N] or [N, k].
    """

    obs: Tensor
    reward: Tensor
    terminated: Tensor | None
    track: Tensor
    info: dict[str, Tensor]


def sum_like_numpy(values: Tensor) -> Tensor:
    """Sum over axis 1 in numpy's order, which Gymnasium's numbers depend on to the last bit (on the CPU; elsewhere any).

    Args:
        values: [N, K] or [N, K, D].

    Returns:
        [N] or [N, D].
    """
    if values.device.type != "cpu":
        return values.sum(1)
    return torch.from_numpy(np.add.reduce(values.numpy(), axis=1))


class MujocoTask:
    """One task: which fields of the physics it reads, what it observes, what it pays.

    Attributes:
        class_name: Gymnasium's class, "module:Class".
        fields: fields of `mujoco.MjData` that are read.
        has_contact_forces: `cfrc_ext` is read, which costs an extra pass after each step.
        is_velocity_normal: initial velocity noise is normal; else uniform.
        skipped: positions that the observation leaves out by default.
        start_keys: infos that a reset gives as well.
        step_cost: physics time of one step, roughly, in units of HalfCheetah's.
    """

    class_name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    has_contact_forces: ClassVar[bool] = False
    is_velocity_normal: ClassVar[bool] = False
    skipped: ClassVar[int] = 1
    start_keys: ClassVar[tuple[str, ...]] = ("x_position",)
    step_cost: ClassVar[int] = 1

    def __init__(self, env: Any, options: Mapping[str, Any]) -> None:
        """Read the options and the model.

        Args:
            env: Gymnasium's environment, which holds the model and the initial state.
            options: all keyword arguments of Gymnasium's class, defaults included.
        """
        self.options = dict(options)
        self.dt = float(env.dt)
        self.init_qpos: np.ndarray = env.init_qpos.copy()
        self.init_qvel: np.ndarray = env.init_qvel.copy()
        self.forward_weight = float(options["forward_reward_weight"])
        self.ctrl_weight = float(options["ctrl_cost_weight"])
        self.noise_scale = float(options["reset_noise_scale"])
        self.first_position = self.skipped if options["exclude_current_positions_from_observation"] else 0

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the start of an episode as Gymnasium does.

        Returns:
            Positions [nq] and velocities [nv], float64.
        """
        scale = self.noise_scale
        qpos = self.init_qpos + rng.uniform(low=-scale, high=scale, size=self.init_qpos.size)
        if self.is_velocity_normal:
            return qpos, self.init_qvel + scale * rng.standard_normal(self.init_qvel.size)
        return qpos, self.init_qvel + rng.uniform(low=-scale, high=scale, size=self.init_qvel.size)

    def views(self, fields: Fields) -> dict[str, Tensor]:
        """Add the parts of the fields that every step reads; on few rows slicing costs as much as computing.

        Args:
            fields: the fields of the back end, which keep their memory.

        Returns:
            The fields and "x", "y" (the first two positions, [N]), "place" (see `track`) and "free" (observed positions).
        """
        qpos = fields["qpos"]
        parts = {"x": qpos[:, 0], "y": qpos[:, 1], "place": qpos[:, 0], "free": qpos[:, self.first_position :]}
        return {**fields, **parts}

    def track(self, now: Fields) -> Tensor:
        """Return where the body is, [N] or [N, 2], as a copy."""
        return now["place"].clone()

    def observe(self, now: Fields) -> Tensor:
        """Return the observation, [N, D], as a copy."""
        return torch.cat((now["free"], now["qvel"]), 1)

    def measure(self, now: Fields) -> dict[str, Tensor]:
        """Return the info that a reset gives, as copies."""
        raise NotImplementedError

    def act(self, track: Tensor, now: Fields, action: Tensor) -> Outcome:
        """Judge a step.

        Args:
            track: where the body was before.
            now: the fields after.
            action: [N, nu] as the agent gave it, float32 or float64.
        """
        raise NotImplementedError

    def _control_cost(self, action: Tensor, now: Fields) -> Tensor:
        return sum_like_numpy(action * action) * self.ctrl_weight

    def _moved(self, track: Tensor, now: Fields) -> tuple[Tensor, Tensor]:
        """Return the place now and the velocity since `track`, both [N] or [N, 2]."""
        place = self.track(now)
        return place, (place - track) / self.dt


class HalfCheetah(MujocoTask):
    """Run forward; never ends."""

    class_name = "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv"
    is_velocity_normal = True

    def measure(self, now: Fields) -> dict[str, Tensor]:
        """Return the position along the track."""
        return {"x_position": now["x"].clone()}

    def act(self, track: Tensor, now: Fields, action: Tensor) -> Outcome:
        """Pay velocity, less the square of the action."""
        place, x_velocity = self._moved(track, now)
        forward, cost = x_velocity * self.forward_weight, self._control_cost(action, now)
        reward = forward - cost
        info = {**self.measure(now), "x_velocity": x_velocity, "reward_forward": forward, "reward_ctrl": -cost}
        return Outcome(self.observe(now), reward, None, place, info)


class Swimmer(MujocoTask):
    """Swim along x; never ends."""

    class_name = "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv"
    skipped = 2
    start_keys = ("x_position", "y_position", "distance_from_origin")

    def views(self, fields: Fields) -> dict[str, Tensor]:
        """Measure the velocity of the head in both directions."""
        return {**super().views(fields), "place": fields["qpos"][:, :2]}

    def measure(self, now: Fields) -> dict[str, Tensor]:
        """Return the position of the head and its distance from the origin."""
        return planar(now)

    def act(self, track: Tensor, now: Fields, action: Tensor) -> Outcome:
        """Pay velocity along x, less the square of the action."""
        place, velocity = self._moved(track, now)
        x_velocity, y_velocity = velocity[:, 0].clone(), velocity[:, 1].clone()
        forward, cost = x_velocity * self.forward_weight, self._control_cost(action, now)
        reward = forward - cost
        moves = {"x_velocity": x_velocity, "y_velocity": y_velocity}
        info = {**self.measure(now), **moves, "reward_forward": forward, "reward_ctrl": -cost}
        return Outcome(self.observe(now), reward, None, place, info)


class Walker2d(MujocoTask):
    """Walk on two legs in a plane; ends with a fall."""

    class_name = "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv"
    start_keys = ("x_position", "z_distance_from_origin")
    step_cost = 3

    def measure(self, now: Fields) -> dict[str, Tensor]:
        """Return the position and the height above the start."""
        return {"x_position": now["x"].clone(), "z_distance_from_origin": now["y"] - float(self.init_qpos[1])}

    def observe(self, now: Fields) -> Tensor:
        """Return positions and velocities; the latter clipped to [-10, 10]."""
        return torch.cat((now["free"], now["qvel"].clamp(-10, 10)), 1)

    def healthy(self, now: Fields) -> Tensor:
        """Tell whether height and angle are in their ranges, [N] bool."""
        height, angle = now["y"], now["qpos"][:, 2]
        (min_z, max_z), (min_angle, max_angle) = self.options["healthy_z_range"], self.options["healthy_angle_range"]
        return (height > min_z) & (height < max_z) & (angle > min_angle) & (angle < max_angle)

    def act(self, track: Tensor, now: Fields, action: Tensor) -> Outcome:
        """Pay velocity and being upright, less the square of the action."""
        place, x_velocity = self._moved(track, now)
        healthy = self.healthy(now)
        survive = healthy.to(place.dtype) * float(self.options["healthy_reward"])
        forward, cost = x_velocity * self.forward_weight, self._control_cost(action, now)
        parts = {"reward_forward": forward, "reward_ctrl": -cost, "reward_survive": survive}
        info = {**self.measure(now), "x_velocity": x_velocity, **parts}
        return Outcome(self.observe(now), forward + survive - cost, fallen(healthy, self.options), place, info)


class Hopper(Walker2d):
    """Hop on one leg in a plane; ends with a fall."""

    class_name = "gymnasium.envs.mujoco.hopper_v5:HopperEnv"
    step_cost = 2

    def healthy(self, now: Fields) -> Tensor:
        """Tell whether height, angle and every other coordinate are in their ranges, [N] bool."""
        low, high = self.options["healthy_state_range"]
        state = torch.cat((now["qpos"][:, 2:], now["qvel"]), 1)
        return super().healthy(now) & ((state > low) & (state < high)).all(1)


def planar(now: Fields) -> dict[str, Tensor]:
    """Return the infos on where the root is, as copies."""
    distance = torch.linalg.vector_norm(now["qpos"][:, :2], dim=1)
    return {"x_position": now["x"].clone(), "y_position": now["y"].clone(), "distance_from_origin": distance}


def fallen(healthy: Tensor, options: Mapping[str, Any]) -> Tensor | None:
    """Return where episodes end, [N] bool, or None if being unhealthy ends none."""
    return ~healthy if options["terminate_when_unhealthy"] else None
