"""Actors whose mean is squashed by tanh, with critics beside them, and their parameters in flat vectors."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor, create_mlp, get_actor_critic_arch
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.squashed_gaussian import OFFLINE_LOG_STD_MAX, OFFLINE_LOG_STD_MIN
from polyathlon.envs.errors import UsageError

from .perceptrons import flat_copy, parameters_of, rectified_layers


class Standardised(FlattenExtractor):
    """Flattens observations and subtracts and divides by constants that `BoundedPolicy.standardise` sets."""

    mean: Tensor
    scale: Tensor

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space)
        self.register_buffer("mean", torch.zeros(self.features_dim))
        self.register_buffer("scale", torch.ones(self.features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Return [B, O] of observations [B, ...]."""
        return (super().forward(observations) - self.mean) * self.scale


class BoundedPolicy(TD3Policy):
    """SB3's networks of TD3: the same layers, names and initial values, with parameters in flat vectors.

    `net_arch` (256, 256 where left out) and `n_critics` are SB3's. Observations are flattened; other feature extractors
    are refused. Subclasses leave out what a method does not have.

    Attributes:
        has_actor_target: a slowly moving copy of the actor.
        has_critics: critics Q(s, a) and their slowly moving copies.
        has_value: a value V(s), `value_net`.
        is_gaussian: the actor has standard deviations, one number a component (`actor.log_std`), and samples.
        generator: source of the noise of `predict(deterministic=False)`; None is torch's own.
        product_dtype: in which gradient steps keep and multiply hidden layers.
    """

    has_actor_target: ClassVar[bool] = True
    has_critics: ClassVar[bool] = True
    has_value: ClassVar[bool] = False
    is_gaussian: ClassVar[bool] = False
    generator: torch.Generator | None = None
    product_dtype = torch.float32
    target: Tensor
    actor_target_vector: Tensor

    def __init__(
        self, observation_space: spaces.Space[Any], action_space: spaces.Box, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **{"net_arch": [256, 256], **kwargs})

    def _build(self, lr_schedule: Schedule) -> None:
        rate = lr_schedule(1)
        self.actor = self.make_actor()
        if self.is_gaussian:
            self.actor.log_std = nn.Parameter(torch.zeros(self.actor.action_space.shape or ()).reshape(-1))
        if self.has_actor_target:
            self.actor_target = self.make_actor()
            self.actor_target.load_state_dict(self.actor.state_dict())
            self.actor_target.set_training_mode(False)
        if self.has_critics:
            self.critic, self.critic_target = self.make_critic(), self.make_critic()
            self.critic_target.load_state_dict(self.critic.state_dict())
            self.critic_target.set_training_mode(False)
        if self.has_value:
            widths = get_actor_critic_arch(self.net_arch)[1]
            self.value_net = nn.Sequential(*create_mlp(self.actor.features_dim, 1, widths, self.activation_fn))
        for network in self._trained():
            network.optimizer = torch.optim.Adam(network.parameters(), lr=rate)

    def _trained(self) -> list[Any]:
        """Return the networks that have an optimiser."""
        names = [("actor", True), ("critic", self.has_critics), ("value_net", self.has_value)]
        return [getattr(self, name) for name, is_there in names if is_there]

    def set_training_mode(self, mode: bool) -> None:
        """Put the trained networks in training or evaluation mode."""
        for network in self._trained():
            network.train(mode)
        self.training = mode

    def flatten_parameters(self) -> None:
        """Lay the parameters into flat vectors, each with an optimiser of its own; call after moving to the device.

        Raises:
            UsageError: the networks are no plain perceptrons.
        """
        actor = self.actor
        if type(actor.features_extractor) not in (FlattenExtractor, Standardised):
            raise UsageError("observations are flattened: leave features_extractor_class out")
        layers = rectified_layers(actor.mu)
        if len(layers) < 2:
            raise UsageError("net_arch needs at least one hidden layer")
        rate = actor.optimizer.param_groups[0]["lr"]
        self.actor_widths = [layer.out_features for layer in layers[:-1]]
        spread = [actor.log_std] if self.is_gaussian else []
        actor.optimizer = FlatAdam([*parameters_of(layers), *spread], lr=rate)  # type: ignore[list-item]
        if self.has_actor_target:
            self.actor_target_vector = flat_copy([rectified_layers(self.actor_target.mu)])
        if self.has_critics:
            networks = [rectified_layers(network) for network in self.critic.q_networks]
            self.critic_widths = [layer.out_features for layer in networks[0][:-1]]
            if not self.critic_widths:
                raise UsageError("net_arch needs at least one hidden layer")
            self.critic.optimizer = FlatAdam([p for each in networks for p in parameters_of(each)], lr=rate)
            self.target = flat_copy([rectified_layers(network) for network in self.critic_target.q_networks])
        if self.has_value:
            layers = rectified_layers(self.value_net)
            self.value_net.optimizer = FlatAdam(parameters_of(layers), lr=rate)  # type: ignore[assignment]

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of an observation and of an action."""
        shapes = (self.observation_space.shape, self.action_space.shape)
        obs_size, action_size = (int(torch.Size(shape or ()).numel()) for shape in shapes)
        return obs_size, action_size

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Let every network see (observation - mean) scale, both [O]; for policies whose extractor is `Standardised`."""
        for module in self.modules():
            if isinstance(module, Standardised):
                module.mean.copy_(mean)
                module.scale.copy_(scale)

    def mean_action(self, obs: Tensor) -> Tensor:
        """Return the actor's mean [B, A] in (-1, 1) at observations [B, ...]."""
        mean: Tensor = self.actor.mu(self.actor.features_extractor(obs))
        return mean

    def sample(self, obs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw actions [B, A] in [-1, 1]; without standard deviations they are the mean."""
        mean = self.mean_action(obs)
        if not self.is_gaussian:
            return mean
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        assert isinstance(self.actor.log_std, Tensor)
        return torch.addcmul(
            mean, noise, self.actor.log_std.clamp(OFFLINE_LOG_STD_MIN, OFFLINE_LOG_STD_MAX).exp()
        ).clamp_(-1, 1)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        obs = observation.float()
        action = self.mean_action(obs) if deterministic else self.sample(obs, self.generator)
        return action.reshape(-1, *self.action_space.shape)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator behind: torch's generators cannot be pickled."""
        return {**self.__dict__, "generator": None}
