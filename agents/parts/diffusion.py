"""Denoising diffusion of actions: noise schedule, loss and one step of ancestral sampling (Ho et al. 2020, DDPM)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

VP_BETA_MIN, VP_BETA_MAX = 0.1, 10.0


class NoiseSchedule(NamedTuple):
    """How much noise each of T steps adds.

    Attributes:
        beta: [T] variance added by a step.
        alpha: [T] 1 - beta.
        alpha_hat: [T] product of alpha up to and including a step: the share of the action's variance that is left.
    """

    beta: Tensor
    alpha: Tensor
    alpha_hat: Tensor


def variance_preserving_schedule(num_steps: int, device: torch.device | str = "cpu") -> NoiseSchedule:
    """Return alpha_t = exp(-b_min / T - (b_max - b_min) (2 t - 1) / (2 T^2)) for t = 1..T.

    The variance-preserving schedule of Song et al. 2021 with b_min = 0.1 and b_max = 10, in T steps as IDQL
    (Hansen-Estruch et al. 2023) and EXPO (Dong et al. 2025) use it.

    Args:
        num_steps: number of steps T.
        device: where the schedule lies.
    """
    device = torch.device(device)
    if device.type == "cpu" or torch.compiler.is_compiling():
        return _schedule(num_steps, device)
    return _kept_schedule(num_steps, device)


def _schedule(num_steps: int, device: torch.device) -> NoiseSchedule:
    t = torch.arange(1, num_steps + 1, dtype=torch.float64)
    slope = 0.5 * (VP_BETA_MAX - VP_BETA_MIN) * (2 * t - 1) / num_steps**2
    alpha = torch.exp(-VP_BETA_MIN / num_steps - slope)
    columns = (1 - alpha, alpha, alpha.cumprod(0))
    return NoiseSchedule(*(x.to(dtype=torch.float32, device=device) for x in columns))


# an accelerator keeps it: three copies to it otherwise, in each step
_kept_schedule = functools.lru_cache(maxsize=64)(_schedule)


def diffuse(action: Tensor, noise: Tensor, alpha_hat: Tensor) -> Tensor:
    """Return sqrt(alpha_hat) action + sqrt(1 - alpha_hat) noise (Ho et al. 2020, equation 4).

    Args:
        action: [B, A].
        noise: [B, A] standard normal.
        alpha_hat: [B] or [] share of variance that is left, of the step that each row is at.
    """
    alpha_hat = alpha_hat.unsqueeze(-1)
    return alpha_hat.sqrt() * action + (1 - alpha_hat).sqrt() * noise


def ddpm_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Return mean_B sum_A (predicted - noise)^2 (Ho et al. 2020, equation 14), both [B, A]."""
    return (predicted - noise).square().sum(-1).mean()


def ddpm_step(x: Tensor, predicted: Tensor, schedule: NoiseSchedule, t: int, noise: Tensor | None) -> Tensor:
    """Take one step of ancestral sampling, from step t to t - 1, and clip it to [-1, 1].

    x <- (x - (1 - alpha_t) / sqrt(1 - alpha_hat_t) predicted) / sqrt(alpha_t) + sqrt(beta_t) noise
    (Ho et al. 2020, algorithm 2; the clipping as in IDQL).

    Args:
        x: [..., A] action at step t, the last of the schedule being nearly pure noise.
        predicted: [..., A] noise that the network sees in it.
        schedule: of T steps.
        t: index of the step, T - 1 down to 0.
        noise: [..., A] standard normal; left out in the last step, t = 0.
    """
    alpha = schedule.alpha[t]
    x = (x - (1 - alpha) / (1 - schedule.alpha_hat[t]).sqrt() * predicted) / alpha.sqrt()
    if t > 0 and noise is not None:
        x = torch.addcmul(x, schedule.beta[t].sqrt(), noise)
    return x.clamp_(-1, 1)
