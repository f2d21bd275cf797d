"""Twin delayed deep deterministic policy gradient, online."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import check_non_negative, check_positive_int
from polyathlon.registration import register_agent

from .agent import OffPolicyAgent
from .bounded_policy import BoundedPolicy
from .td3_update import TD3Update


class DeterministicPolicy(BoundedPolicy):
    """A deterministic actor with a target copy, and twin critics."""

    def make_update(self, batch_size: int) -> TD3Update:
        """Return the gradient step of these networks."""
        return TD3Update(self, batch_size)


@register_agent(
    "td3", family="off_policy", summary="twin delayed deep deterministic policy gradient, for continuous actions"
)
class TD3(OffPolicyAgent):
    """TD3 (Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods"), an SB3 algorithm.

    The constructor's words are those of SB3's TD3; the networks have two layers of 256 units, as in the authors' code, and
    exploration adds Gaussian noise as in the paper (SB3 has none unless told).

    Args:
        policy: "MlpPolicy", or a subclass of `DeterministicPolicy`.
        env: an id or an environment with a bounded Box of actions and a flat Box of observations; see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        buffer_size: number of transitions kept.
        learning_starts: transitions taken with random actions before learning starts.
        batch_size: transitions in a gradient step.
        tau: how far the targets move towards the networks, at each step of the actor.
        gamma: discount factor.
        train_freq: steps of every environment between updates.
        gradient_steps: gradient steps in an update; -1 means as many as transitions were taken since the last one.
        policy_delay: steps of the critics for each step of the actor and the targets.
        target_policy_noise: standard deviation of the noise on the target action.
        target_noise_clip: bound of that noise.
        exploration_noise: standard deviation of the noise on actions, as a share of half their range.
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products where the processor has them.
        **kwargs: `policy_kwargs`, `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a number is impossible, or the environment's form does not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": DeterministicPolicy}
    policy: DeterministicPolicy
    _update: TD3Update | None

    def __init__(
        self,
        policy: str | type[DeterministicPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        exploration_noise: float = 0.1,
        matmul_precision: str = "highest",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            matmul_precision,
            **kwargs,
        )
        check_positive_int(policy_delay=policy_delay)
        check_non_negative(
            target_policy_noise=target_policy_noise,
            target_noise_clip=target_noise_clip,
            exploration_noise=exploration_noise,
        )
        self.policy_delay = policy_delay
        self.target_policy_noise, self.target_noise_clip = target_policy_noise, target_noise_clip
        self.exploration_noise = exploration_noise
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        # SB3's names, which its users and callbacks reach for
        self.actor, self.actor_target = self.policy.actor, self.policy.actor_target
        self.critic, self.critic_target = self.policy.critic, self.policy.critic_target

    def _explore(self, obs: Tensor) -> Tensor:
        action = self.policy.mean_action(obs)
        noise = torch.randn(action.shape, generator=self.generator, device=self.device)
        return action.add_(noise, alpha=self.exploration_noise).clamp_(-1, 1)

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        update = self._update
        assert update is not None
        update.step(batch, learning_rate, self.gamma, self.target_policy_noise, self.target_noise_clip, self.generator)
        if self._n_updates % self.policy_delay == 0:
            update.actor_step(batch, learning_rate, self.tau)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "actor_target", "critic", "critic_target"]
