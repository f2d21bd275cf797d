"""Actor-critic policies: SB3's, with action masks, own generators, normalisation and a flat optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine.distributions import Categorical, Gaussian, Product
from polyathlon.agents.parts.action_distributions import (
    FORBIDDEN_LOGIT,
    choices_of,
    coded,
    masked_log_softmax,
    sample_categorical,
)
from polyathlon.agents.parts.features import Preparation, extractor_for, make_extractor, mask_in
from polyathlon.agents.parts.moments import RunningMoments
from polyathlon.agents.parts.observations import ReadsObservations
from polyathlon.agents.parts.optimizer_words import refuse_optimizer_words
from polyathlon.envs.errors import UsageError

from .model import ActorCriticOutput


class ActorCritic(ReadsObservations, ActorCriticPolicy):
    """SB3's actor-critic policy for Box actions and choices, with masks, for observations of any space.

    Args:
        observation_space: space of one observation.
        action_space: Box (diagonal Gaussian, clipped into the box), Discrete (categorical, masked), or MultiDiscrete and MultiBinary
            of one axis (independent choices; masks lie side by side as sb3-contrib's, of a binary choice for 0 and for 1).
        lr_schedule: step size as a function of the remaining progress.
        normalize_observations: centre and scale observations by running moments (flat Box observations only).
        features_extractor_class: SB3 features extractor; None chooses one by the observation space.
        **kwargs: further arguments of SB3's `ActorCriticPolicy` (`net_arch`, `activation_fn`, `log_std_init` ...).

    Attributes:
        generator: source of the random actions of `predict`; None draws from torch's global generator.

    Raises:
        UsageError: an action or observation space that the policy cannot handle.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        normalize_observations: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("use_sde"):
            raise UsageError("use_sde=True is not supported by this policy; leave it out")
        refuse_optimizer_words(type(self).__name__, kwargs)
        known = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
        is_table = isinstance(action_space, spaces.MultiDiscrete | spaces.MultiBinary) and len(action_space.shape) != 1
        if not isinstance(action_space, known) or is_table:
            raise UsageError(
                f"{type(self).__name__} acts in Box and Discrete spaces and in MultiDiscrete and MultiBinary ones of one axis, got "
                f"{action_space}"
            )
        if normalize_observations and not (
            isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1
        ):
            raise UsageError(f"normalize_observations needs a flat Box of observations, got {observation_space}")
        self.normalize_observations = normalize_observations
        normalize_images = kwargs.get("normalize_images", True)
        self.preparation = Preparation(observation_space, normalize_images)
        chosen = features_extractor_class or extractor_for(self.preparation.space, normalize_images)
        kwargs["features_extractor_class"] = chosen
        self.generator: torch.Generator | None = None
        # what depends on the spaces is decided once: a compiled step has no questions to numpy
        self.num_actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else 0
        self.choices = choices_of(action_space)
        self.is_binary = isinstance(action_space, spaces.MultiBinary)
        self.mask_width = self.num_actions or sum(self.choices)
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def make_features_extractor(self) -> Any:
        """Make a features extractor, for pictures whose channels are in front."""
        words = self.features_extractor_kwargs
        return make_extractor(self.preparation.space, self.features_extractor_class, words, self.normalize_images)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.moments: RunningMoments | None = None
        if self.normalize_observations:
            assert self.observation_space.shape is not None
            self.moments = RunningMoments(self.observation_space.shape)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "normalize_observations": self.normalize_observations}

    @property
    def is_plain(self) -> bool:
        """Whether the written-out minibatch of two perceptrons covers this policy, as far as its class is concerned."""
        return type(self) is ActorCritic

    def ordered_parameters(self) -> list[nn.Parameter]:
        """Return the parameters in the order in which they shall lie in memory: layer by layer, actor beside critic."""
        actor, critic = self.mlp_extractor.policy_net, self.mlp_extractor.value_net
        pairs = list(zip(linear_layers(actor), linear_layers(critic)))
        front: list[nn.Parameter] = []
        for a, c in pairs:
            front += [p for p in (a.weight, c.weight, a.bias, c.bias) if isinstance(p, nn.Parameter)]
        known = {id(p) for p in front}
        return front + [p for p in self.parameters() if id(p) not in known]

    def extract_features(self, obs: PyTorchObs, features_extractor: Any = None) -> Any:
        """Return the features of observations [B, ...], normalised where asked for; of actor and critic if these differ."""
        if self.moments is not None:
            obs = self.moments(obs)
        seen = self.preparation(obs)
        if self.share_features_extractor or features_extractor is not None:
            return (features_extractor or self.features_extractor)(seen)
        return self.pi_features_extractor(seen), self.vf_features_extractor(seen)

    def parameters_and_values(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Return the means or logits [B, A] of the action distribution, and the values [B]."""
        features = self.extract_features(obs)
        pi, vf = features if isinstance(features, tuple) else (features, features)
        actor, critic = self.mlp_extractor.forward_actor(pi), self.mlp_extractor.forward_critic(vf)
        return self.action_net(actor), self.value_net(critic).squeeze(-1)

    def action_parameters(self, obs: PyTorchObs) -> Tensor:
        """Return the means or logits [B, A] of the action distribution."""
        features = self.extract_features(obs)
        features = features[0] if isinstance(features, tuple) else features
        return self.action_net(self.mlp_extractor.forward_actor(features))

    def values(self, obs: PyTorchObs) -> Tensor:
        """Return the values [B]."""
        features = self.extract_features(obs)
        features = features[1] if isinstance(features, tuple) else features
        return self.value_net(self.mlp_extractor.forward_critic(features)).squeeze(-1)

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Return the values [B, 1], as SB3 does."""
        return self.values(obs).unsqueeze(-1)

    def _mask(self, obs: PyTorchObs, mask: Tensor | None) -> Tensor | None:
        return mask_in(obs, self.mask_width) if mask is None and self.mask_width else mask

    def distribution_of(
        self, parameters: Tensor, obs: PyTorchObs, mask: Tensor | None
    ) -> Gaussian | Categorical | Product:
        """Return the distribution of means or logits [B, A]; without a mask what the observation shows as allowed is."""
        if not self.mask_width:
            return Gaussian(parameters, self.log_std)
        chosen = self._product(parameters) if self.choices else Categorical(parameters)
        allowed = self._mask(obs, mask)
        return chosen if allowed is None else chosen.masked(allowed)

    def _product(self, parameters: Tensor) -> Product:
        if self.is_binary:  # the logit of 1, as SB3 has it
            return Product(tuple(torch.stack([torch.zeros_like(z), z], -1) for z in parameters.unbind(-1)))
        return Product(parameters.split(self.choices, -1))

    def outputs(self, obs: PyTorchObs, mask: Tensor | None = None) -> ActorCriticOutput:
        """Return distribution and values [B] at observations [B, ...]: what a loss sees."""
        parameters, value = self.parameters_and_values(obs)
        return ActorCriticOutput(self.distribution_of(parameters, obs, mask), value)

    def distribution(self, obs: PyTorchObs, action_masks: Tensor | None = None) -> Any:
        """Return the distribution of the actions at observations [B, ...], with gradient.

        Its actions are those of `coded`: [B, A] of a Box, not yet clipped into it, and counted from 0 where they are Discrete.

        Args:
            obs: [B, ...] observations, as tensors.
            action_masks: [B, A] bool of the allowed actions; None allows what the observation shows as allowed.

        Raises:
            UsageError: masks are given for the actions of a Box.
        """
        if action_masks is not None and isinstance(self.action_space, spaces.Box):
            raise UsageError("the actions of a Box cannot be masked: leave action_masks out")
        return self.outputs(obs, action_masks).action

    def coded(self, actions: Tensor) -> Tensor:
        """Return actions of the environment as the distribution has them: [B, A], or [B] int64 counted from 0."""
        return coded(actions, self.action_space)

    def act(
        self, obs: PyTorchObs, mask: Tensor | None, generator: torch.Generator | None, deterministic: bool = False
    ) -> Tensor:
        """Choose actions.

        Args:
            obs: [B, ...] observations.
            mask: [B, A] bool of the allowed actions; None allows what the observation shows as allowed.
            generator: source of randomness.
            deterministic: take the mode.

        Returns:
            [B, *shape] actions; of a Box not yet clipped into it.
        """
        parameters = self.action_parameters(obs)
        if isinstance(self.action_space, spaces.Discrete):
            log_probs = masked_log_softmax(parameters, self._mask(obs, mask))
            action = log_probs.argmax(-1) if deterministic else sample_categorical(log_probs, generator)
            return action + int(self.action_space.start)
        if self.choices:
            parts = self.distribution_of(parameters, obs, mask).logits  # type: ignore[union-attr]
            return self._drawn(parts, generator, deterministic)
        if not deterministic:
            noise = torch.empty_like(parameters).normal_(generator=generator)
            parameters = torch.addcmul(parameters, self.log_std.exp(), noise)
        assert self.action_space.shape is not None
        return parameters.reshape(-1, *self.action_space.shape)

    def _drawn(self, logits: Any, generator: torch.Generator | None, deterministic: bool) -> Tensor:
        """Choose [B, D] of D choices with logits [B, n_d]."""
        drawn = [p.argmax(-1) if deterministic else sample_categorical(p.log_softmax(-1), generator) for p in logits]
        start = getattr(self.action_space, "start", 0)
        return torch.stack(drawn, -1) + torch.as_tensor(start, device=logits[0].device)

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate actions under the current parameters.

        Args:
            obs: [B, ...] observations.
            actions: [B, ...] actions.
            action_masks: [B, A] bool of what was allowed.

        Returns:
            Values [B, 1], log-probabilities [B] and entropies [B].
        """
        values, log_prob, entropy = self.evaluate(obs, actions, action_masks)
        return values.unsqueeze(-1), log_prob, entropy

    def evaluate(self, obs: PyTorchObs, actions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return values [B], log-probabilities [B] and entropies [B]; see `evaluate_actions`."""
        found = self.outputs(obs, mask)
        return found.value, found.action.log_prob(self.coded(actions)), found.action.entropy()

    def get_distribution(self, obs: PyTorchObs, action_masks: Tensor | None = None) -> Distribution:
        """Return SB3's distribution object of the (masked) actions."""
        parameters = self.action_parameters(obs)
        if isinstance(self.action_dist, CategoricalDistribution):
            return self.action_dist.proba_distribution(masked_log_softmax(parameters, self._mask(obs, action_masks)))
        if isinstance(self.action_dist, MultiCategoricalDistribution | BernoulliDistribution):
            chosen = self.distribution_of(parameters, obs, action_masks)
            assert isinstance(chosen, Product)
            flat = torch.cat(chosen.logits, -1)
            if self.is_binary:
                flat = (flat[..., 1::2] - flat[..., ::2]).clamp(FORBIDDEN_LOGIT, -FORBIDDEN_LOGIT)
            return self.action_dist.proba_distribution(flat)
        assert isinstance(self.action_dist, DiagGaussianDistribution)
        return self.action_dist.proba_distribution(parameters, self.log_std)

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions [B, ...], values [B, 1] and log-probabilities [B]."""
        actions = self.act(obs, action_masks, self.generator, deterministic)
        values, log_prob, _ = self.evaluate_actions(obs, actions, action_masks)
        return actions, values, log_prob

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        return self.act(observation, None, self.generator, deterministic)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions for numpy observations, as SB3 does; `action_masks` as in sb3-contrib.

        Args:
            observation: one observation, or a batch of them.
            state: unused, returned as given.
            episode_start: unused.
            deterministic: take the mode.
            action_masks: [A] or [B, A] bool, the allowed actions; of several choices side by side.

        Returns:
            The action or actions, and `state`.
        """
        if action_masks is None or not self.mask_width:
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        mask = torch.as_tensor(np.asarray(action_masks), device=self.device).bool()
        with torch.no_grad():
            action = self.act(obs, mask.reshape(-1, self.mask_width), self.generator, deterministic)
        actions = action.cpu().numpy()
        return (actions if is_batch else actions[0]), state


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a sequential network, in order."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
