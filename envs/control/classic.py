"""Classic control as tensors: twins of Gymnasium's CartPole, Pendulum, Acrobot, MountainCar and MountainCarContinuous.

Dynamics, rewards, bounds and starting states are those of `gymnasium.envs.classic_control`; components of a state are
kept apart, [N] each, so that every operation runs over contiguous numbers.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.envs import random
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor import TensorEnv

from .pictures import BLACK, BLUE, GREEN, GREY, RED, Canvas


def read_numbers(options: dict[str, Any] | None, defaults: dict[str, float]) -> list[float]:
    """Return the reset options of a task as numbers, its defaults where they are not given.

    Raises:
        UsageError: an option is unknown or not a finite number.
    """
    given = options or {}
    for name, value in given.items():
        if name not in defaults:
            raise unknown_name("reset option", str(name), defaults)
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise UsageError(f"the reset option {name!r} must be a finite number, got {value!r}")
    return [float(given.get(name, default)) for name, default in defaults.items()]


def read_bounds(options: dict[str, Any] | None, low: float, high: float) -> tuple[float, float]:
    """Return the reset options "low" and "high".

    Raises:
        UsageError: an option is unknown or no number, or `low` exceeds `high`.
    """
    first, last = read_numbers(options, {"low": low, "high": high})
    if first > last:
        raise UsageError(f"the reset option 'low' ({first}) must not exceed 'high' ({last})")
    return first, last


class ClassicTask(TensorEnv):
    """What the classic tasks share."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}

    def draw(self, keys: Tensor, count: int, low: float, high: float) -> tuple[Tensor, ...]:
        """Return `count` numbers [N] each, uniform in [low, high)."""
        numbers = low + (high - low) * random.uniform(keys, 0, (count,), self.dtype)
        return tuple(column.contiguous() for column in numbers.unbind(1))

    def no_time(self, keys: Tensor) -> Tensor:
        """Return [N] int64 zeros."""
        return torch.zeros(keys.shape[0], dtype=torch.int64, device=keys.device)

    def box(self, high: list[float], low: list[float] | None = None) -> spaces.Box:
        """Return a Box of the task's type; symmetric when only `high` is given."""
        top = np.array(high, self.numpy_dtype)
        return spaces.Box(-top if low is None else np.array(low, self.numpy_dtype), top, dtype=self.numpy_dtype)


class CartPoleState(NamedTuple):
    """Position [m], velocity [m/s], angle from upright [rad] and angular velocity [rad/s], [N] each."""

    key: Tensor
    t: Tensor
    x: Tensor
    x_dot: Tensor
    theta: Tensor
    theta_dot: Tensor


class CartPole(ClassicTask):
    """Balance a pole on a cart by pushing left (0) or right (1); Gymnasium's CartPole-v1.

    Observation: position, velocity, angle, angular velocity. Reward 1 a step (with `sutton_barto_reward`, 0 and -1 at
    the fall). The episode ends beyond 2.4 m or 12 degrees and is cut after 500 steps. All numbers start uniformly in
    [-0.05, 0.05]; reset options "low" and "high" change that.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 50}
    max_episode_steps = 500

    def __init__(
        self,
        *,
        sutton_barto_reward: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class."""
        super().__init__(device=device, dtype=dtype)
        self.sutton_barto_reward = sutton_barto_reward
        self.x_limit, self.theta_limit = 2.4, 12 * 2 * math.pi / 360
        self.observation_space = self.box([2 * self.x_limit, np.inf, 2 * self.theta_limit, np.inf])
        self.action_space = spaces.Discrete(2)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> CartPoleState:
        """Start an episode for each key, [N, 2] int64; see `TensorEnv.reset`."""
        return CartPoleState(keys, self.no_time(keys), *self.draw(keys, 4, *read_bounds(options, -0.05, 0.05)))

    def step(self, state: CartPoleState, action: Tensor) -> tuple[CartPoleState, Tensor, Tensor]:
        """Push for 0.02 s (Euler); see `TensorEnv.step`."""
        tau, mass, pole_mass, half_length = 0.02, 1.1, 0.1, 0.5
        force = action * 20.0 - 10.0
        cos, sin = torch.cos(state.theta), torch.sin(state.theta)
        push = (force + pole_mass * half_length * state.theta_dot.square() * sin) / mass
        theta_acc = (9.8 * sin - cos * push) / (half_length * (4.0 / 3.0 - pole_mass * cos.square() / mass))
        x_acc = push - pole_mass * half_length * theta_acc * cos / mass
        x = state.x + tau * state.x_dot
        theta = state.theta + tau * state.theta_dot
        x_dot, theta_dot = state.x_dot + tau * x_acc, state.theta_dot + tau * theta_acc
        terminated = (x.abs() > self.x_limit) | (theta.abs() > self.theta_limit)
        reward = -terminated.to(torch.float32) if self.sutton_barto_reward else torch.ones_like(x, dtype=torch.float32)
        return CartPoleState(state.key, state.t + 1, x, x_dot, theta, theta_dot), reward, terminated

    def observe(self, state: CartPoleState, player: Tensor | None = None) -> Tensor:
        """Return [N, 4]; see the class."""
        return torch.stack((state.x, state.x_dot, state.theta, state.theta_dot), 1)

    def render(self, state: CartPoleState, i: int) -> np.ndarray:
        """Draw cart and pole of row i as [H, W, 3] uint8."""
        canvas = Canvas(-2.4, 2.4, -0.8, 1.6)
        x, theta = float(state.x[i]), float(state.theta[i])
        canvas.line((-2.4, 0.0), (2.4, 0.0), 0.02, GREY)
        canvas.box(x - 0.25, x + 0.25, -0.15, 0.15, BLACK)
        canvas.line((x, 0.1), (x + math.sin(theta), 0.1 + math.cos(theta)), 0.1, BLUE)
        return canvas.pixels


class PendulumState(NamedTuple):
    """Angle from upright [rad] and angular velocity [rad/s], [N] each."""

    key: Tensor
    t: Tensor
    theta: Tensor
    theta_dot: Tensor


class Pendulum(ClassicTask):
    """Swing a pendulum up and hold it with a torque in [-2, 2] N m; Gymnasium's Pendulum-v1.

    Observation: cosine and sine of the angle, angular velocity. Reward -(angle^2 + 0.1 velocity^2 + 0.001 torque^2).
    The episode is cut after 200 steps. It starts uniformly within pi rad and 1 rad/s; reset options "x_init" and
    "y_init" change that. `g` is gravity in m/s^2.
    """

    max_episode_steps = 200

    def __init__(
        self, *, g: float = 10.0, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32
    ) -> None:
        """Make the task; see the class.

        Raises:
            UsageError: `g` is not a finite number.
        """
        super().__init__(device=device, dtype=dtype)
        (self.g,) = read_numbers({"g": g}, {"g": 10.0})
        self.observation_space = self.box([1.0, 1.0, 8.0])
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> PendulumState:
        """Start an episode for each key, [N, 2] int64; see `TensorEnv.reset`."""
        angle, speed = read_numbers(options, {"x_init": math.pi, "y_init": 1.0})
        first, second = self.draw(keys, 2, -1.0, 1.0)
        return PendulumState(keys, self.no_time(keys), angle * first, speed * second)

    def step(self, state: PendulumState, action: Tensor) -> tuple[PendulumState, Tensor, Tensor]:
        """Turn for 0.05 s; see `TensorEnv.step`."""
        torque = action.reshape(-1).clamp(-2.0, 2.0)
        angle = torch.remainder(state.theta + math.pi, 2 * math.pi) - math.pi
        cost = angle.square() + 0.1 * state.theta_dot.square() + 0.001 * torque.square()
        acceleration = 1.5 * self.g * torch.sin(state.theta) + 3.0 * torque
        theta_dot = (state.theta_dot + acceleration * 0.05).clamp(-8.0, 8.0)
        after = PendulumState(state.key, state.t + 1, state.theta + theta_dot * 0.05, theta_dot)
        return after, -cost, torch.zeros_like(state.t, dtype=torch.bool)

    def observe(self, state: PendulumState, player: Tensor | None = None) -> Tensor:
        """Return [N, 3]; see the class."""
        return torch.stack((torch.cos(state.theta), torch.sin(state.theta), state.theta_dot), 1)

    def render(self, state: PendulumState, i: int) -> np.ndarray:
        """Draw the pendulum of row i as [H, W, 3] uint8."""
        canvas = Canvas(-1.3, 1.3, -1.3, 1.3)
        theta = float(state.theta[i])
        canvas.line((0.0, 0.0), (-math.sin(theta), math.cos(theta)), 0.2, RED)
        canvas.disc((0.0, 0.0), 0.05, BLACK)
        return canvas.pixels


class AcrobotState(NamedTuple):
    """Angle of the first link from hanging and of the second from the first [rad], and their velocities, [N] each."""

    key: Tensor
    t: Tensor
    theta1: Tensor
    theta2: Tensor
    speed1: Tensor
    speed2: Tensor


class Acrobot(ClassicTask):
    """Swing a two-link arm above a line with a torque of -1, 0 or 1 N m at its joint; Gymnasium's Acrobot-v1.

    Observation: cosine and sine of both angles, both velocities. Reward -1 a step, 0 at the goal, where the episode
    ends; it is cut after 500 steps. All numbers start uniformly in [-0.1, 0.1]; reset options "low" and "high" change
    that.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 15}
    max_episode_steps = 500

    def __init__(self, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32) -> None:
        """Make the task; see the class."""
        super().__init__(device=device, dtype=dtype)
        self.observation_space = self.box([1.0, 1.0, 1.0, 1.0, 4 * math.pi, 9 * math.pi])
        self.action_space = spaces.Discrete(3)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> AcrobotState:
        """Start an episode for each key, [N, 2] int64; see `TensorEnv.reset`."""
        return AcrobotState(keys, self.no_time(keys), *self.draw(keys, 4, *read_bounds(options, -0.1, 0.1)))

    def step(self, state: AcrobotState, action: Tensor) -> tuple[AcrobotState, Tensor, Tensor]:
        """Turn for 0.2 s (one Runge-Kutta step of order 4); see `TensorEnv.step`."""
        torque = (action - 1).to(self.dtype)
        start = (state.theta1, state.theta2, state.speed1, state.speed2)
        k1 = _acrobot_slope(start, torque)
        k2 = _acrobot_slope(_moved(start, k1, 0.1), torque)
        k3 = _acrobot_slope(_moved(start, k2, 0.1), torque)
        k4 = _acrobot_slope(_moved(start, k3, 0.2), torque)
        slope = tuple(a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4))
        theta1, theta2, speed1, speed2 = _moved(start, slope, 0.2 / 6.0)
        theta1, theta2 = _wrapped(theta1), _wrapped(theta2)
        speed1, speed2 = speed1.clamp(-4 * math.pi, 4 * math.pi), speed2.clamp(-9 * math.pi, 9 * math.pi)
        terminated = -torch.cos(theta1) - torch.cos(theta2 + theta1) > 1.0
        after = AcrobotState(state.key, state.t + 1, theta1, theta2, speed1, speed2)
        return after, terminated.to(torch.float32) - 1.0, terminated

    def observe(self, state: AcrobotState, player: Tensor | None = None) -> Tensor:
        """Return [N, 6]; see the class."""
        one, two = state.theta1, state.theta2
        columns = (torch.cos(one), torch.sin(one), torch.cos(two), torch.sin(two), state.speed1, state.speed2)
        return torch.stack(columns, 1)

    def render(self, state: AcrobotState, i: int) -> np.ndarray:
        """Draw the arm of row i as [H, W, 3] uint8."""
        canvas = Canvas(-2.2, 2.2, -2.2, 2.2)
        one, both = float(state.theta1[i]), float(state.theta1[i] + state.theta2[i])
        elbow = (math.sin(one), -math.cos(one))
        canvas.line((-2.2, 1.0), (2.2, 1.0), 0.03, GREY)
        canvas.line((0.0, 0.0), elbow, 0.2, BLUE)
        canvas.line(elbow, (elbow[0] + math.sin(both), elbow[1] - math.cos(both)), 0.2, GREEN)
        canvas.disc((0.0, 0.0), 0.06, BLACK)
        canvas.disc(elbow, 0.06, BLACK)
        return canvas.pixels


Four = tuple[Tensor, ...]


def _moved(start: Four, slope: Four, time: float) -> Four:
    return tuple(a + time * b for a, b in zip(start, slope))


def _wrapped(angle: Tensor) -> Tensor:
    """Bring an angle into [-pi, pi], leaving one that is inside untouched."""
    turns = torch.ceil((angle.abs() - math.pi) / (2 * math.pi)).clamp(min=0.0)
    return angle - turns * (2 * math.pi) * torch.sign(angle)


def _acrobot_slope(position: Four, torque: Tensor) -> Four:
    """Return the time derivatives of both angles and speeds (Sutton and Barto, masses, lengths and inertias of 1)."""
    theta1, theta2, speed1, speed2 = position
    cos2, sin2 = torch.cos(theta2), torch.sin(theta2)
    d1 = 3.5 + cos2
    d2 = 1.25 + 0.5 * cos2
    phi2 = 4.9 * torch.cos(theta1 + theta2 - math.pi / 2)
    phi1 = -0.5 * speed2.square() * sin2 - speed2 * speed1 * sin2 + 14.7 * torch.cos(theta1 - math.pi / 2) + phi2
    acceleration2 = (torque + d2 / d1 * phi1 - 0.5 * speed1.square() * sin2 - phi2) / (1.25 - d2.square() / d1)
    return speed1, speed2, -(d2 * acceleration2 + phi1) / d1, acceleration2


class CarState(NamedTuple):
    """Position and velocity along the road, [N] each."""

    key: Tensor
    t: Tensor
    x: Tensor
    speed: Tensor


class MountainCar(ClassicTask):
    """Rock a car out of a valley by driving left (0), not at all (1) or right (2); Gymnasium's MountainCar-v0.

    Observation: position in [-1.2, 0.6], velocity within 0.07. Reward -1 a step. The episode ends at position 0.5 with
    a velocity of at least `goal_velocity` and is cut after 200 steps. The car starts at rest, uniformly in
    [-0.6, -0.4]; reset options "low" and "high" change that.
    """

    max_episode_steps = 200
    goal = 0.5

    def __init__(
        self,
        *,
        goal_velocity: float = 0.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see the class.

        Raises:
            UsageError: `goal_velocity` is not a finite number.
        """
        super().__init__(device=device, dtype=dtype)
        (self.goal_velocity,) = read_numbers({"goal_velocity": goal_velocity}, {"goal_velocity": 0.0})
        self.observation_space = self.box([0.6, 0.07], [-1.2, -0.07])
        self.action_space = spaces.Discrete(3)

    def reset(self, keys: Tensor, options: dict[str, Any] | None = None) -> CarState:
        """Start an episode for each key, [N, 2] int64; see `TensorEnv.reset`."""
        (x,) = self.draw(keys, 1, *read_bounds(options, -0.6, -0.4))
        return CarState(keys, self.no_time(keys), x, torch.zeros_like(x))

    def drive(self, state: CarState, push: Tensor) -> tuple[CarState, Tensor]:
        """Roll one step under the acceleration `push` [N]; return the state after and whether the goal is reached."""
        speed = (state.speed + push - 0.0025 * torch.cos(3 * state.x)).clamp(-0.07, 0.07)
        x = (state.x + speed).clamp(-1.2, 0.6)
        speed = speed.masked_fill((x <= -1.2) & (speed < 0), 0.0)
        terminated = (x >= self.goal) & (speed >= self.goal_velocity)
        return CarState(state.key, state.t + 1, x, speed), terminated

    def step(self, state: CarState, action: Tensor) -> tuple[CarState, Tensor, Tensor]:
        """Drive one step; see `TensorEnv.step`."""
        after, terminated = self.drive(state, (action - 1).to(self.dtype) * 0.001)
        return after, torch.full_like(after.x, -1.0, dtype=torch.float32), terminated

    def observe(self, state: CarState, player: Tensor | None = None) -> Tensor:
        """Return [N, 2]; see the class."""
        return torch.stack((state.x, state.speed), 1)

    def render(self, state: CarState, i: int) -> np.ndarray:
        """Draw the valley and the car of row i as [H, W, 3] uint8."""
        canvas = Canvas(-1.2, 0.6, 0.0, 1.2)
        canvas.below(np.sin(3 * canvas.x[0]) * 0.45 + 0.55, GREY)
        x = float(state.x[i])
        flag = math.sin(3 * self.goal) * 0.45 + 0.55
        canvas.line((self.goal, flag), (self.goal, flag + 0.12), 0.015, GREEN)
        canvas.disc((x, math.sin(3 * x) * 0.45 + 0.59), 0.04, BLUE)
        return canvas.pixels


class MountainCarContinuous(MountainCar):
    """Rock a car out of a valley with a force in [-1, 1]; Gymnasium's MountainCarContinuous-v0.

    Observation and start as in `MountainCar`. Reward -0.1 action^2 a step and 100 at the goal, position 0.45. The
    episode is cut after 999 steps.
    """

    max_episode_steps = 999
    goal = 0.45

    def __init__(
        self,
        *,
        goal_velocity: float = 0.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        """Make the task; see `MountainCar`."""
        super().__init__(goal_velocity=goal_velocity, device=device, dtype=dtype)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def step(self, state: CarState, action: Tensor) -> tuple[CarState, Tensor, Tensor]:
        """Drive one step; see `TensorEnv.step`."""
        force = action.reshape(-1)
        after, terminated = self.drive(state, force.clamp(-1.0, 1.0) * 0.0015)
        return after, 100.0 * terminated - 0.1 * force.square(), terminated
