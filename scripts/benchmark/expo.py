"""Updates of EXPO and RLPD with 20 critic steps each, against plain PyTorch: autograd and a loop over the ten critics."""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from _harness import Row, compare, here, pinned, write

OBS, ACTION, CRITICS, MIN_CRITICS, UTD = 17, 6, 10, 2, 20
SCALE, GAMMA, TAU, RATE = 0.1, 0.99, 0.005, 3e-4
PLAIN, PLAIN_LOW = "plain loop", "plain loop, autocast to bfloat16"
EAGER, OURS, OURS_LOW = (
    "polyathlon, eager",
    "polyathlon, compiled",
    "polyathlon, compiled, matmul_precision='medium' (bfloat16)",
)


@dataclass(frozen=True)
class Size:
    """Sizes of one comparison: hidden widths, the base policy's blocks, minibatch, candidates, denoising steps."""

    name: str
    widths: tuple[int, ...]
    base: tuple[int, ...]
    batch: int
    samples: int
    steps: int


SIZES = (
    Size("small: 64-64, minibatches of 64", (64, 64), (64, 64), 64, 4, 5),
    Size("medium: 128-128, minibatches of 128", (128, 128), (64, 64), 128, 4, 5),
    Size("EXPO's defaults: 256-256, minibatches of 256", (256, 256), (128, 128, 128), 256, 4, 5),
    Size("the paper's: 256-256-256, minibatches of 256", (256, 256, 256), (256, 256, 256), 256, 8, 10),
)


# ------------------------------------------------------------------------------------------------------------ the peer


def perceptron(sizes: tuple[int, ...], layer_norm: bool) -> nn.Sequential:
    """Stack linear layers with ReLU in between, normalised before it where asked for."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), *([nn.LayerNorm(after)] if layer_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Gaussian(nn.Module):
    """A squashed Gaussian policy."""

    def __init__(self, in_size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = perceptron((in_size, *widths, 2 * ACTION), False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a sample and its log-density."""
        mean, log_std = self.net(x).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        u = normal.rsample()
        correction = 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))
        return torch.tanh(u), (normal.log_prob(u) - correction).sum(-1)


class Block(nn.Module):
    """A residual block of the denoiser."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add what the block finds."""
        return x + self.net(x)


class Denoiser(nn.Module):
    """The noise in an action at a step."""

    def __init__(self, base: tuple[int, ...]) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(32) * 0.2)
        self.time = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 128))
        blocks = [Block(width) for width in base]
        self.net = nn.Sequential(nn.Linear(ACTION + OBS + 128, base[0]), *blocks, nn.SiLU(), nn.Linear(base[0], ACTION))

    def forward(self, obs: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the noise [B, A]."""
        angle = 2 * math.pi * t[:, None] * self.frequency
        time = self.time(torch.cat([angle.cos(), angle.sin()], -1))
        return self.net(torch.cat([x, obs, time], -1))


class Plain:
    """The update as one writes it first: modules, autograd, one optimiser a network, a loop over the critics."""

    def __init__(self, size: Size, expressive: bool, autocast: bool) -> None:
        self.size, self.expressive, self.autocast = size, expressive, autocast
        pair = OBS + ACTION
        self.critics = nn.ModuleList(perceptron((pair, *size.widths, 1), True) for _ in range(CRITICS))
        self.targets = copy.deepcopy(self.critics)
        self.actor = Gaussian(pair if expressive else OBS, size.widths)
        self.base = Denoiser(size.base)
        self.average = copy.deepcopy(self.base)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        modules = (self.critics, self.actor, self.base)
        self.critic_adam, self.actor_adam, self.base_adam = (torch.optim.Adam(m.parameters(), lr=RATE) for m in modules)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr=RATE)
        t = torch.arange(1, size.steps + 1)
        self.alpha = torch.exp(-0.1 / size.steps - 0.5 * 9.9 * (2 * t - 1) / size.steps**2)
        self.alpha_hat = self.alpha.cumprod(0)

    def min_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return the smallest value of a random few of the target critics."""
        pair = torch.cat([obs, action], -1)
        chosen = torch.randperm(CRITICS)[:MIN_CRITICS].tolist()
        return torch.stack([self.targets[i](pair)[:, 0] for i in chosen]).amin(0)

    def denoise(self, obs: Tensor) -> Tensor:
        """Draw an action for each row by diffusion."""
        x = torch.randn(obs.shape[0], ACTION)
        for i in reversed(range(self.size.steps)):
            eps = self.base(obs, x, torch.full((obs.shape[0],), float(i)))
            x = (x - (1 - self.alpha[i]) / (1 - self.alpha_hat[i]).sqrt() * eps) / self.alpha[i].sqrt()
            if i:
                x = x + (1 - self.alpha[i]).sqrt() * torch.randn_like(x)
            x = x.clamp(-1, 1)
        return x

    def best(self, obs: Tensor) -> Tensor:
        """Return the best of the samples and their edits."""
        number = self.size.samples
        repeated = obs.repeat_interleave(number, 0)
        tried = self.denoise(repeated)
        edited = (tried + SCALE * self.actor(torch.cat([repeated, tried], -1))[0]).clamp(-1, 1)
        both = torch.cat([tried.view(-1, number, ACTION), edited.view(-1, number, ACTION)], 1)
        q = self.min_q(obs.repeat_interleave(2 * number, 0), both.flatten(0, 1)).view(-1, 2 * number)
        return both[torch.arange(len(both)), q.argmax(1)]

    def next_value(self, next_obs: Tensor) -> Tensor:
        """Return what the next states are worth."""
        if self.expressive:
            return self.min_q(next_obs, self.best(next_obs))
        action, logp = self.actor(next_obs)
        return self.min_q(next_obs, action) - self.log_alpha.exp() * logp

    def step(self, rows: Tensor) -> None:
        """Take the critics' steps, then the others'."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            self._step(rows)

    def _step(self, rows: Tensor) -> None:
        for part in rows:
            obs, action, next_obs, reward, done = part.split([OBS, ACTION, OBS, 1, 1], 1)
            with torch.no_grad():
                y = reward[:, 0] + GAMMA * (1 - done[:, 0]) * self.next_value(next_obs)
            pair = torch.cat([obs, action], -1)
            loss = sum(nn.functional.mse_loss(critic(pair)[:, 0].float(), y) for critic in self.critics) / CRITICS
            self.critic_adam.zero_grad()
            loss.backward()
            self.critic_adam.step()
            with torch.no_grad():
                for p, q in zip(self.critics.parameters(), self.targets.parameters()):
                    q.mul_(1 - TAU).add_(p, alpha=TAU)
        if self.expressive:
            self._imitate(obs, action)
        seen = torch.cat([obs, action], -1) if self.expressive else obs
        sample, logp = self.actor(seen)
        acted = action + SCALE * sample if self.expressive else sample
        pair = torch.cat([obs, acted], -1)
        q = torch.stack([critic(pair)[:, 0] for critic in self.critics]).mean(0)
        self.actor_adam.zero_grad()
        (self.log_alpha.exp().detach() * logp - q).mean().backward()
        self.actor_adam.step()
        self.alpha_adam.zero_grad()
        (-self.log_alpha * (logp.detach() - ACTION / 2).mean()).backward()
        self.alpha_adam.step()

    def _imitate(self, obs: Tensor, action: Tensor) -> None:
        noise, index = torch.randn_like(action), torch.randint(self.size.steps, (len(action),))
        left = self.alpha_hat[index][:, None]
        eps = self.base(obs, left.sqrt() * action + (1 - left).sqrt() * noise, index.float())
        self.base_adam.zero_grad()
        (eps - noise).square().sum(-1).mean().backward()
        self.base_adam.step()
        with torch.no_grad():
            for p, q in zip(self.base.parameters(), self.average.parameters()):
                q.lerp_(p, 0.001)


# ----------------------------------------------------------------------------------------------------------- ourselves


def ours(size: Size, expressive: bool, precision: str, compile: bool) -> Callable[[Tensor], None]:
    """Return our update on the same sizes, after a first one."""
    import gymnasium as gym
    import numpy as np

    from polyathlon.agents import EXPO, RLPD

    class Nothing(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (OBS,), np.float32)
        action_space = gym.spaces.Box(-1, 1, (ACTION,), np.float32)

    widths: Any = list(size.widths)
    settings: dict[str, Any] = {"batch_size": size.batch, "matmul_precision": precision, "device": "cpu", "seed": 0}
    settings |= {"gradient_steps": UTD, "compile": compile}
    if expressive:
        settings |= {"num_samples": size.samples, "num_edits": size.samples, "base_steps": size.steps}
        widths = {"pi": widths, "qf": widths, "base": list(size.base)}
    agent = (EXPO if expressive else RLPD)(
        "MlpPolicy", Nothing(), learning_rate=RATE, policy_kwargs={"net_arch": widths}, **settings
    )
    agent._ready()

    def update(rows: Tensor) -> None:
        for part in rows:
            agent.engine.step({**agent._fields(agent.replay.split(part)), **agent._numbers()})

    update(torch.zeros(UTD, size.batch, 2 * OBS + ACTION + 2))
    return update


def section(size: Size, expressive: bool, pairs: int, updates: int) -> list[Row]:
    """Compare in one setting."""
    torch.manual_seed(0)
    rows = torch.randn(UTD, size.batch, 2 * OBS + ACTION + 2).clamp(-1, 1)
    rows[..., -1] = 0
    subjects = {
        PLAIN: Plain(size, expressive, False).step,
        PLAIN_LOW: Plain(size, expressive, True).step,
        EAGER: ours(size, expressive, "highest", False),
        OURS: ours(size, expressive, "highest", True),
        OURS_LOW: ours(size, expressive, "medium", True),
    }

    def repeat(step: Callable[[Tensor], None]) -> Callable[[], float]:
        def work() -> float:
            for _ in range(updates):
                step(rows)
            return updates

        return work

    return compare({name: here(repeat(step)) for name, step in subjects.items()}, PLAIN, pairs)


NOTES = f"""An update: {UTD} steps of ten critics, each on a minibatch of its own, then one of everything else (EXPO: base policy, edit
policy, temperature; RLPD: actor, temperature). {OBS} observations, {ACTION} actions, layer normalisation, targets from two
critics. The plain loop is what one writes first in PyTorch: `nn.Module`s, autograd, `torch.optim.Adam`, a loop over the
critics (over the two that are asked for, in targets), candidates of a minibatch in one batch. One core, float32 unless said.
Runs of 20,000 gradient steps and more, a thousand of these updates, are compiled. Where the networks are large, matrix products take most of
the time, and no rearrangement makes these fewer: at 256-256 those of an EXPO update are about 118 GFLOP (80 of them the base policy's
samples), 1.1 s at the 108 GFLOP/s of MKL, which the plain loop takes, and .5 s at the 230 of oneDNN, which gradient steps take on
this processor. bfloat16 products are what is left there, and the plain loop under autocast shows what they give without the rest."""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="interleaved turns that count")
    parser.add_argument("--sizes", nargs="*", help="measure sizes whose name begins so")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    args = parser.parse_args()
    sections: dict[str, list[Row]] = {}
    with pinned(1):
        for size in SIZES:
            if args.sizes and not any(size.name.startswith(name) for name in args.sizes):
                continue
            is_small = max(size.widths) < 256
            for name, expressive in (("EXPO", True), ("RLPD", False)):
                is_slow = expressive and size is SIZES[-1]
                pairs = min(args.pairs, 2) if is_slow else args.pairs
                table = section(size, expressive, pairs, 3 if is_small else 1)
                found = {row.name: row.ratio for row in table}
                heading = (
                    f"{name}, {size.name} (eager {found[EAGER]:.1f} times the plain loop, compiled {found[OURS]:.1f}, in bfloat16 "
                    f"{found[OURS_LOW]:.1f})"
                )
                sections[heading] = table
                print(heading, file=sys.stderr, flush=True)
    if args.dry:
        return
    write("expo", "Updates of EXPO and RLPD against a plain loop", sections, unit="update", notes=NOTES)


if __name__ == "__main__":
    main()
