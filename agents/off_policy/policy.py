"""An SB3 policy made of the networks of a method."""

from __future__ import annotations

import copy
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine import Method, Network
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


class MethodPolicy(BasePolicy):
    """What acts, and all networks that it is trained with, under their names in the method.

    The parameters are views of the vectors of `networks`; state_dict, predict, save and load are SB3's. Actions of the
    distribution lie in [-1, 1], those of `predict` in the bounds of the action space.

    Args:
        observation_space: a Box, which is flattened.
        action_space: a bounded Box.
        lr_schedule: not used; SB3 gives it to every policy.
        method: whose networks these are; `method.policy` acts.
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
        super().__init__(observation_space, action_space, squash_output=True)
        self.method, self.network_words, self.is_standardised = method, network_words, is_standardised
        made = method.networks(observation_space, action_space, network_words, torch.default_generator)
        self.networks: dict[str, Any] = dict(made)
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

    def seen(self, observation: Tensor) -> Tensor:
        """Return observations [B, ...] as the networks take them, [B, O]."""
        obs = observation.float().flatten(1)
        return (obs - self.obs_mean) * self.obs_scale if self.is_standardised else obs

    def distribution(self, obs: Tensor, action_masks: Tensor | None = None) -> Any:
        """Return the distribution of actions in [-1, 1] at observations [B, ...], with gradient.

        Raises:
            UsageError: `action_masks` are given; a Box has none.
        """
        if action_masks is not None:
            raise UsageError("the actions of a Box cannot be masked: leave action_masks out")
        out = getattr(self, self.method.policy)(self.seen(obs))
        return getattr(out, "action", out)

    def sample(self, obs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw actions [B, A] in [-1, 1]."""
        distribution = self.distribution(obs)
        shape = (obs.shape[0], *distribution.noise_shape)
        noise = torch.randn(shape, generator=generator, device=obs.device)
        action: Tensor = distribution.sample(noise)[0]
        return action.clamp(-1, 1)

    def mode(self, obs: Tensor) -> Tensor:
        """Return the most likely actions [B, A]."""
        action: Tensor = self.distribution(obs).mode()
        return action.clamp(-1, 1)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Return actions [B, ...] in [-1, 1], as SB3's SAC and TD3 policies do."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        action = self.mode(observation) if deterministic else self.sample(observation, self.generator)
        return action.reshape(-1, *self.action_space.shape)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the generator behind: torch's generators cannot be pickled."""
        return {**self.__dict__, "generator": None}
