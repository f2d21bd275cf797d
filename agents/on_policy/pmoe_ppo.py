"""Probabilistic mixture of experts on proximal policy optimisation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.parts.expert_routing import frequency_loss, picks, refuse_experts
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.registration import register_agent

from .pmoe_ppo_policy import MixtureActorCritic
from .ppo import PPO
from .ppo_update import Minibatches, MinibatchLoss, PPOSettings, clipped_loss, update

ESTIMATORS = ("frequency", "score_ratio")


@register_agent(
    "pmoe_ppo", family="on_policy", summary="mixture of experts on proximal policy optimisation, for continuous actions"
)
class PMOEPPO(PPO):
    """Probabilistic mixture of experts on PPO (Ren et al. 2021, arXiv 2104.09122).

    The probability ratio is that of the whole mixture. A network Q(s, a) is regressed on the returns; in every minibatch
    one action of each expert is drawn and the router learns how often the action of each is worth most (the frequency
    loss), besides what the surrogate tells it. `predict(deterministic=True)` takes the mean of the expert with the largest
    weight. With one expert it is PPO.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", or a subclass of `MixtureActorCritic`.
        env: an id or an environment with a Box of actions; see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        num_experts: number of experts K.
        estimator: "frequency" is the paper's; "score_ratio" leaves the router to the surrogate alone, without Q.
        policy_kwargs: keyword arguments of the policy.
        **kwargs: all further arguments of `PPO`.

    Raises:
        UsageError: a number is impossible, an estimator is not known, or the environment's actions are no Box.
    """

    action_forms = ("box",)
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MixtureActorCritic,
        "CnnPolicy": MixtureActorCritic,
        "MultiInputPolicy": MixtureActorCritic,
    }

    def __init__(
        self,
        policy: str | type[MixtureActorCritic],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        num_experts: int = 4,
        estimator: str = "frequency",
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_experts(num_experts, policy_kwargs)
        if estimator == "gumbel_softmax":
            raise UsageError(
                "PPO does not differentiate a value by the action, so gumbel_softmax has no meaning here; PMOE has it"
            )
        if estimator not in ESTIMATORS:
            raise unknown_name("estimator", estimator, ESTIMATORS)
        self.num_experts, self.estimator = num_experts, estimator
        policy_kwargs = {**(policy_kwargs or {}), "num_experts": num_experts}
        super().__init__(policy, env, learning_rate, policy_kwargs=policy_kwargs, **kwargs)

    def _update(self, data: Minibatches, settings: PPOSettings) -> dict[str, Any]:
        if self.num_experts == 1:
            return super()._update(data, settings)
        assert isinstance(self.policy, MixtureActorCritic)
        loss = MixtureLoss(self.policy, self.estimator, self.generator)
        return {**update(self.policy, self._actor, data, settings, self.generator, loss), **loss.report()}

    def expert_weights(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """Return how likely each expert is to act, [K] for one observation or [B, K] for a batch of them."""
        assert isinstance(self.policy, MixtureActorCritic)
        shown, is_batch = self.policy.obs_to_tensor(observation)
        with torch.no_grad():
            weights = self.policy.mixture(self.policy.extract_features(shown))[0].exp().cpu().numpy()
        return weights if is_batch else weights[0]


class MixtureLoss:
    """PPO's loss of a mixture, with the frequency loss of its router and the regression of its Q network.

    Args:
        policy: the mixture, with several experts.
        estimator: one of `ESTIMATORS`.
        generator: source of the experts' actions.
    """

    def __init__(self, policy: MixtureActorCritic, estimator: str, generator: torch.Generator) -> None:
        self.policy, self.generator = policy, generator
        self.is_compared = estimator == "frequency"
        self.seen: list[Tensor] = []

    def __call__(self, actor: Any, batch: Minibatches, settings: PPOSettings) -> MinibatchLoss:
        """Return the loss of a minibatch; see `ppo_update.ppo_loss`."""
        policy = self.policy
        value, log_prob, entropy = actor.evaluate(batch.obs, batch.action, batch.mask)
        loss = clipped_loss(value, log_prob, entropy, batch, settings)
        features = policy.extract_features(batch.obs)
        log_w, mean = policy.mixture(features)
        weights = log_w.exp()
        if not self.is_compared:
            self.seen.append(weights.detach().mean(0))
            return loss
        with torch.no_grad():
            noise = torch.empty_like(mean).normal_(generator=self.generator)
            q = policy.q_values(features, mean + policy.log_std.exp() * noise)
            picked = picks(q.argmax(-1), policy.num_experts)
        router_loss = frequency_loss(weights, q)
        q_loss = (policy.q_values(features, batch.action.flatten(1)) - batch.returns).square().mean()
        losses = torch.stack([router_loss, q_loss]).detach()
        self.seen.append(torch.cat([weights.detach().mean(0), picked.mean(0), losses]))
        return MinibatchLoss(loss.total + router_loss + q_loss, loss.metrics)

    def report(self) -> dict[str, float]:
        """Return the experts' mean weights, how often each was the best, and the means of the further losses."""
        experts = self.policy.num_experts
        names = [f"experts/weight_{k}" for k in range(experts)]
        if self.is_compared:
            names += [f"experts/picked_{k}" for k in range(experts)] + ["router_loss", "q_loss"]
        return dict(zip(names, torch.stack(self.seen).mean(0).tolist(), strict=True))
