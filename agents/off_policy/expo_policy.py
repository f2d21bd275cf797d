"""Networks of EXPO: an expressive base policy, an edit policy, a critic ensemble; and how they choose an action."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import Actor
from torch import Tensor

from polyathlon.agents.parts.candidates import best_candidate, with_edits
from polyathlon.agents.parts.ensembles import random_subset
from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.row_noise import row_uniforms
from polyathlon.envs.errors import UsageError, check_int, check_positive_int, unknown_name

from .action_generator import ActionGenerator, ActionSampler
from .ensemble import CriticEnsemble
from .expo_update import EXPOUpdate
from .gaussian_actor import GaussianActor
from .perceptrons import flat_views
from .rlpd_policy import flatten_ensemble
from .sac_policy import flatten_actor

DEFAULT_ARCH = {"pi": [256, 256], "qf": [256, 256], "base": [128, 128, 128]}


class Candidates(NamedTuple):
    """How many actions are tried, and how far they are edited.

    Attributes:
        samples: number N of samples of the base policy.
        edits: number of them that are tried edited as well.
        edit_scale: largest component of an edit, actions lying in [-1, 1].
    """

    samples: int
    edits: int
    edit_scale: float


class ExpressivePolicy(BasePolicy):
    """The on-the-fly policy: samples of the base policy, some of them edited, and of these the best by the target critics.

    Each time the smallest value of a random few of the critics counts. `deterministic=True` draws the noise, the edits and
    these critics from the observation itself: the same observation is answered with the same action, and over different
    ones the actions are spread as those that are sampled. (The same noise for all observations, and the mean of all critics,
    would take the same wrong turn each time: such a policy stays where it runs into a wall.)

    Args:
        observation_space: a flat Box.
        action_space: a bounded Box.
        lr_schedule: step size of the remaining progress.
        net_arch: hidden widths of all networks, or {"pi": of the edit policy, "qf": of the critics, "base": one equal width
            for each residual block of the base policy}.
        n_critics: number of critics.
        layer_norm: normalise the critics' hidden layers.
        base_policy: "diffusion" or "flow".
        base_steps: number of steps from noise to an action.
        candidates: how many actions are tried.

    Attributes:
        generator: source of the noise of `predict(deterministic=False)`; None is torch's own.

    Raises:
        UsageError: a setting is impossible.
    """

    product_dtype = torch.float32
    num_min_critics = 2
    generator: torch.Generator | None = None

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        n_critics: int = 10,
        layer_norm: bool = True,
        base_policy: str = "diffusion",
        base_steps: int = 5,
        candidates: Sequence[float] = (4, 4, 0.1),
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True)
        self.settings = {
            "net_arch": net_arch,
            "n_critics": n_critics,
            "layer_norm": layer_norm,
            "base_policy": base_policy,
            "base_steps": base_steps,
            "candidates": tuple(candidates),
        }
        self.candidates = Candidates(int(candidates[0]), int(candidates[1]), float(candidates[2]))
        arch, rate = _architecture(net_arch), lr_schedule(1)
        self.obs_size, self.action_size = (int(np.prod(space.shape)) for space in (observation_space, action_space))  # type: ignore[arg-type]
        pair = self.obs_size + self.action_size
        self.base = ActionGenerator(self.obs_size, self.action_size, arch["base"], base_policy, base_steps)
        self.base_average = copy.deepcopy(self.base).requires_grad_(False)
        seen = spaces.Box(-np.inf, np.inf, (pair,), np.float32)
        self.edit = Actor(seen, action_space, list(arch["pi"]), FlattenExtractor(seen), pair)
        self.critic = CriticEnsemble(pair, arch["qf"], n_critics, layer_norm)
        self.critic_target = CriticEnsemble(pair, arch["qf"], n_critics, layer_norm)
        self._learning_rate = rate

    def _get_constructor_parameters(self) -> dict[str, Any]:
        spaces_of = {"observation_space": self.observation_space, "action_space": self.action_space}
        return {**spaces_of, "lr_schedule": self._dummy_schedule, **self.settings}

    def flatten_parameters(self) -> None:
        """Lay the parameters into flat vectors, each with an optimiser of its own; call after moving to the device."""
        rate = self._learning_rate
        self.base.optimizer = FlatAdam(list(self.base.parameters()), lr=rate)
        self._average = flat_views(list(self.base_average.parameters()))
        self._average.copy_(self.base.optimizer.vector.data)
        self._edit_widths = flatten_actor(self.edit, rate)
        self._target = flatten_ensemble(self.critic, self.critic_target, rate)
        assert isinstance(self.edit.optimizer, FlatAdam)
        pair = self.obs_size + self.action_size
        self._editor = GaussianActor(self.edit.optimizer, pair, self._edit_widths, self.action_size, 0)
        self._sampler = ActionSampler(self.base_average)

    def make_update(self, batch_size: int) -> EXPOUpdate:
        """Return the update of these networks."""
        assert isinstance(self.edit.optimizer, FlatAdam)
        return EXPOUpdate(
            self.base,
            self._average,
            self.edit.optimizer,
            self._edit_widths,
            self.critic,
            self._target,
            self.obs_size,
            self.action_size,
            batch_size,
            self.candidates,
            self.num_min_critics,
            self.product_dtype,
        )

    @torch.no_grad()
    def sample(self, obs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw actions [B, A] in [-1, 1] for observations [B, O]."""
        rows, (samples, edits, _) = obs.shape[0], self.candidates
        noise = self._sampler.draw_noise(rows, samples, generator)
        eps = torch.randn(rows * edits, self.action_size, generator=generator, device=obs.device)
        members = random_subset(self.critic.num_critics, self.num_min_critics, generator, obs.device)
        return self._best(obs, noise, eps, members)

    def _answer(self, obs: Tensor) -> Tensor:
        """Return actions [B, A] in [-1, 1] that depend on their observations [B, O] alone."""
        rows, (samples, edits, _) = obs.shape[0], self.candidates
        shape = self._sampler.noise_shape(rows, samples)
        sizes = [shape.numel() // rows, edits * self.action_size, self.critic.num_critics]
        noise, eps, order = row_uniforms(obs, sum(sizes)).split(sizes, 1)
        noise = torch.special.ndtri(noise).float().reshape(rows, shape[0], samples, self.action_size).transpose(0, 1)
        eps = torch.special.ndtri(eps).float().reshape(rows * edits, self.action_size)
        return self._best(obs, noise, eps, order.argsort(1)[:, : self.num_min_critics].t())

    @torch.no_grad()
    def _best(self, obs: Tensor, noise: Tensor, eps: Tensor, members: Tensor) -> Tensor:
        """Return the best candidates [B, A] by critics that are the same for all rows, [M], or each row's own, [M, B]."""
        samples, edits, scale = self.candidates
        tried = self._sampler.sample(obs, noise)
        if edits:
            seen = torch.cat([obs.unsqueeze(1).expand(-1, edits, -1), tried[:, :edits]], 2).flatten(0, 1)
            edit = self._editor.sample(seen, eps)[0].view(-1, edits, self.action_size)
            tried = with_edits(tried, scale * edit)
        count = samples + edits
        if count == 1:
            return tried[:, 0]
        pairs = torch.cat([obs.unsqueeze(1).expand(-1, count, -1), tried], 2).flatten(0, 1)
        q = self.critic_target.values(pairs).view(-1, obs.shape[0], count)
        return best_candidate(
            tried, q[members] if members.dim() == 1 else q.gather(0, members.unsqueeze(2).expand(-1, -1, count))
        )

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        obs = observation.flatten(1).float()
        action = self._answer(obs) if deterministic else self.sample(obs, self.generator)
        return action.reshape(-1, *self.action_space.shape)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator behind: torch's generators cannot be pickled."""
        return {**self.__dict__, "generator": None}


def _architecture(net_arch: Sequence[int] | Mapping[str, Sequence[int]] | None) -> dict[str, list[int]]:
    """Return the widths of each network.

    Raises:
        UsageError: a network is unknown.
    """
    if net_arch is None:
        return DEFAULT_ARCH
    if not isinstance(net_arch, Mapping):
        return {name: list(net_arch) for name in DEFAULT_ARCH}
    for name in net_arch:
        if name not in DEFAULT_ARCH:
            raise unknown_name("network of net_arch", name, DEFAULT_ARCH)
    return {**DEFAULT_ARCH, **{name: list(widths) for name, widths in net_arch.items()}}


def check_candidates(samples: Any, edits: Any, edit_scale: float) -> Candidates:
    """Return the numbers of candidates.

    Raises:
        UsageError: there is no sample, more edits than samples, or an edit of no size.
    """
    check_positive_int(num_samples=samples)
    check_int(0, num_edits=edits)
    if edits > samples:
        raise UsageError(f"num_edits edits that many of the num_samples samples, got {edits} of {samples}")
    if not (math.isfinite(edit_scale) and 0 < edit_scale <= 2):
        raise UsageError(f"edit_scale must lie in (0, 2], since actions lie in [-1, 1], got {edit_scale!r}")
    return Candidates(int(samples), int(edits), float(edit_scale))
