"""Soft actor-critic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.engine import Loss, Method, Network, Scalar, replace_loss
from polyathlon.agents.parts.keywords import OffPolicyWords
from polyathlon.agents.parts.targets import temperature_loss
from polyathlon.agents.parts.wiring import Noise, Target
from polyathlon.envs.errors import UsageError, check_finite, check_positive_int
from polyathlon.registration import register_agent

from . import near_reference
from .agent import OffPolicy
from .networks import SquashedActor, critics, read_sizes
from .policy import MethodPolicy


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
) -> Tensor:
    """Half the squared error against r + discount (min_i Q_i'(s', a') - alpha log pi(a' | s')), summed over the critics."""
    next_action, next_logp = actor(next_obs).sample(next_noise)
    value = critic_target(next_obs, next_action).amin(0) - log_alpha.exp() * next_logp
    backup = reward + discount * value
    return 0.5 * (critic(obs, action) - backup).square().mean(1).sum()


def actor(actor: Any, critic: Any, log_alpha: Tensor, obs: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of alpha log pi(a | s) - min_i Q_i(s, a), with a drawn from the actor."""
    action, logp = actor(obs).sample(noise)
    loss = (log_alpha.exp() * logp - critic(obs, action).amin(0)).mean()
    return loss, {"logp": logp, "ent_coef": log_alpha.exp()}


def temperature(
    log_alpha: Tensor, logp: Tensor, action: Tensor, *, target_entropy: Any = None, entropy_per_action: Any = -1.0
) -> Tensor:
    """-log alpha (mean log pi + target), `logp` from before the actor's step; the target is -A where None is given."""
    goal = entropy_per_action * action.shape[-1] if target_entropy is None else target_entropy
    return temperature_loss(log_alpha, logp, goal)


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A squashed Gaussian actor, critics, and the logarithm of the temperature."""
    sizes = read_sizes(observation_space, action_space, policy_kwargs)
    return sizes.behind({"actor": Network(SquashedActor(sizes)), "critic": critics(sizes), "log_alpha": Scalar(0.0)})


sac = Method(
    networks=networks,
    losses=(
        Loss("critic", critic),
        Loss("actor", actor, publishes=("logp",)),
        Loss("log_alpha", temperature, name="ent_coef"),
    ),
    targets={"critic": Target("ema", tau=0.005)},
    noise={"noise": Noise("normal", ("batch", "action")), "next_noise": Noise("normal", ("batch", "action"))},
)


def networks_near(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """`networks`, and a reference that no loss moves."""
    words = dict(policy_kwargs)
    record = words.pop(near_reference.REFERENCE)
    made = networks(observation_space, action_space, words, generator)
    reference = near_reference.reference_network(observation_space, action_space, record, generator)
    return {**made, near_reference.REFERENCE: reference}


sac_near = replace(replace_loss(sac, critic=near_reference.critic, actor=near_reference.actor), networks=networks_near)


@register_agent("sac", family="off_policy", summary="soft actor-critic, for continuous actions")
class SAC(OffPolicy):
    """Soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"), an SB3 algorithm.

    The constructor's words and defaults are those of SB3's SAC. A step moves the critics, the actor, the temperature and the
    target critics, in this order; the temperature sees the log-probability from before the actor's step. `sac` in this file
    is the row; `method=replace_loss(sac, critic=my_critic)` changes it.

    Args:
        policy: "MlpPolicy", "CnnPolicy" (pictures), "MultiInputPolicy" (a Dict), or a subclass of `MethodPolicy`.
        env: an id or an environment with a bounded Box of actions; the observation is a Box, or a Dict of arrays. See `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        buffer_size: number of transitions kept.
        learning_starts: transitions taken with random actions before learning starts.
        batch_size: transitions in a gradient step.
        tau: Polyak coefficient, target = (1 - tau) target + tau critic.
        gamma: discount factor.
        train_freq: steps of every environment between updates.
        gradient_steps: gradient steps in an update; -1 means as many as transitions were taken since the last one.
        ent_coef: the temperature; "auto" learns it, "auto_0.1" starts from 0.1.
        target_entropy: entropy that "auto" aims at; "auto" is minus the number of action components.
        target_update_interval: gradient steps between moves of the target critics.
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products where the processor has them.
        reference: a trained agent whose policy has a density, such as `BC`: the divergence from it takes the place of the entropy, with
            `ent_coef`, a number then, as its weight. Its weights join the agent's.
        **kwargs: those of `OffPolicy`: `method`, `compile`, `dataset`, `policy_kwargs` (SB3's words:
            `net_arch`, `activation_fn`, `n_critics`, of features extractors, of Adam), `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log` and so on.

    Raises:
        UsageError: a number is impossible, or the environment's form does not fit.
    """

    row = sac

    def __init__(
        self,
        policy: str | type[MethodPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        ent_coef: str | float = "auto",
        target_entropy: str | float = "auto",
        target_update_interval: int = 1,
        matmul_precision: str = "highest",
        *,
        reference: Any = None,
        **kwargs: Unpack[OffPolicyWords],
    ) -> None:
        check_positive_int(target_update_interval=target_update_interval)
        parse_temperature(ent_coef)
        if not isinstance(target_entropy, str):
            check_finite(target_entropy=target_entropy)
        elif target_entropy != "auto":
            raise UsageError(f"target_entropy must be a finite number or 'auto', got {target_entropy!r}")
        self.ent_coef, self.target_entropy, self._reference = ent_coef, target_entropy, reference
        self.target_update_interval = target_update_interval
        sizes = (buffer_size, learning_starts, batch_size, tau, gamma, train_freq, gradient_steps)
        super().__init__(policy, env, learning_rate, *sizes, matmul_precision, **kwargs)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `OffPolicy.method_words`."""
        goal = None if self.target_entropy == "auto" else float(self.target_entropy)
        return {
            **super().method_words(method),
            "target_update_interval": {"critic_target.every": self.target_update_interval},
            "target_entropy": {"ent_coef.target_entropy": goal},
        }

    def own_row(self) -> Method | None:
        """See `MethodAgent.own_row`."""
        if self._reference is not None:
            self._refuse_reference()
            spaces = (self.observation_space, self.action_space)
            record = near_reference.reference_record(self._reference, *spaces)
            self.policy_kwargs = {**self.policy_kwargs, near_reference.REFERENCE: record}
        return sac_near if near_reference.REFERENCE in self.policy_kwargs else super().own_row()

    def _refuse_reference(self) -> None:
        if type(self).row is not sac or self._given_method is not None:
            raise UsageError(
                f"reference= is a word of SAC's own method, which {type(self).__name__} does not learn by here"
            )
        if isinstance(self.ent_coef, str):
            raise UsageError(
                f"with a reference ent_coef is the weight of the divergence from it, a number such as 0.05; got {self.ent_coef!r}"
            )

    def update_every(self, *losses: str) -> dict[str, object]:
        """Return the words by which losses take one turn in an update, whose other steps are the critics' alone."""
        taken = self.train_freq * max(1, self.n_envs)
        return {f"{loss}.every": taken if self.gradient_steps < 0 else self.gradient_steps for loss in losses}

    def make_method(self) -> Method:
        """See `MethodAgent.make_method`."""
        method = super().make_method()
        if parse_temperature(self.ent_coef)[1]:
            return method
        return replace(method, losses=tuple(loss for loss in method.losses if loss.key != "ent_coef"))

    def _start_networks(self) -> None:
        if self._reference is not None:
            self._refuse_reference()
            near_reference.take_weights(self.networks[near_reference.REFERENCE], self._reference)
            self._reference = None  # its weights are the agent's now
        if "log_alpha" in self.networks:
            self.networks["log_alpha"].vector.fill_(math.log(parse_temperature(self.ent_coef)[0]))

    @property
    def log_ent_coef(self) -> Tensor:
        """The logarithm of the temperature, [1]."""
        vector: Tensor = self.networks["log_alpha"].vector
        return vector


def parse_temperature(ent_coef: Any) -> tuple[float, bool]:
    """Return the first temperature and whether it is learned.

    Raises:
        UsageError: it is neither a positive number nor "auto" nor "auto_NUMBER".
    """
    try:
        if isinstance(ent_coef, str):
            head, _, tail = ent_coef.partition("_")
            initial = float(tail or 1.0) if head == "auto" else float("nan")
        else:
            initial = float(ent_coef)
    except (TypeError, ValueError):
        initial = float("nan")
    if not (initial > 0 and math.isfinite(initial)):
        raise UsageError(f"ent_coef must be a positive number, 'auto' or 'auto_0.1', got {ent_coef!r}")
    return initial, isinstance(ent_coef, str)
