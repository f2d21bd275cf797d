"""Observations and rewards of Gymnasium's MuJoCo tasks (v5), on batches of rows, written once for every back end.

Source of every formula: `gymnasium/envs/mujoco/*_v5.py`. Operations keep its order and types, so that the results on
numpy's float64 fields are Gymnasium's to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .mujoco_arrays import Array, Arrays

Fields = Mapping[str, Array]


class PhysicsStep(NamedTuple):
    """What acting gives.

    Attributes:
        obs: [N, D] observation.
        reward: [N].
        terminated: [N] bool; None where episodes only end by the clock.
        track: [N] or [N, 2] where the body is, from which the next step measures its velocity.
        info: Gymnasium's info, each [N] or [N, k].
    """

    obs: Array
    reward: Array
    terminated: Array | None
    track: Array
    info: dict[str, Array]


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

    def __init__(self, env: Any, options: Mapping[str, Any], arrays: Arrays) -> None:
        """Read the options and the model.

        Args:
            env: Gymnasium's environment, which holds the model and the initial state.
            options: all keyword arguments of Gymnasium's class, defaults included.
            arrays: the library of the fields.
        """
        self.arrays = arrays
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

    def views(self, fields: Fields) -> dict[str, Array]:
        """Add the parts of the fields that every step reads; on few rows slicing costs as much as computing.

        Args:
            fields: the fields of the back end, which keep their memory.

        Returns:
            The fields and "x", "y" (the first two positions, [N]), "root" (both, [N, 2]), "place" (see `track`) and "free" (observed positions).
        """
        qpos = fields["qpos"]
        parts = {"x": qpos[:, 0], "y": qpos[:, 1], "place": qpos[:, 0], "free": qpos[:, self.first_position :]}
        parts["root"] = qpos[:, :2]
        return {**fields, **parts}

    def track(self, now: Fields) -> Array:
        """Return where the body is, [N] or [N, 2], as a copy."""
        return self.arrays.copy(now["place"])

    def observe(self, now: Fields) -> Array:
        """Return the observation, [N, D], as a copy."""
        return self.arrays.concatenate((now["free"], now["qvel"]))

    def measure(self, now: Fields) -> dict[str, Array]:
        """Return the info that a reset gives, as copies."""
        raise NotImplementedError

    def act(self, track: Array, now: Fields, action: Array) -> PhysicsStep:
        """Judge a step.

        Args:
            track: where the body was before.
            now: the fields after.
            action: [N, nu] as the agent gave it, float32 or float64.
        """
        raise NotImplementedError

    def _control_cost(self, action: Array, now: Fields) -> Array:
        return self.arrays.total(action * action) * self.ctrl_weight

    def _moved(self, track: Array, now: Fields) -> tuple[Array, Array]:
        """Return the place now and the velocity since `track`, both [N] or [N, 2]."""
        place = self.track(now)
        return place, (place - track) / self.dt

    def _split(self, velocity: Array) -> tuple[Array, Array]:
        return self.arrays.copy(velocity[:, 0]), self.arrays.copy(velocity[:, 1])

    def _planar(self, now: Fields) -> dict[str, Array]:
        """Return the infos on where the root is, as copies."""
        place = {"x_position": self.arrays.copy(now["x"]), "y_position": self.arrays.copy(now["y"])}
        return {**place, "distance_from_origin": self.arrays.length(now["root"])}


class HalfCheetah(MujocoTask):
    """Run forward; never ends."""

    class_name = "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv"
    is_velocity_normal = True

    def measure(self, now: Fields) -> dict[str, Array]:
        """Return the position along the track."""
        return {"x_position": self.arrays.copy(now["x"])}

    def act(self, track: Array, now: Fields, action: Array) -> PhysicsStep:
        """Pay velocity, less the square of the action."""
        place, x_velocity = self._moved(track, now)
        forward, cost = x_velocity * self.forward_weight, self._control_cost(action, now)
        reward = forward - cost
        info = {**self.measure(now), "x_velocity": x_velocity, "reward_forward": forward, "reward_ctrl": -cost}
        return PhysicsStep(self.observe(now), reward, None, place, info)


class Swimmer(MujocoTask):
    """Swim along x; never ends."""

    class_name = "gymnasium.envs.mujoco.swimmer_v5:SwimmerEnv"
    skipped = 2
    start_keys = ("x_position", "y_position", "distance_from_origin")

    def views(self, fields: Fields) -> dict[str, Array]:
        """Measure the velocity of the head in both directions."""
        return {**super().views(fields), "place": fields["qpos"][:, :2]}

    def measure(self, now: Fields) -> dict[str, Array]:
        """Return the position of the head and its distance from the origin."""
        return self._planar(now)

    def act(self, track: Array, now: Fields, action: Array) -> PhysicsStep:
        """Pay velocity along x, less the square of the action."""
        place, velocity = self._moved(track, now)
        x_velocity, y_velocity = self._split(velocity)
        forward, cost = x_velocity * self.forward_weight, self._control_cost(action, now)
        reward = forward - cost
        moves = {"x_velocity": x_velocity, "y_velocity": y_velocity}
        info = {**self.measure(now), **moves, "reward_forward": forward, "reward_ctrl": -cost}
        return PhysicsStep(self.observe(now), reward, None, place, info)


class Walker2d(MujocoTask):
    """Walk on two legs in a plane; ends with a fall."""

    class_name = "gymnasium.envs.mujoco.walker2d_v5:Walker2dEnv"
    start_keys = ("x_position", "z_distance_from_origin")
    step_cost = 3

    def measure(self, now: Fields) -> dict[str, Array]:
        """Return the position and the height above the start."""
        return {"x_position": self.arrays.copy(now["x"]), "z_distance_from_origin": now["y"] - float(self.init_qpos[1])}

    def observe(self, now: Fields) -> Array:
        """Return positions and velocities; the latter clipped to [-10, 10]."""
        return self.arrays.concatenate((now["free"], self.arrays.clip(now["qvel"], -10.0, 10.0)))

    def healthy(self, now: Fields) -> Array:
        """Return whether height and angle are in their ranges, [N] bool."""
        height, angle = now["y"], now["qpos"][:, 2]
        (min_z, max_z), (min_angle, max_angle) = self.options["healthy_z_range"], self.options["healthy_angle_range"]
        return (height > min_z) & (height < max_z) & (angle > min_angle) & (angle < max_angle)

    def act(self, track: Array, now: Fields, action: Array) -> PhysicsStep:
        """Pay velocity and being upright, less the square of the action."""
        place, x_velocity = self._moved(track, now)
        healthy = self.healthy(now)
        survive = self.arrays.pay(healthy, float(self.options["healthy_reward"]), place)
        forward, cost = x_velocity * self.forward_weight, self._control_cost(action, now)
        parts = {"reward_forward": forward, "reward_ctrl": -cost, "reward_survive": survive}
        info = {**self.measure(now), "x_velocity": x_velocity, **parts}
        return PhysicsStep(self.observe(now), forward + survive - cost, fallen(healthy, self.options), place, info)


class Hopper(Walker2d):
    """Hop on one leg in a plane; ends with a fall."""

    class_name = "gymnasium.envs.mujoco.hopper_v5:HopperEnv"
    step_cost = 2

    def healthy(self, now: Fields) -> Array:
        """Return whether height, angle and every other coordinate are in their ranges, [N] bool."""
        low, high = self.options["healthy_state_range"]
        state = self.arrays.concatenate((now["qpos"][:, 2:], now["qvel"]))
        return super().healthy(now) & ((state > low) & (state < high)).all(1)


def fallen(healthy: Array, options: Mapping[str, Any]) -> Array | None:
    """Return where episodes end, [N] bool, or None if being unhealthy ends none."""
    return ~healthy if options["terminate_when_unhealthy"] else None
