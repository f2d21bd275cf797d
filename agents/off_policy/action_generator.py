"""An expressive policy trained by imitation: a network that turns noise into actions, by diffusion or by flow matching."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from polyathlon.agents.parts.diffusion import ddpm_loss, ddpm_step, diffuse, variance_preserving_schedule
from polyathlon.agents.parts.flow_matching import euler_step, flow_matching_loss, interpolate
from polyathlon.envs.errors import UsageError, unknown_name

KINDS = ("diffusion", "flow")
TIME_FEATURES = 64
EXPANSION = 4
# rows x widest layer of one piece of a batch on a CPU: two megabytes, so that layers stay in the caches
CHUNK_NUMBERS = 1 << 19


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
        """Return the features [B, 2 size] of times [B]."""
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
        """Return [B, width]."""
        out: Tensor = h + self.narrow(silu(self.widen(self.norm(h))))
        return out


class ActionGenerator(nn.Module):
    """Turns noise into actions of the data in T steps.

    The network is that of IDQL (Hansen-Estruch et al. 2023), which EXPO takes: learned Fourier features of the time, next
    to the action and the observation, through residual blocks. It is trained by imitation alone; no value reaches it.

    Args:
        obs_size: O.
        action_size: A.
        widths: one equal width for each residual block.
        kind: "diffusion" (DDPM, Ho et al. 2020) or "flow" (flow matching, Lipman et al. 2023).
        num_steps: number of steps T from noise to an action.

    Raises:
        UsageError: the kind is unknown, or widths or steps are impossible.
    """

    optimizer: torch.optim.Optimizer

    def __init__(self, obs_size: int, action_size: int, widths: Sequence[int], kind: str, num_steps: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown_name("base policy", kind, KINDS)
        if not widths or len(set(widths)) != 1:
            raise UsageError(f"the base policy needs one or more residual blocks of equal width, got {list(widths)}")
        if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
            raise UsageError(f"base_steps must be a positive integer, got {num_steps!r}")
        self.obs_size, self.action_size, self.width = obs_size, action_size, widths[0]
        self.kind, self.num_steps = kind, num_steps
        self.time = TimeFeatures(TIME_FEATURES)
        self.first = nn.Linear(action_size + obs_size + 2 * TIME_FEATURES, self.width)
        self.blocks = nn.ModuleList(ResidualBlock(self.width) for _ in widths)
        self.last = nn.Linear(self.width, action_size)

    def forward(self, obs: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the noise (or the velocity) [B, A] seen in x [B, A] at steps t [B], for observations [B, O]."""
        h = self.first(torch.cat([x, obs, self.time(t)], -1))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.last(silu(h))
        return out

    def loss(self, obs: Tensor, action: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the imitation loss of actions [B, A] in [-1, 1] seen at observations [B, O], with fresh noise and times."""
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        rows = action.shape[0]
        if self.kind == "flow":
            t = torch.rand(rows, generator=generator, device=action.device)
            return flow_matching_loss(self(obs, interpolate(noise, action, t), t * self.num_steps), noise, action)
        index = torch.randint(self.num_steps, (rows,), generator=generator, device=action.device)
        alpha_hat = variance_preserving_schedule(self.num_steps, action.device).alpha_hat[index]
        return ddpm_loss(self(obs, diffuse(action, noise, alpha_hat), index.float()), noise)


class ActionSampler:
    """Draws actions without gradients: what the samples of a state, or all of them, share is computed once.

    Args:
        generator: the network; its present parameters are used at each call.
        dtype: type of the matrix products.
    """

    def __init__(self, generator: ActionGenerator, dtype: torch.dtype = torch.float32) -> None:
        self.network, self.dtype = generator, dtype
        self._schedule = variance_preserving_schedule(generator.num_steps, generator.first.weight.device)
        self._memory: tuple[Tensor, Tensor, Tensor] | None = None

    def draw_noise(self, rows: int, samples: int, generator: torch.Generator | None) -> Tensor:
        """Draw what sampling needs, [S, rows, samples, A]: the start, and one fresh noise for each later step of diffusion."""
        device = self.network.first.weight.device
        return torch.randn(self.noise_shape(rows, samples), generator=generator, device=device)

    def noise_shape(self, rows: int, samples: int) -> torch.Size:
        """Return the shape (S, rows, samples, A) of the noise that so many samples take."""
        count = self.network.num_steps if self.network.kind == "diffusion" else 1
        return torch.Size((count, rows, samples, self.network.action_size))

    @torch.no_grad()
    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Turn noise into actions.

        Args:
            obs: [B, O].
            noise: [S, B, N, A] or [S, 1, N, A] (then the same for all rows), from `draw_noise`.

        Returns:
            N actions [B, N, A] in [-1, 1] for each observation.
        """
        rows, samples = obs.shape[0], noise.shape[2]
        noise = noise.expand(-1, rows, -1, -1)
        weights = self._prepare()
        piece = rows
        if obs.device.type == "cpu":
            piece = max(1, CHUNK_NUMBERS // (samples * EXPANSION * self.network.width))
        out = torch.empty(rows, samples, self.network.action_size, device=obs.device)
        for start in range(0, rows, piece):
            part = slice(start, min(start + piece, rows))
            out[part] = self._run(obs[part], noise[:, part], weights)
        return out

    def _prepare(self) -> list[Tensor]:
        """Return the weights in the type of the products, with the normalisations' scales and shifts folded in."""
        network = self.network
        device = network.first.weight.device
        actions, states = network.action_size, network.obs_size
        t = torch.arange(network.num_steps, device=device, dtype=torch.float32)
        by_action, by_state, by_time = network.first.weight.split([actions, states, 2 * TIME_FEATURES], 1)
        found = [by_action.t(), by_state.t(), linear(network.time(t), by_time, network.first.bias)]
        for block in network.blocks:
            assert isinstance(block, ResidualBlock)
            found.append((block.widen.weight * block.norm.weight).t())
            found.append(torch.addmv(block.widen.bias, block.widen.weight, block.norm.bias))
            found += [block.narrow.weight.t(), block.narrow.bias]
        found += [network.last.weight.t(), network.last.bias]
        return [x.to(self.dtype) for x in found]

    def _buffers(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        if self._memory is None or self._memory[0].shape[0] < rows:
            empty, width = self.network.first.weight.new_empty, self.network.width
            self._memory = (
                empty(rows, width, dtype=self.dtype),
                empty(rows, EXPANSION * width, dtype=self.dtype),
                empty(rows, width, dtype=self.dtype),
            )
        first, second, third = self._memory
        return first[:rows], second[:rows], third[:rows]

    def _run(self, obs: Tensor, noise: Tensor, weights: list[Tensor]) -> Tensor:
        """Return actions [b, N, A] for a piece of the rows."""
        network = self.network
        rows, samples, size = noise.shape[1:]
        by_action, by_state, by_time = weights[:3]
        state = obs.to(self.dtype) @ by_state
        hidden, wide, narrow = self._buffers(rows * samples)
        grid = hidden.view(rows, samples, -1)
        x = noise[0].reshape(rows * samples, size)
        steps = range(network.num_steps)
        for i in steps if network.kind == "flow" else reversed(steps):
            torch.mm(x.to(self.dtype), by_action, out=hidden)
            grid.add_((state + by_time[i]).unsqueeze(1))
            for k in range(3, len(weights) - 2, 4):
                normal = torch.native_layer_norm(hidden, hidden.shape[-1:], None, None, 1e-5)[0]
                torch.addmm(weights[k + 1], normal, weights[k], out=wide)
                silu(wide, inplace=True)
                torch.addmm(weights[k + 3], wide, weights[k + 2], out=narrow)
                hidden.add_(narrow)
            found = torch.addmm(weights[-1], silu(hidden, inplace=True), weights[-2]).float()
            if network.kind == "flow":
                x = euler_step(x, found, network.num_steps)
            else:
                fresh = noise[network.num_steps - i].reshape(rows * samples, size) if i else None
                x = ddpm_step(x, found, self._schedule, i, fresh)
        return x.clamp(-1, 1).view(rows, samples, size)
