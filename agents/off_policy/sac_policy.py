"""Actor and critics of soft actor-critic, with their parameters in flat vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.sac.policies import Actor, SACPolicy
from torch import Tensor, nn

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.squashed_gaussian import SAC_LOG_STD_MAX, SAC_LOG_STD_MIN
from polyathlon.envs.errors import UsageError

from .perceptrons import flat_copy, parameters_of, rectified_layers
from .sac_update import SACUpdate


def flatten_actor(actor: Actor, learning_rate: float, behind: Sequence[nn.Parameter] = ()) -> list[int]:
    """Lay an actor's parameters into a flat vector with an optimiser: hidden layers, then both heads side by side.

    Args:
        actor: SB3's network.
        learning_rate: of the optimiser, which becomes the actor's.
        behind: further parameters, at the end of the vector.

    Returns:
        The hidden widths.

    Raises:
        UsageError: it is no perceptron with at least one rectified hidden layer.
    """
    hidden = rectified_layers(actor.latent_pi)
    if not hidden:
        raise UsageError("net_arch needs at least one hidden layer")
    mean, spread = actor.mu, actor.log_std
    assert isinstance(mean, nn.Linear) and isinstance(spread, nn.Linear)
    ordered = [*parameters_of(hidden), mean.weight, spread.weight, mean.bias, spread.bias, *behind]
    actor.optimizer = FlatAdam(ordered, lr=learning_rate)
    return [layer.out_features for layer in hidden]


class SquashedGaussianPolicy(SACPolicy):
    """SB3's networks of SAC: the same layers, names and initial values, with parameters in flat vectors.

    `net_arch` and `n_critics` are SB3's. Observations are flattened; other feature extractors are refused.

    Attributes:
        product_dtype: in which gradient steps keep and multiply hidden layers.
        generator: source of the noise of `predict(deterministic=False)`; None is torch's own.
    """

    generator: torch.Generator | None = None
    product_dtype = torch.float32
    _target: Tensor
    _actor_widths: list[int]
    _critic_widths: list[int]

    def flatten_parameters(self) -> None:
        """Lay the parameters into flat vectors, each with an optimiser of its own; call after moving to the device.

        Raises:
            UsageError: the networks are no plain perceptrons.
        """
        self._refuse_other_features()
        rate = self.actor.optimizer.param_groups[0]["lr"]
        self._actor_widths = flatten_actor(self.actor, rate, self.parameters_behind_the_head())
        networks = [rectified_layers(network) for network in self.critic.q_networks]
        self._critic_widths = [layer.out_features for layer in networks[0][:-1]]
        self.critic.optimizer = FlatAdam([p for layers in networks for p in parameters_of(layers)], lr=rate)
        self._target = flat_copy([rectified_layers(network) for network in self.critic_target.q_networks])

    def _refuse_other_features(self) -> None:
        if self.actor.use_sde or type(self.actor.features_extractor).__name__ != "FlattenExtractor":
            raise UsageError(
                "SAC flattens observations and samples plain Gaussians; leave features_extractor_class and use_sde out"
            )

    def make_update(self, batch_size: int) -> SACUpdate:
        """Return the gradient step of these networks."""
        return SACUpdate(**self.update_arguments(batch_size))

    def update_arguments(self, batch_size: int) -> dict[str, Any]:
        """Return the arguments of `SACUpdate` for these networks."""
        return {
            "actor": self.actor.optimizer,
            "critic": self.critic.optimizer,
            "target": self._target,
            "obs_size": int(torch.tensor(self.observation_space.shape).prod()),
            "action_size": int(torch.tensor(self.action_space.shape).prod()),
            "actor_widths": self._actor_widths,
            "critic_widths": self._critic_widths,
            "critics": len(self.critic.q_networks),
            "batch_size": batch_size,
            "dtype": self.product_dtype,
        }

    def parameters_behind_the_head(self) -> list[nn.Parameter]:
        """Return further parameters of the actor, which its optimiser steps too."""
        return []

    def head(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log standard deviation [B, A] before the squashing, for observations [B, O]."""
        latent = self.actor.latent_pi(obs)
        return self.actor.mu(latent), self.actor.log_std(latent).clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX)  # type: ignore[operator]

    def sample(self, obs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw actions [B, A] in (-1, 1)."""
        mean, log_std = self.head(obs)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return torch.tanh(torch.addcmul(mean, log_std.exp(), noise))

    def mode(self, obs: Tensor) -> Tensor:
        """Return the squashed mean [B, A]."""
        return torch.tanh(self.head(obs)[0])

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        obs = observation.flatten(1).float()
        action = self.mode(obs) if deterministic else self.sample(obs, self.generator)
        return action.reshape(-1, *self.action_space.shape)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator behind: torch's generators cannot be pickled."""
        return {**self.__dict__, "generator": None}
