"""An expressive policy trained by imitation: a network that turns noise into actions, by diffusion or by flow matching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from polyathlon.agents.parts.diffusion import ddpm_loss, ddpm_step, diffuse, variance_preserving_schedule
from polyathlon.agents.parts.flow_matching import euler_step, flow_matching_loss, interpolate
from polyathlon.envs.errors import UsageError

KINDS = ("diffusion", "flow")
TIME_FEATURES = 64
EXPANSION = 4


class TimeFeatures(nn.Module):
    """Cosines and sines of learned multiples of the time, through a perceptron with one hidden layer.

    Args:
        size: number of features given, half of them cosines, half sines of 2 pi w t with w ~ N(0, 0.04) at first.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(size // 2) * 0.2)
        self.hidden, self.out = nn.Linear(size, 2 * size), nn.Linear(2 * size, 2 * size)

    def forward(self, t: Tensor) -> Tensor:
        """Return the features [..., 2 size] of times [...]."""
        angle = 2 * math.pi * t.unsqueeze(-1) * self.frequency
        out: Tensor = self.out(silu(self.hidden(torch.cat([angle.cos(), angle.sin()], -1))))
        return out


class ResidualBlock(nn.Module):
    """h + W2 silu(W1 LN(h)), with four times the width inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, EXPANSION * width), nn.Linear(EXPANSION * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Return [..., width]."""
        out: Tensor = h + self.narrow(silu(self.widen(self.norm(h))))
        return out


class ActionGenerator(nn.Module):
    """Sees the noise (or the velocity) in disturbed actions.

    The network is that of IDQL (Hansen-Estruch et al. 2023), which EXPO takes: learned Fourier features of the time, next
    to the action and the observation, through residual blocks. It is trained by imitation alone; no value reaches it.

    Args:
        obs_size: O.
        action_size: A.
        widths: one equal width for each residual block.

    Raises:
        UsageError: the widths are impossible.
    """

    def __init__(self, obs_size: int, action_size: int, widths: Sequence[int]) -> None:
        super().__init__()
        if not widths or len(set(widths)) != 1:
            raise UsageError(f"the base policy needs one or more residual blocks of equal width, got {list(widths)}")
        self.time = TimeFeatures(TIME_FEATURES)
        self.first = nn.Linear(action_size + obs_size + 2 * TIME_FEATURES, widths[0])
        self.blocks = nn.ModuleList(ResidualBlock(widths[0]) for _ in widths)
        self.last = nn.Linear(widths[0], action_size)

    def forward(self, obs: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the noise (or the velocity) [..., A] seen in x [..., A] at steps t [...], for observations [..., O]."""
        time = self.time(t).expand(*x.shape[:-1], -1)
        h = self.first(torch.cat([x, obs, time], -1))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.last(silu(h))
        return out


def imitation_loss(
    base: Any, obs: Tensor, action: Tensor, noise: Tensor, time: Tensor, base_policy: str, base_steps: int
) -> Tensor:
    """Return the loss of actions [B, A] in [-1, 1] seen at observations [B, O].

    Args:
        base: an `ActionGenerator`.
        obs: [B, O].
        action: [B, A].
        noise: [B, A] standard normal.
        time: [B] uniform in [0, 1]: of the flow, or of which step of the diffusion.
        base_policy: "diffusion" (DDPM, Ho et al. 2020) or "flow" (flow matching, Lipman et al. 2023).
        base_steps: number of steps T from noise to an action.
    """
    if base_policy == "flow":
        return flow_matching_loss(base(obs, interpolate(noise, action, time), time * base_steps), noise, action)
    step = (time * base_steps).long().clamp(max=base_steps - 1)
    alpha_hat = variance_preserving_schedule(base_steps, action.device).alpha_hat.to(action.dtype)[step]
    return ddpm_loss(base(obs, diffuse(action, noise, alpha_hat), step.to(action.dtype)), noise)


def generate(base: Any, obs: Tensor, noise: Tensor, base_policy: str, base_steps: int) -> Tensor:
    """Turn noise into N actions [B, N, A] in [-1, 1] for each observation.

    Args:
        base: an `ActionGenerator`.
        obs: [B, O].
        noise: [S, B, N, A] standard normal: the start, and for a diffusion what each later step adds.
        base_policy: see `imitation_loss`.
        base_steps: see `imitation_loss`.
    """
    x, is_flow = noise[0], base_policy == "flow"
    seen = obs.unsqueeze(1).expand(-1, x.shape[1], -1)
    schedule = variance_preserving_schedule(base_steps, x.device)
    for k in range(base_steps):
        i = k if is_flow else base_steps - 1 - k
        found = base(seen, x, x.new_full((1, 1), float(i)))
        x = (
            euler_step(x, found, base_steps)
            if is_flow
            else ddpm_step(x, found, schedule, i, noise[k + 1] if i else None)
        )
    return x.clamp(-1, 1)
