"""An SB3 policy made of the networks of a method."""

from __future__ import annotations

import copy
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine import Method, Network, linked, with_features
from polyathlon.agents.engine.noise import make_noise
from polyathlon.agents.parts.action_distributions import choices_of
from polyathlon.agents.parts.observations import ReadsObservations, as_seen, is_flat
from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.errors import UsageError, unknown_name


class Members(nn.Module):
    """The members of a network, under SB3's names for critics: qf0, qf1, ..."""

    def __init__(self, modules: tuple[nn.Module, ...]) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            self.add_module(f"qf{i}", module)

    def forward(self, *x: Tensor) -> tuple[Tensor, ...]:
        """Return what each member gives, values as columns [B, 1], as SB3's critics do."""
        outputs = [module(*x) for module in self.children()]
        return tuple(out.unsqueeze(-1) if isinstance(out, Tensor) and out.dim() == 1 else out for out in outputs)


class MethodPolicy(ReadsObservations, BasePolicy):
    """What acts, and all networks that it is trained with, under their names in the method.

    The parameters are views of the vectors of `networks`; state_dict, predict, save and load are SB3's. Actions of the
    distribution lie in [-1, 1] (choices are counted from 0), those of `predict` in the action space.

    Args:
        observation_space: a Box, or a Dict of arrays. A Box that holds no pictures is flattened.
        action_space: a bounded Box, or MultiDiscrete or MultiBinary where what acts chooses.
        lr_schedule: not used; SB3 gives it to every policy.
        method: whose networks these are; `method.policy` acts. The attribute has what features extractors add to it.
        is_standardised: observations are standardised by constants that `standardise` sets, before anything sees them.
        **network_words: handed to `method.networks`.

    Attributes:
        networks: name -> network, targets too.
        generator: source of the noise of `predict(deterministic=False)`; None is torch's own.

    Raises:
        UsageError: no network, or one of several members, is to act.
    """

    generator: torch.Generator | None = None
    obs_mean: Tensor
    obs_scale: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule | None = None,
        *,
        method: Method,
        is_standardised: bool = False,
        **network_words: Any,
    ) -> None:
        self.choices = choices_of(action_space)
        super().__init__(observation_space, action_space, squash_output=not self.choices)
        self.network_words, self.is_standardised = network_words, is_standardised
        self.is_flat = is_flat(observation_space)
        made = method.networks(observation_space, action_space, network_words, torch.default_generator)
        self.networks: dict[str, Any] = dict(made)
        self.method = method = with_features(method, made)
        for name in method.targets:
            if name in self.networks:
                self.networks.setdefault(f"{name}_target", copy.deepcopy(self.networks[name]))
        for name, network in self.networks.items():
            if isinstance(network, Network):
                self.add_module(name, Members(network.modules) if network.members else network.modules[0])
        if method.policy not in made:
            raise unknown_name("network in Method.policy", method.policy, made)
        if not isinstance(made[method.policy], Network) or made[method.policy].members:
            raise UsageError(f"the network {method.policy!r} acts and must be a Network of one module")
        if is_standardised:
            size = int(torch.Size(observation_space.shape or ()).numel())
            self.register_buffer("obs_mean", torch.zeros(size))
            self.register_buffer("obs_scale", torch.ones(size))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"observation_space": self.observation_space, "action_space": self.action_space, "method": self.method}
        return {**own, "is_standardised": self.is_standardised, **self.network_words}

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Act on (observation - mean) scale from now on, both [O]."""
        self.obs_mean.copy_(mean)
        self.obs_scale.copy_(scale)

    def seen(self, observation: Any) -> Any:
        """Return observations [B, ...] as the networks take them: [B, O] of a flat Box."""
        obs = as_seen(observation, self.is_flat)
        return (obs - self.obs_mean) * self.obs_scale if self.is_standardised else obs

    def linked(self, name: str, is_function: bool = False) -> Any:
        """Return a network behind its features extractor, where it has one.

        Args:
            name: of a network or target.
            is_function: call many members at once rather than one after the other.
        """
        network = self.networks[name]
        things = {**self.networks, name: network.at(network.vector) if is_function else network}
        return linked(things, self.networks, [name])[name]

    def distribution(self, obs: Any, action_masks: Tensor | None = None) -> Any:
        """Return the distribution of actions in [-1, 1] at observations [B, ...], with gradient.

        Raises:
            UsageError: `action_masks` are given; a Box has none.
        """
        if action_masks is not None and not self.choices:
            raise UsageError("the actions of a Box cannot be masked: leave action_masks out")
        out = self.linked(self.method.policy)(self.seen(obs))
        found = getattr(out, "action", out)
        return found if action_masks is None else found.masked(action_masks)

    def sample(self, obs: Any, generator: torch.Generator | None) -> Tensor:
        """Draw actions [B, A] in [-1, 1], or choices [B, D] counted from 0."""
        distribution, like = self.distribution(obs), next(iter(obs.values())) if isinstance(obs, dict) else obs
        if self.choices:
            return self.drawn(distribution, generator)
        shape = (like.shape[0], *distribution.noise_shape)
        noise = torch.randn(shape, generator=generator, device=like.device)
        action: Tensor = distribution.sample(noise)[0]
        return action.clamp(-1, 1)

    def mode(self, obs: Any) -> Tensor:
        """Return the most likely actions [B, A], or choices [B, D] counted from 0."""
        action: Tensor = self.distribution(obs).mode()
        return action if self.choices else action.clamp(-1, 1)

    @staticmethod
    def drawn(distribution: Any, generator: torch.Generator | None) -> Tensor:
        """Draw choices [B, D] of a distribution with Gumbel noise."""
        like = distribution.logits[0]
        noise = Noise(distribution.noise_kind, (like.shape[0], *distribution.noise_shape))
        action: Tensor = distribution.sample(make_noise(noise, {}, generator, like.device))[0]
        return action

    def in_space(self, action: Tensor) -> Tensor:
        """Return actions in the shape of the space, choices counted from where it starts."""
        if self.choices:
            start = torch.as_tensor(getattr(self.action_space, "start", 0), device=action.device)
            action = action + start.reshape(-1)
        return action.reshape(-1, *self.action_space.shape)  # type: ignore[misc]

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return actions [B, ...] in [-1, 1], as SB3's SAC and TD3 policies do."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        action = self.mode(observation) if deterministic else self.sample(observation, self.generator)
        return self.in_space(action)
