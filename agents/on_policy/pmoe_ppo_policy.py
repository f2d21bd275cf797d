"""Actor and critic of PMOE on PPO: a router, a Gaussian or choices for every expert, and a judge of their actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine.choice_mixture import ChoiceMixture
from polyathlon.agents.engine.distributions import Mixture
from polyathlon.agents.parts.action_distributions import categorical_entropy, sample_categorical
from polyathlon.agents.parts.gaussian_mixture import of_expert
from polyathlon.envs.errors import UsageError

from .model import ActorCriticOutput
from .policies import ActorCritic


def joint_entropy(mixture: Mixture | ChoiceMixture) -> Tensor:
    """Entropy [B] of expert and action together, at least that of the action; exact for one expert."""
    log_w = mixture.log_w
    return categorical_entropy(log_w) + (log_w.exp() * mixture.entropies()).sum(-1)


class MixtureActorCritic(ActorCritic):
    """SB3's actor-critic policy with K experts instead of one: Gaussians in a Box, or choices side by side.

    The router is linear in the features and starts with equal weights; the standard deviations of each expert do not
    depend on the observation. `q_net` values a pair of observation and action (choices one-hot); it has the widths of the
    value network.
    With one expert there is neither router nor `q_net`, and the policy is `ActorCritic`.

    Args:
        *args: those of `ActorCritic`.
        num_experts: K.
        **kwargs: those of `ActorCritic`.

    Raises:
        UsageError: the actions are neither a Box nor MultiDiscrete or MultiBinary.
    """

    def __init__(self, *args: Any, num_experts: int = 4, **kwargs: Any) -> None:
        self.num_experts = num_experts
        super().__init__(*args, **kwargs)

    @property
    def is_plain(self) -> bool:
        """Whether the written-out minibatch of two perceptrons covers this policy."""
        return self.num_experts == 1

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        if not (isinstance(self.action_space, spaces.Box) or self.choices):
            raise UsageError(
                f"a mixture of experts acts in a Box, a MultiDiscrete or a MultiBinary space, got {self.action_space}"
            )
        if self.num_experts == 1:
            return
        size, width = sum(self.choices) or int(np.prod(self.action_space.shape or ())), self.mlp_extractor.latent_dim_pi
        single: Any = self.action_net
        self.action_net = nn.Linear(width, self.num_experts * single.out_features)
        if self.ortho_init:
            self.init_weights(self.action_net, gain=0.01)
        if not self.choices:
            self.log_std = nn.Parameter(torch.full((self.num_experts, size), float(self.log_std_init)))
        self.router = nn.Linear(self.features_dim, self.num_experts)
        nn.init.zeros_(self.router.weight)
        nn.init.zeros_(self.router.bias)
        widths = [layer.out_features for layer in self.mlp_extractor.value_net if isinstance(layer, nn.Linear)]
        self.q_net = nn.Sequential(*create_mlp(self.features_dim + size, 1, widths, self.activation_fn))
        # SB3's own optimiser, made above, knows the layers that were exchanged only when it is made again
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "num_experts": self.num_experts}

    def mixture(self, features: Any) -> tuple[Tensor, Tensor]:
        """Return logarithms of the weights [B, K] and means (or logits) [B, K, A] for extracted features."""
        features = features[0] if isinstance(features, tuple) else features
        mean = self.action_net(self.mlp_extractor.forward_actor(features)).unflatten(1, (self.num_experts, -1))
        log_w = mean.new_zeros(mean.shape[:2]) if self.num_experts == 1 else self.router(features).log_softmax(-1)
        return log_w, mean

    def ordered_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of router, experts and critic; those of `q_net` are a network of their own."""
        judge = {id(p) for p in self.q_net.parameters()} if self.num_experts > 1 else set()
        return [p for p in super().ordered_parameters() if id(p) not in judge]

    def outputs(self, obs: PyTorchObs, mask: Tensor | None = None) -> ActorCriticOutput:
        """Return the mixture, the values [B], and the features that `q_net` judges actions by."""
        if self.num_experts == 1:
            return super().outputs(obs, mask)
        features = self.extract_features(obs)
        pi, vf = features if isinstance(features, tuple) else (features, features)
        value = self.value_net(self.mlp_extractor.forward_critic(vf)).squeeze(-1)
        return ActorCriticOutput(self._experts_of(*self.mixture(pi), obs, mask), value, pi)

    def _experts_of(self, log_w: Tensor, mean: Tensor, obs: PyTorchObs, mask: Tensor | None) -> Mixture | ChoiceMixture:
        if not self.choices:
            return Mixture(log_w, mean, self.log_std)
        chosen, allowed = ChoiceMixture(log_w, self._product(mean).logits), self._mask(obs, mask)
        return chosen if allowed is None else chosen.masked(allowed)

    def evaluate(self, obs: PyTorchObs, actions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return values [B], log-probabilities [B] under the whole mixture, and entropies [B] (see `joint_entropy`)."""
        if self.num_experts == 1:
            return super().evaluate(obs, actions, mask)
        found = self.outputs(obs, mask)
        return found.value, found.action.log_prob(self.coded(actions)), joint_entropy(found.action)

    def act(
        self, obs: PyTorchObs, mask: Tensor | None, generator: torch.Generator | None, deterministic: bool = False
    ) -> Tensor:
        """Choose actions: of an expert drawn by its weight, or the mean of the one with the largest weight; see `ActorCritic`."""
        if self.num_experts == 1:
            return super().act(obs, mask, generator, deterministic)
        log_w, mean = self.mixture(self.extract_features(obs))
        expert = log_w.argmax(-1) if deterministic else sample_categorical(log_w, generator)
        if self.choices:
            chosen: Any = self._experts_of(log_w, mean, obs, mask).expert(expert)
            return self._drawn(chosen.logits, generator, deterministic)
        action = of_expert(mean, expert)
        if not deterministic:
            noise = torch.empty_like(action).normal_(generator=generator)
            action = torch.addcmul(action, self.log_std[expert].exp(), noise)
        assert self.action_space.shape is not None
        return action.reshape(-1, *self.action_space.shape)

    def get_distribution(self, obs: PyTorchObs, action_masks: Tensor | None = None) -> Distribution:
        """Return SB3's distribution object of the actions.

        Raises:
            UsageError: there are several experts, for which SB3 has no distribution.
        """
        if self.num_experts > 1:
            raise UsageError(
                "SB3 has no distribution for a mixture: use distribution or evaluate_actions for densities, predict for actions"
            )
        return super().get_distribution(obs, action_masks)
