"""Probabilistic mixture of experts: soft actor-critic with a policy of several Gaussians."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from polyathlon.agents.parts.expert_routing import refuse_experts
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.registration import register_agent

from .hand_written import HandWrittenSAC
from .pmoe_policy import MixturePolicy
from .pmoe_update import ESTIMATORS, PMOEUpdate


@register_agent(
    "pmoe",
    family="off_policy",
    summary="mixture of experts on soft actor-critic, for continuous actions with several good choices",
)
class PMOE(HandWrittenSAC):
    """Probabilistic mixture of experts on soft actor-critic (Ren et al. 2021, arXiv 2104.09122).

    The policy is a mixture of K Gaussians; a router draws the expert that acts. Every gradient step draws one action of
    every expert: the expert whose action is worth most learns from it, and the router learns how often that is the case
    for each expert (the frequency loss), so that no gradient has to pass the choice. `predict(deterministic=True)` takes
    the mean of the expert with the largest weight. With one expert it is SAC.

    Args:
        policy: "MlpPolicy", or a subclass of `MixturePolicy`.
        env: as of `SAC`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        num_experts: number of experts K.
        estimator: how router and experts learn: "frequency" is the paper's; "backprop_all" lets every expert learn from
            its own action; "score_ratio" draws an expert, which learns, and reinforces the choice by Q - alpha log pi;
            "gumbel_softmax" learns through a relaxed choice and the density of the whole mixture.
        gumbel_temperature: how soft the relaxed choice is; towards 0 it is a choice, with a noisier gradient.
        batch_reward_scale: standardise the rewards of each batch and multiply them by this, as the authors' code does with
            10; None takes the rewards as they are.
        policy_kwargs: `net_arch`, `n_critics` and so on, of SB3's SAC policy.
        **kwargs: all further arguments of `SAC`.

    Raises:
        UsageError: a number is impossible, an estimator is not known, or the environment's form does not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": MixturePolicy}
    policy: MixturePolicy

    def __init__(
        self,
        policy: str | type[MixturePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        num_experts: int = 4,
        estimator: str = "frequency",
        gumbel_temperature: float = 1.0,
        batch_reward_scale: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        refuse_experts(num_experts, policy_kwargs)
        if estimator not in ESTIMATORS:
            raise unknown_name("estimator", estimator, ESTIMATORS)
        for name, value in (("gumbel_temperature", gumbel_temperature), ("batch_reward_scale", batch_reward_scale)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} must be positive, got {value!r}")
        if gumbel_temperature != 1.0 and estimator != "gumbel_softmax":
            raise UsageError(f"gumbel_temperature has a meaning for estimator='gumbel_softmax' only, got {estimator!r}")
        self.num_experts, self.estimator = num_experts, estimator
        self.gumbel_temperature, self.batch_reward_scale = gumbel_temperature, batch_reward_scale
        policy_kwargs = {**(policy_kwargs or {}), "num_experts": num_experts}
        super().__init__(policy, env, learning_rate, policy_kwargs=policy_kwargs, **kwargs)

    def _make_update(self) -> PMOEUpdate:
        return self.policy.make_update(
            self.batch_size,
            estimator=self.estimator,
            gumbel_temperature=self.gumbel_temperature,
            reward_scale=self.batch_reward_scale,
        )

    def expert_weights(self, observation: np.ndarray) -> np.ndarray:
        """Return how likely each expert is to act, [K] for one observation or [B, K] for a batch of them."""
        shown, is_batch = self.policy.obs_to_tensor(observation)
        assert isinstance(shown, torch.Tensor)
        with torch.no_grad():
            weights = self.policy.log_weights(shown.flatten(1).float()).exp().cpu().numpy()
        return weights if is_batch else weights[0]
