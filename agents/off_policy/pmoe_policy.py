"""Actor and critics of PMOE: a router and a Gaussian for every expert on one trunk."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from polyathlon.agents.parts.action_distributions import sample_categorical
from polyathlon.agents.parts.gaussian_mixture import of_expert
from polyathlon.agents.parts.squashed_gaussian import SAC_LOG_STD_MAX, SAC_LOG_STD_MIN

from .pmoe_update import PMOEUpdate
from .sac_policy import SquashedGaussianPolicy


class MixturePolicy(SquashedGaussianPolicy):
    """Networks of SAC whose actor has K Gaussians, and a linear router that gives each its weight.

    The router reads the observation itself, and every expert is equally likely at first. With one expert it is SAC's policy.

    Args:
        num_experts: K.
        *args: those of SB3's SAC policy.
        **kwargs: those of SB3's SAC policy.
    """

    def __init__(self, *args: Any, num_experts: int = 4, **kwargs: Any) -> None:
        self.num_experts = num_experts
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        actor, experts = self.actor, self.num_experts
        mean = actor.mu
        assert isinstance(mean, nn.Linear)
        if experts > 1:
            actor.mu = nn.Linear(mean.in_features, experts * mean.out_features)
            actor.log_std = nn.Linear(mean.in_features, experts * mean.out_features)  # type: ignore[assignment]
        router = nn.Linear(int(torch.tensor(self.observation_space.shape).prod()), experts)
        nn.init.zeros_(router.weight)
        nn.init.zeros_(router.bias)
        actor.add_module("router", router)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "num_experts": self.num_experts}

    def parameters_behind_the_head(self) -> list[nn.Parameter]:
        """Return the router's parameters."""
        return list(self.actor.router.parameters())  # type: ignore[union-attr]

    def make_update(self, batch_size: int, **options: Any) -> PMOEUpdate:
        """Return the gradient step of these networks; `options` are further arguments of `PMOEUpdate`."""
        return PMOEUpdate(experts=self.num_experts, **options, **self.update_arguments(batch_size))

    def log_weights(self, obs: Tensor) -> Tensor:
        """Return the logarithms [B, K] of the experts' weights for observations [B, O]."""
        return self.actor.router(obs).log_softmax(-1)  # type: ignore[operator]

    def head(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and log standard deviations [B, K, A] before the squashing, for observations [B, O]."""
        latent = self.actor.latent_pi(obs)
        mean, raw = self.actor.mu(latent), self.actor.log_std(latent)  # type: ignore[operator]
        shape = (-1, self.num_experts, mean.shape[1] // self.num_experts)
        return mean.view(shape), raw.view(shape).clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)

    def sample(self, obs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw an expert by its weight, and its action: [B, A] in (-1, 1)."""
        log_w = self.log_weights(obs)
        expert = log_w.new_zeros(log_w.shape[0], dtype=torch.long)
        if self.num_experts > 1:
            expert = sample_categorical(log_w, generator)
        mean, log_std = (of_expert(x, expert) for x in self.head(obs))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return torch.tanh(torch.addcmul(mean, log_std.exp(), noise))

    def mode(self, obs: Tensor) -> Tensor:
        """Return the squashed mean [B, A] of the expert with the largest weight."""
        return torch.tanh(of_expert(self.head(obs)[0], self.log_weights(obs).argmax(-1)))
