"""The two MuJoCo tasks in three dimensions, which also read contact forces: Ant and Humanoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .mujoco_arrays import Array, Arrays
from .mujoco_tasks import Fields, MujocoTask, PhysicsStep, fallen

_TENDONS = {"tendon_length": "ten_length", "tendon_velocity": "ten_velocity"}


def _flat(field: Array) -> Array:
    """View [N, A, B] as [N, A * B], which must not copy."""
    return field.reshape(field.shape[0], -1)


class _Body(MujocoTask):
    """A free body that is paid for moving along x and for staying up."""

    has_contact_forces = True
    skipped = 2
    start_keys: ClassVar[tuple[str, ...]] = ("x_position", "y_position", "distance_from_origin")

    def measure(self, now: Fields) -> dict[str, Array]:
        """Return the position of the root and its distance from the origin."""
        return self._planar(now)

    def views(self, fields: Fields) -> dict[str, Array]:
        """Add the contact forces as one row of numbers for each row, "forces"."""
        return {**super().views(fields), "forces": _flat(fields["cfrc_ext"])}

    def healthy(self, now: Fields) -> Array:
        """Return whether the body is up, [N] bool."""
        raise NotImplementedError

    def contact_cost(self, now: Fields) -> Array:
        """Return the price of external contact forces, [N]."""
        raise NotImplementedError

    def act(self, track: Array, now: Fields, action: Array) -> PhysicsStep:
        """Pay velocity along x and being up, less the squares of action and contact forces."""
        place, velocity = self._moved(track, now)
        x_velocity, y_velocity = self._split(velocity)
        healthy = self.healthy(now)
        survive = self.arrays.pay(healthy, float(self.options["healthy_reward"]), place)
        forward = x_velocity * self.forward_weight
        control, contact = self._control_cost(action, now), self.contact_cost(now)
        parts = {"reward_forward": forward, "reward_ctrl": -control, "reward_contact": -contact}
        moves = {"x_velocity": x_velocity, "y_velocity": y_velocity}
        info = {**self.measure(now), **moves, **parts, "reward_survive": survive}
        reward = forward + survive - (control + contact)
        return PhysicsStep(self.observe(now), reward, fallen(healthy, self.options), place, info)


class Ant(_Body):
    """Walk on four legs; ends when the torso leaves its range of heights."""

    class_name = "gymnasium.envs.mujoco.ant_v5:AntEnv"
    fields = ("qpos", "qvel", "xpos", "cfrc_ext")
    is_velocity_normal = True
    step_cost = 6

    def __init__(self, env: Any, options: Mapping[str, Any], arrays: Arrays) -> None:
        super().__init__(env, options, arrays)
        self.body = int(env.data.body(options["main_body"]).id)
        self.contact_weight = float(options["contact_cost_weight"])
        self.force_range = tuple(float(bound) for bound in options["contact_force_range"])

    def views(self, fields: Fields) -> dict[str, Array]:
        """Measure the velocity of the main body, where it was at the last evaluation of the kinematics."""
        return {**super().views(fields), "place": fields["xpos"][:, self.body, :2]}

    def observe(self, now: Fields) -> Array:
        """Return positions, velocities and, unless left out, clipped contact forces of every body."""
        parts = [now["free"], now["qvel"]]
        if self.options["include_cfrc_ext_in_observation"]:
            parts.append(self.arrays.clip(now["forces"][:, 6:], *self.force_range))
        return self.arrays.concatenate(parts)

    def healthy(self, now: Fields) -> Array:
        """Return whether everything is finite and the torso's height in its range, [N] bool."""
        low, high = self.options["healthy_z_range"]
        height = now["qpos"][:, 2]
        finite = self.arrays.finite(now["qpos"]).all(1) & self.arrays.finite(now["qvel"]).all(1)
        return finite & (height >= low) & (height <= high)

    def contact_cost(self, now: Fields) -> Array:
        """Return the weighted square of the clipped forces, [N]."""
        forces = self.arrays.clip(now["forces"], *self.force_range)
        return self.arrays.total(forces * forces) * self.contact_weight


class Humanoid(_Body):
    """Walk on two legs; ends when the torso leaves its range of heights."""

    class_name = "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv"
    fields = ("qpos", "qvel", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ten_length", "ten_velocity")
    start_keys: ClassVar[tuple[str, ...]] = (*_Body.start_keys, "tendon_length", "tendon_velocity")
    step_cost = 8

    def __init__(self, env: Any, options: Mapping[str, Any], arrays: Arrays) -> None:
        super().__init__(env, options, arrays)
        self.contact_weight = float(options["contact_cost_weight"])
        self.cost_range = tuple(float(bound) for bound in options["contact_cost_range"])
        self.masses = env.model.body_mass[:, None].copy()
        self.mass = float(env.model.body_mass[:, None].sum())

    def views(self, fields: Fields) -> dict[str, Array]:
        """Add inertias and velocities of the bodies as one row of numbers each, and what the centre of mass needs."""
        places = fields["xipos"][:, :, :2]
        bodies = {"inertias": _flat(fields["cinert"])[:, 10:], "velocities": _flat(fields["cvel"])[:, 6:]}
        return {**super().views(fields), **bodies, "places": places, "masses": self.arrays.convert(self.masses, places)}

    def track(self, now: Fields) -> Array:
        """Return the centre of mass, [N, 2]."""
        return self.arrays.total(now["masses"] * now["places"]) / self.mass

    def measure(self, now: Fields) -> dict[str, Array]:
        """Return the position of the root, its distance from the origin, and the tendons."""
        tendons = {name: self.arrays.copy(now[field]) for name, field in _TENDONS.items()}
        return {**super().measure(now), **tendons}

    def observe(self, now: Fields) -> Array:
        """Return positions, velocities and, unless left out, inertias, body velocities, actuator and contact forces."""
        parts = [now["free"], now["qvel"]]
        if self.options["include_cinert_in_observation"]:
            parts.append(now["inertias"])
        if self.options["include_cvel_in_observation"]:
            parts.append(now["velocities"])
        if self.options["include_qfrc_actuator_in_observation"]:
            parts.append(now["qfrc_actuator"][:, 6:])
        if self.options["include_cfrc_ext_in_observation"]:
            parts.append(now["forces"][:, 6:])
        return self.arrays.concatenate(parts)

    def healthy(self, now: Fields) -> Array:
        """Return whether the torso's height is in its range, [N] bool."""
        low, high = self.options["healthy_z_range"]
        height = now["qpos"][:, 2]
        return (height > low) & (height < high)

    def contact_cost(self, now: Fields) -> Array:
        """Return the weighted square of the forces, [N], kept in its range."""
        forces = now["forces"]
        return self.arrays.clip(self.arrays.total(forces * forces) * self.contact_weight, *self.cost_range)

    def _control_cost(self, action: Array, now: Fields) -> Array:
        # Gymnasium reads the physics' own copy of the action here, which is float64.
        return super()._control_cost(self.arrays.convert(action, now["qpos"]), now)
