"""Flow matching of actions: a velocity field that carries noise to actions along straight lines (Lipman et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate(noise: Tensor, action: Tensor, t: Tensor) -> Tensor:
    """Return (1 - t) noise + t action, the point of the straight path at time t.

    Args:
        noise: [B, A] standard normal, the start at t = 0.
        action: [B, A] the end at t = 1.
        t: [B] times in [0, 1].
    """
    return torch.lerp(noise, action, t.unsqueeze(-1))


def flow_matching_loss(velocity: Tensor, noise: Tensor, action: Tensor) -> Tensor:
    """Return mean_B sum_A (velocity - (action - noise))^2 (Lipman et al. 2023, equation 23 with sigma_min = 0).

    Args:
        velocity: [B, A] what the network says at the point of the path.
        noise: [B, A] start of the path.
        action: [B, A] end of the path.
    """
    return (velocity - (action - noise)).square().sum(-1).mean()


def euler_step(x: Tensor, velocity: Tensor, num_steps: int) -> Tensor:
    """Return x + velocity / num_steps: one of `num_steps` steps from noise to an action."""
    return torch.add(x, velocity, alpha=1.0 / num_steps)
