"""Probabilistic mixture of experts on proximal policy optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.engine import Adam, Loss, Method, Network
from polyathlon.agents.parts.expert_routing import frequency_loss, picks, refuse_experts
from polyathlon.agents.parts.keywords import PPOWords
from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.registration import register_agent

from . import ppo as plain
from .pmoe_ppo_policy import MixtureActorCritic, joint_entropy
from .ppo import NUMBERS, PPO, clipped_loss


def mixture_loss(
    model: Any,
    obs: Any,
    action: Tensor,
    action_mask: Tensor | None,
    old_logp: Tensor,
    old_value: Tensor,
    adv: Tensor,
    returns: Tensor,
    *,
    clip_range: Any = 0.2,
    clip_range_vf: Any = None,
    normalize_advantage: bool = True,
    ent_coef: Any = 0.0,
    vf_coef: Any = 0.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss of a mixture, whose router learns from the surrogate alone: by the score ratio."""
    seen = model(obs, action_mask)
    loss, parts = clipped_loss(
        seen.action.log_prob(action),
        seen.value,
        joint_entropy(seen.action),
        old_logp,
        old_value,
        adv,
        returns,
        clip_range=clip_range,
        clip_range_vf=clip_range_vf,
        normalize_advantage=normalize_advantage,
        ent_coef=ent_coef,
        vf_coef=vf_coef,
    )
    return loss, {**parts, **by_expert("weight", seen.action.log_w.exp())}


def frequency_mixture_loss(
    model: Any,
    judge: Any,
    obs: Any,
    action: Tensor,
    action_mask: Tensor | None,
    old_logp: Tensor,
    old_value: Tensor,
    adv: Tensor,
    returns: Tensor,
    noise: Tensor,
    *,
    clip_range: Any = 0.2,
    clip_range_vf: Any = None,
    normalize_advantage: bool = True,
    ent_coef: Any = 0.0,
    vf_coef: Any = 0.5,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss of a mixture + frequency loss of its router + (Q(s, a) - return)^2 (Ren et al. 2021).

    `noise` [B, K, A] draws one action of every expert (normal, or Gumbel where it chooses); the router learns whose is worth most
    by Q, which sees choices one-hot.
    """
    seen = model(obs, action_mask)
    loss, parts = clipped_loss(
        seen.action.log_prob(action),
        seen.value,
        joint_entropy(seen.action),
        old_logp,
        old_value,
        adv,
        returns,
        clip_range=clip_range,
        clip_range_vf=clip_range_vf,
        normalize_advantage=normalize_advantage,
        ent_coef=ent_coef,
        vf_coef=vf_coef,
    )
    weights, features = seen.action.log_w.exp(), seen.features.detach()
    with torch.no_grad():
        tried = seen.action.encoded(seen.action.experts(noise)[0])
        spread = features.unsqueeze(1).expand(-1, tried.shape[1], -1)
        q = judge(torch.cat([spread, tried], -1)).squeeze(-1)
    router_loss = frequency_loss(weights, q)
    q_loss = (judge(torch.cat([features, seen.action.encoded(action)], -1)).squeeze(-1) - returns).square().mean()
    parts |= {"router_loss": router_loss, "q_loss": q_loss, **by_expert("weight", weights)}
    parts |= by_expert("picked", picks(q.argmax(-1), q.shape[-1], q.dtype))
    return loss + router_loss + q_loss, parts


def by_expert(name: str, values: Tensor) -> dict[str, Tensor]:
    """Name the means of [B, K] values of each expert for the log."""
    return {f"experts/{name}_{k}": value for k, value in enumerate(values.detach().mean(0).unbind(0))}


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """The mixture with its critic, and the judge Q(s, a) of its experts."""
    words = {"policy_class": MixtureActorCritic, **policy_kwargs}
    made = plain.networks(observation_space, action_space, words, generator)
    policy = made["model"].modules[0].policy
    if not isinstance(policy, MixtureActorCritic) or policy.num_experts < 2:
        raise UsageError(f"a mixture needs a MixtureActorCritic of several experts, got {type(policy).__name__}")
    return {**made, "judge": Network(policy.q_net)}


pmoe_ppo = Method(
    networks=networks,
    losses=(
        Loss(
            ("model", "judge"),
            frequency_mixture_loss,
            Adam(max_grad_norm=0.5, eps=1e-5),
            options=NUMBERS,
            name="policy",
        ),
    ),
    noise={"noise": Noise("normal", ("batch", "num_experts", "action"))},
    policy="model",
)
score_ratio_ppo = Method(
    networks=networks,
    losses=(Loss("model", mixture_loss, Adam(max_grad_norm=0.5, eps=1e-5), options=NUMBERS, name="policy"),),
    policy="model",
)

CHOICE_NOISE = Noise("gumbel", ("batch", "num_experts", "choices"))  # where actions are choices
ESTIMATORS = ("frequency", "score_ratio")


@register_agent(
    "pmoe_ppo",
    family="on_policy",
    summary="mixture of experts on proximal policy optimisation, for continuous actions and several choices",
)
class PMOEPPO(PPO):
    """Probabilistic mixture of experts on PPO (Ren et al. 2021, arXiv 2104.09122).

    The probability ratio is that of the whole mixture. A network Q(s, a) is regressed on the returns; in every minibatch
    one action of each expert is drawn and the router learns how often the action of each is worth most (the frequency
    loss), besides what the surrogate tells it (`pmoe_ppo` in this file is the row). `predict(deterministic=True)` takes the mean of the expert with the largest
    weight. With one expert it is PPO.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", or a subclass of `MixtureActorCritic`.
        env: an id or an environment with actions of a Box, or several choices (MultiDiscrete, MultiBinary); see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        num_experts: number of experts K.
        estimator: "frequency" is the paper's; "score_ratio" leaves the router to the surrogate alone, without Q.
        policy_kwargs: keyword arguments of the policy.
        **kwargs: all further arguments of `PPO`.

    Raises:
        UsageError: a number is impossible, an estimator is not known, or the environment's actions are of another form.
    """

    action_forms = ("box", "multidiscrete")
    fixed_words = (*PPO.fixed_words, "num_experts")
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
        **kwargs: Unpack[PPOWords],
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

    def own_row(self) -> Method:
        """The row of the estimator; with one expert that of PPO."""
        rows = {"frequency": pmoe_ppo, "score_ratio": score_ratio_ppo}
        return plain.ppo if self.num_experts == 1 else rows[self.estimator]

    def _setup_model(self) -> None:
        super()._setup_model()
        self._sizes |= {"num_experts": self.num_experts, "choices": self.policy.mask_width}

    def _final_method(self, method: Method) -> Method:
        if self.policy.choices and method.noise.get("noise") == pmoe_ppo.noise["noise"]:
            method = replace(method, noise={**method.noise, "noise": CHOICE_NOISE})
        return super()._final_method(method)

    def expert_weights(self, observation: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """Return how likely each expert is to act, [K] for one observation or [B, K] for a batch of them."""
        assert isinstance(self.policy, MixtureActorCritic)
        shown, is_batch = self.policy.obs_to_tensor(observation)
        with torch.no_grad():
            weights = self.policy.mixture(self.policy.extract_features(shown))[0].exp().cpu().numpy()
        return weights if is_batch else weights[0]
