"""What losses of on-policy methods see of a policy: the distribution of its actions and its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from polyathlon.agents.parts.action_distributions import masked_log_softmax, sample_categorical
from polyathlon.agents.parts.observations import as_rows
from polyathlon.envs.errors import UsageError


class ActorCriticOutput(NamedTuple):
    """What an actor-critic says of B observations.

    Attributes:
        action: the distribution of the actions, as `coded` gives them.
        value: [B] values.
        features: [B, F] the actor's features, where the policy has such.
    """

    action: Any
    value: Tensor
    features: Tensor | None = None


class ActorCriticModel(nn.Module):
    """An SB3 policy as the module that losses call: `model(obs, action_mask)` is an `ActorCriticOutput`.

    Args:
        actor: the policy, or what stands for a policy of another package.
    """

    actor: Any

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.policy = actor.policy if isinstance(actor, SB3PolicyAdapter) else actor
        object.__setattr__(self, "actor", actor)  # no second name for the same parameters

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return the parameters in the order in which they lie in memory."""
        return iter(self.actor.ordered_parameters())

    def forward(self, obs: PyTorchObs, action_mask: Tensor | None = None) -> ActorCriticOutput:
        """Evaluate observations [B, ...] whose allowed actions are `action_mask` [B, A]."""
        found: ActorCriticOutput = self.actor.outputs(obs, action_mask)
        return found


class SB3Density:
    """The density of SB3's distribution object, by our names.

    Args:
        distribution: SB3's.
    """

    def __init__(self, distribution: Distribution) -> None:
        self.distribution = distribution
        self._log_prob: Tensor | None = None

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [B] of actions as `coded` has them."""
        self._log_prob = self.distribution.log_prob(action)
        return self._log_prob

    def entropy(self) -> Tensor:
        """Entropy [B]; where there is no closed form minus the log-density of the actions that were last asked for."""
        found = self.distribution.entropy()
        if found is not None:
            return found
        if self._log_prob is None:
            raise UsageError(f"the entropy of a {type(self.distribution).__name__} has no closed form")
        return -self._log_prob

    def mode(self) -> Tensor:
        """The most likely actions."""
        return self.distribution.mode()


class SB3PolicyAdapter:
    """Gives any SB3 `ActorCriticPolicy` the few methods that our agents call.

    Args:
        policy: a policy without masks; its distribution must be Gaussian, categorical or multi-categorical.
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy

    def act(
        self, obs: PyTorchObs, mask: Tensor | None, generator: torch.Generator | None, deterministic: bool = False
    ) -> Tensor:
        """Choose actions [B, ...] from the agent's own generator; see `ActorCritic.act`."""
        distribution = self.policy.get_distribution(obs)
        if deterministic:
            return distribution.mode()
        if isinstance(distribution, CategoricalDistribution):
            return sample_categorical(masked_log_softmax(distribution.distribution.logits, mask), generator)
        if isinstance(distribution, MultiCategoricalDistribution):
            parts: Any = distribution.distribution
            return torch.stack([sample_categorical(part.logits, generator) for part in parts], 1)
        if isinstance(distribution, DiagGaussianDistribution):
            mean, std = distribution.distribution.mean, distribution.distribution.stddev
            return torch.addcmul(mean, std, torch.empty_like(mean).normal_(generator=generator))
        raise UsageError(f"actions of a {type(distribution).__name__} cannot be drawn from the agent's own generator")

    def coded(self, actions: Tensor) -> Tensor:
        """Return actions as SB3's distributions have them: those of the environment, flat."""
        return actions.reshape(-1) if isinstance(self.policy.action_space, spaces.Discrete) else as_rows(actions)

    def outputs(self, obs: PyTorchObs, mask: Tensor | None = None) -> ActorCriticOutput:
        """Return distribution and values [B]."""
        distribution = self.policy.get_distribution(obs)
        if isinstance(distribution, CategoricalDistribution) and mask is not None:
            distribution.proba_distribution(masked_log_softmax(distribution.distribution.logits, mask))
        return ActorCriticOutput(SB3Density(distribution), self.values(obs))

    def values(self, obs: PyTorchObs) -> Tensor:
        """Return the values [B]."""
        return self.policy.predict_values(obs).flatten()

    def ordered_parameters(self) -> list[nn.Parameter]:
        """Return the parameters in their own order."""
        return list(self.policy.parameters())
