"""The two MuJoCo tasks in three dimensions, which also read contact forces: Ant and Humanoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from .mujoco_tasks import Fields, MujocoTask, Outcome, fallen, planar, sum_like_numpy


class _Body(MujocoTask):
    """A free body that is paid for moving along x and for staying up."""

    has_contact_forces = True
    skipped = 2
    start_keys: ClassVar[tuple[str, ...]] = ("x_position", "y_position", "distance_from_origin")

    def measure(self, now: Fields) -> dict[str, Tensor]:
        """Return the position of the root and its distance from the origin."""
        return planar(now)

    def healthy(self, now: Fields) -> Tensor:
        """Tell whether the body is up, [N] bool."""
        raise NotImplementedError

    def contact_cost(self, now: Fields) -> Tensor:
        """Return the price of external contact forces, [N]."""
        raise NotImplementedError

    def act(self, track: Tensor, now: Fields, action: Tensor) -> Outcome:
        """Pay velocity along x and being up, less the squares of action and contact forces."""
        place, velocity = self._moved(track, now)
        x_velocity, y_velocity = velocity[:, 0].clone(), velocity[:, 1].clone()
        healthy = self.healthy(now)
        survive = healthy.to(place.dtype) * float(self.options["healthy_reward"])
        forward = x_velocity * self.forward_weight
        control, contact = self._control_cost(action, now), self.contact_cost(now)
        parts = {"reward_forward": forward, "reward_ctrl": -control, "reward_contact": -contact}
        moves = {"x_velocity": x_velocity, "y_velocity": y_velocity}
        info = {**self.measure(now), **moves, **parts, "reward_survive": survive}
        reward = forward + survive - (control + contact)
        return Outcome(self.observe(now), reward, fallen(healthy, self.options), place, info)


class Ant(_Body):
    """Walk on four legs; ends when the torso leaves its range of heights."""

    class_name = "gymnasium.envs.mujoco.ant_v5:AntEnv"
    fields = ("qpos", "qvel", "xpos", "cfrc_ext")
    is_velocity_normal = True
    step_cost = 6

    def __init__(self, env: Any, options: Mapping[str, Any]) -> None:
        super().__init__(env, options)
        self.body = int(env.data.body(options["main_body"]).id)
        self.contact_weight = float(options["contact_cost_weight"])
        self.force_range = tuple(float(bound) for bound in options["contact_force_range"])

    def views(self, fields: Fields) -> dict[str, Tensor]:
        """Measure the velocity of the main body, where it was at the last evaluation of the kinematics."""
        return {**super().views(fields), "place": fields["xpos"][:, self.body, :2]}

    def observe(self, now: Fields) -> Tensor:
        """Return positions, velocities and, unless left out, clipped contact forces of every body."""
        parts = [now["free"], now["qvel"]]
        if self.options["include_cfrc_ext_in_observation"]:
            parts.append(now["cfrc_ext"][:, 1:].clamp(*self.force_range).flatten(1))
        return torch.cat(parts, 1)

    def healthy(self, now: Fields) -> Tensor:
        """Tell whether everything is finite and the torso's height in its range, [N] bool."""
        low, high = self.options["healthy_z_range"]
        height = now["qpos"][:, 2]
        finite = torch.isfinite(torch.cat((now["qpos"], now["qvel"]), 1)).all(1)
        return finite & (height >= low) & (height <= high)

    def contact_cost(self, now: Fields) -> Tensor:
        """Return the weighted square of the clipped forces, [N]."""
        forces = now["cfrc_ext"].clamp(*self.force_range).flatten(1)
        return sum_like_numpy(forces * forces) * self.contact_weight


class Humanoid(_Body):
    """Walk on two legs; ends when the torso leaves its range of heights."""

    class_name = "gymnasium.envs.mujoco.humanoid_v5:HumanoidEnv"
    fields = ("qpos", "qvel", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ten_length", "ten_velocity")
    start_keys: ClassVar[tuple[str, ...]] = (*_Body.start_keys, "tendon_length", "tendon_velocity")
    step_cost = 8

    def __init__(self, env: Any, options: Mapping[str, Any]) -> None:
        super().__init__(env, options)
        self.contact_weight = float(options["contact_cost_weight"])
        self.cost_range = tuple(float(bound) for bound in options["contact_cost_range"])
        self.masses = torch.from_numpy(env.model.body_mass.copy())
        self.mass = float(env.model.body_mass[:, None].sum())

    def track(self, now: Fields) -> Tensor:
        """Return the centre of mass, [N, 2]."""
        places = now["xipos"][:, :, :2]
        return sum_like_numpy(self.masses.to(places)[:, None] * places) / self.mass

    def measure(self, now: Fields) -> dict[str, Tensor]:
        """Return the position of the root, its distance from the origin, and the tendons."""
        tendons = {"tendon_length": now["ten_length"].clone(), "tendon_velocity": now["ten_velocity"].clone()}
        return {**super().measure(now), **tendons}

    def observe(self, now: Fields) -> Tensor:
        """Return positions, velocities and, unless left out, inertias, body velocities, actuator and contact forces."""
        parts = [now["free"], now["qvel"]]
        if self.options["include_cinert_in_observation"]:
            parts.append(now["cinert"][:, 1:].flatten(1))
        if self.options["include_cvel_in_observation"]:
            parts.append(now["cvel"][:, 1:].flatten(1))
        if self.options["include_qfrc_actuator_in_observation"]:
            parts.append(now["qfrc_actuator"][:, 6:])
        if self.options["include_cfrc_ext_in_observation"]:
            parts.append(now["cfrc_ext"][:, 1:].flatten(1))
        return torch.cat(parts, 1)

    def healthy(self, now: Fields) -> Tensor:
        """Tell whether the torso's height is in its range, [N] bool."""
        low, high = self.options["healthy_z_range"]
        height = now["qpos"][:, 2]
        return (height > low) & (height < high)

    def contact_cost(self, now: Fields) -> Tensor:
        """Return the weighted square of the forces, [N], kept in its range."""
        forces = now["cfrc_ext"].flatten(1)
        return (sum_like_numpy(forces * forces) * self.contact_weight).clamp(*self.cost_range)

    def _control_cost(self, action: Tensor, now: Fields) -> Tensor:
        # Gymnasium reads the physics' own copy of the action here, which is float64.
        return super()._control_cost(action.to(now["qpos"].dtype), now)
