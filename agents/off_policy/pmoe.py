"""Probabilistic mixture of experts: soft actor-critic with a policy of several Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine import Loss, Method, Network, Scalar, replace_loss
from polyathlon.agents.engine.distributions import SquashedMixture
from polyathlon.agents.parts.expert_routing import (
    frequency_loss,
    picks,
    refuse_experts,
    relaxed_choice,
    score_ratio_loss,
)
from polyathlon.agents.parts.gaussian_mixture import of_expert, tanh_gmm_logp
from polyathlon.agents.parts.keywords import MixtureWords
from polyathlon.agents.parts.squashed_gaussian import SAC_LOG_STD_MAX, SAC_LOG_STD_MIN
from polyathlon.agents.parts.wiring import Noise
from polyathlon.envs.errors import UsageError, check_positive, unknown_name
from polyathlon.registration import register_agent

from .networks import Sizes, critics, of_candidates, read_sizes
from .policy import MethodPolicy
from .sac import SAC, sac, temperature

Published = tuple[Tensor, dict[str, Tensor]]


def critic(
    critic: Any,
    critic_target: Any,
    actor: Any,
    log_alpha: Tensor,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    discount: Tensor,
    next_noise: Tensor,
    next_gumbel: Tensor,
    *,
    density: str = "expert",
    batch_reward_scale: Any = None,
) -> Tensor:
    """SAC's loss of critics, a' of the expert that argmax(log w + gumbel) draws at s', pi its density or the mixture's."""
    mixture = actor(next_obs)
    expert = mixture.expert((mixture.log_w + next_gumbel).argmax(-1))
    next_action, next_logp = expert.sample(next_noise)
    if density == "mixture":
        u = expert.mean + expert.log_std.exp() * next_noise
        next_logp = tanh_gmm_logp(mixture.log_w, mixture.mean, mixture.log_std, u)
    if batch_reward_scale is not None:
        reward = batch_reward_scale * (reward - reward.mean()) / (reward.std() + 1e-6)
    value = critic_target(next_obs, next_action).amin(0) - log_alpha.exp() * next_logp
    return 0.5 * (critic(obs, action) - reward - discount * value).square().mean(1).sum()


def frequency(actor: Any, critic: Any, log_alpha: Tensor, obs: Tensor, noise: Tensor) -> Published:
    """Mean of alpha log pi_b - Q(s, a_b) for the expert b whose action is worth most, and (w_k - 1[k = b])^2 of the router."""
    mixture, alpha = actor(obs), log_alpha.exp()
    # all are valued without gradient, the best again with it
    values = _values(critic, obs, SquashedMixture(*(part.detach() for part in mixture)).experts(noise)[0])
    best = values.argmax(-1)
    action, logp = mixture.expert(best).sample(of_expert(noise, best))
    q, router = critic(obs, action).amin(0), frequency_loss(mixture.log_w.exp(), values)
    told = _told(mixture, picks(best, values.shape[-1], values.dtype), alpha, logp, q)
    return (alpha * logp - q).mean() + router, {**told, "router_loss": router}


def backprop_all(actor: Any, critic: Any, log_alpha: Tensor, obs: Tensor, noise: Tensor) -> Published:
    """As `frequency`, but every expert learns from its own action: the sum of alpha log pi_k - Q(s, a_k) over k."""
    mixture, alpha = actor(obs), log_alpha.exp()
    actions, logps = mixture.experts(noise)
    values = _values(critic, obs, actions)
    picked = picks(values.argmax(-1), values.shape[-1], values.dtype)
    router = frequency_loss(mixture.log_w.exp(), values)
    told = _told(mixture, picked, alpha, (picked * logps).sum(-1), (picked * values).sum(-1))
    return (alpha * logps - values).sum(-1).mean() + router, {**told, "router_loss": router}


def score_ratio(actor: Any, critic: Any, log_alpha: Tensor, obs: Tensor, noise: Tensor, gumbel: Tensor) -> Published:
    """-mean of g = Q(s, a_i) - alpha log pi_i for the expert i that is drawn, and of sg(g) log w_i."""
    mixture, alpha = actor(obs), log_alpha.exp()
    expert = (mixture.log_w + gumbel).argmax(-1)
    action, logp = mixture.expert(expert).sample(of_expert(noise, expert))
    q = critic(obs, action).amin(0)
    router = score_ratio_loss(mixture.log_w, expert, q - alpha * logp)
    told = _told(mixture, picks(expert, noise.shape[1], q.dtype), alpha, logp, q)
    return (alpha * logp - q).mean() + router, {**told, "router_loss": router}


def gumbel_softmax(
    actor: Any,
    critic: Any,
    log_alpha: Tensor,
    obs: Tensor,
    noise: Tensor,
    gumbel: Tensor,
    *,
    gumbel_temperature: Any = 1.0,
) -> Published:
    """Mean of alpha log pi(a) - Q(s, a), a = sum_k y_k a_k with a relaxed choice y, pi the whole mixture."""
    mixture, alpha = actor(obs), log_alpha.exp()
    choice = relaxed_choice(mixture.log_w, gumbel, gumbel_temperature)
    action = (choice.unsqueeze(-1) * mixture.experts(noise)[0]).sum(1)
    logp, q = mixture.log_prob(action), critic(obs, action).amin(0)
    return (alpha * logp - q).mean(), _told(mixture, choice, alpha, logp, q)


def _values(critic: Any, obs: Tensor, actions: Tensor) -> Tensor:
    """The lowest values [B, K] of actions [B, K, A]."""
    return of_candidates(critic, obs, actions).amin(0)


def _told(mixture: Any, picked: Tensor, alpha: Tensor, logp: Tensor, q: Tensor) -> dict[str, Tensor]:
    """What is published: the experts' part of the loss, each expert's mean weight, and how often it was picked."""
    both = {"weight": mixture.log_w.exp(), "picked": picked}
    shares = {f"experts/{name}_{k}": x for name, w in both.items() for k, x in enumerate(w.mean(0).unbind())}
    return {"logp": logp, "ent_coef": alpha, "actor_loss": alpha * logp.mean() - q.mean(), **shares}


class MixtureActor(nn.Module):
    """K squashed Gaussians on one trunk, and a linear router that reads the observation; all are equally likely at first.

    Args:
        sizes: of the perceptrons.
        num_experts: K.
    """

    def __init__(self, sizes: Sizes, num_experts: int) -> None:
        super().__init__()
        width, outputs = (sizes.actor or [sizes.obs])[-1], num_experts * sizes.action
        self.latent_pi = nn.Sequential(*create_mlp(sizes.obs, -1, sizes.actor, sizes.activation))
        self.mu, self.log_std = nn.Linear(width, outputs), nn.Linear(width, outputs)
        self.router = nn.Linear(sizes.obs, num_experts)
        nn.init.zeros_(self.router.weight)
        nn.init.zeros_(self.router.bias)
        self.shape = (num_experts, sizes.action)

    def forward(self, obs: Tensor) -> SquashedMixture:
        """Return the distribution at observations [B, O]."""
        latent = self.latent_pi(obs)
        mean, log_std = (head(latent).unflatten(-1, self.shape) for head in (self.mu, self.log_std))
        log_w = self.router(obs).log_softmax(-1)
        return SquashedMixture(log_w, mean, log_std.clamp(SAC_LOG_STD_MIN, SAC_LOG_STD_MAX))


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A mixture of squashed Gaussians, critics, and the logarithm of the temperature."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs, others=("num_experts",))
    actor = MixtureActor(sizes, policy_kwargs.get("num_experts", 4))
    return sizes.behind({"actor": Network(actor), "critic": critics(sizes), "log_alpha": Scalar(0.0)})


pmoe = Method(
    networks=networks,
    losses=(
        Loss("critic", critic, options={"density": "expert", "batch_reward_scale": None}),
        Loss("actor", frequency, publishes=("logp",)),
        Loss("log_alpha", temperature, name="ent_coef"),
    ),
    targets=sac.targets,
    noise={
        "noise": Noise("normal", ("batch", "num_experts", "action")),
        "next_noise": Noise("normal", ("batch", "action")),
        "gumbel": Noise("gumbel", ("batch", "num_experts")),
        "next_gumbel": Noise("gumbel", ("batch", "num_experts")),
    },
)
ESTIMATORS: dict[str, Callable[..., Published]] = {
    "frequency": frequency,
    "backprop_all": backprop_all,
    "score_ratio": score_ratio,
    "gumbel_softmax": gumbel_softmax,
}


def estimated_by(estimator: str) -> Method:
    """Return PMOE's row with another estimator.

    Raises:
        UsageError: it is not known.
    """
    if estimator not in ESTIMATORS:
        raise unknown_name("estimator", estimator, ESTIMATORS)
    density = "mixture" if estimator == "gumbel_softmax" else "expert"
    values = replace(pmoe.losses[0], options={**pmoe.losses[0].options, "density": density})
    return replace_loss(pmoe, critic=values, actor=ESTIMATORS[estimator])


@register_agent(
    "pmoe",
    family="off_policy",
    summary="mixture of experts on soft actor-critic, for continuous actions with several good choices",
)
class PMOE(SAC):
    """Probabilistic mixture of experts on soft actor-critic (Ren et al. 2021, arXiv 2104.09122).

    The policy is a mixture of K Gaussians; a router draws the expert that acts. Every gradient step draws one action of
    every expert: the expert whose action is worth most learns from it, and the router learns how often that is the case
    for each expert (the frequency loss), so that no gradient has to pass the choice. `predict(deterministic=True)` takes
    the mean of the expert with the largest weight. With one expert it is SAC.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: as of `SAC`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        num_experts: number of experts K.
        estimator: how router and experts learn: "frequency" is the paper's; "backprop_all" lets every expert learn from
            its own action; "score_ratio" draws an expert, which learns, and reinforces the choice by Q - alpha log pi;
            "gumbel_softmax" learns through a relaxed choice and the density of the whole mixture.
        gumbel_temperature: how soft the relaxed choice is; towards 0 it is a choice, with a noisier gradient.
        batch_reward_scale: standardise the rewards of each batch and multiply them by this, as the authors' code does with
            10; None takes the rewards as they are.
        policy_kwargs: as of `SAC`.
        **kwargs: all further arguments of `SAC`.

    Raises:
        UsageError: a number is impossible, an estimator is not known, or the environment's form does not fit.
    """

    row = pmoe
    fixed_words = (*SAC.fixed_words, "num_experts")

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        num_experts: int = 4,
        estimator: str = "frequency",
        gumbel_temperature: float = 1.0,
        batch_reward_scale: float | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        **kwargs: Unpack[MixtureWords],
    ) -> None:
        refuse_experts(num_experts, policy_kwargs)
        estimated_by(estimator)
        for name, value in (("gumbel_temperature", gumbel_temperature), ("batch_reward_scale", batch_reward_scale)):
            if value is not None:
                check_positive(**{name: value})
        if gumbel_temperature != 1.0 and estimator != "gumbel_softmax":
            raise UsageError(f"gumbel_temperature has a meaning for estimator='gumbel_softmax' only, got {estimator!r}")
        self.num_experts, self.estimator = num_experts, estimator
        self.gumbel_temperature, self.batch_reward_scale = gumbel_temperature, batch_reward_scale
        policy_kwargs = {**(policy_kwargs or {}), "num_experts": num_experts}
        super().__init__(policy, env, learning_rate, policy_kwargs=policy_kwargs, **kwargs)

    def own_row(self) -> Method:
        """See `OffPolicy.own_row`."""
        return estimated_by(self.estimator)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        scale = None if self.batch_reward_scale is None else float(self.batch_reward_scale)
        words: dict[str, dict[str, object]] = {
            **super().method_words(method),
            "batch_reward_scale": {"critic.batch_reward_scale": scale},
        }
        if self.estimator == "gumbel_softmax":
            words["gumbel_temperature"] = {"actor.gumbel_temperature": float(self.gumbel_temperature)}
        return words

    def expert_weights(self, observation: np.ndarray) -> np.ndarray:
        """Return how likely each expert is to act, [K] for one observation or [B, K] for a batch of them."""
        shown, is_batch = self.policy.obs_to_tensor(observation)
        assert isinstance(shown, Tensor)
        with torch.no_grad():
            weights: np.ndarray = self.policy.distribution(shown).log_w.exp().cpu().numpy()
        return weights if is_batch else weights[0]
