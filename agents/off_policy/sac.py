"""Soft actor-critic."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import check_positive_int
from polyathlon.registration import register_agent

from .agent import OffPolicyAgent
from .sac_policy import SquashedGaussianPolicy
from .sac_update import SACUpdate
from .temperature import HasTemperature


@register_agent("sac", family="off_policy", summary="soft actor-critic, for continuous actions")
class SAC(HasTemperature, OffPolicyAgent):
    """Soft actor-critic (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"), an SB3 algorithm.

    The constructor's words and defaults are those of SB3's SAC. Transitions lie in one tensor on the device, derivatives
    are written out, and all memory of a gradient step is allocated once.

    Args:
        policy: "MlpPolicy", or a subclass of `SquashedGaussianPolicy`.
        env: an id or an environment with a bounded Box of actions and a flat Box of observations; see `Agent`.
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
        policy_kwargs: `net_arch`, `n_critics` and so on, of SB3's SAC policy.
        **kwargs: `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a number is impossible, or the environment's form does not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": SquashedGaussianPolicy}
    policy: SquashedGaussianPolicy
    _update: SACUpdate | None

    def __init__(
        self,
        policy: str | type[SquashedGaussianPolicy],
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
        check_positive_int(target_update_interval=target_update_interval)
        self.ent_coef, self.target_entropy = ent_coef, target_entropy
        self.target_update_interval = target_update_interval
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        assert isinstance(self.policy, SquashedGaussianPolicy)
        # SB3's names, which its users and callbacks reach for
        self.actor, self.critic, self.critic_target = self.policy.actor, self.policy.critic, self.policy.critic_target
        size = int(np.prod(self.action_space.shape or ()))
        self._setup_temperature(-float(size))

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        self._set_temperature_rate(learning_rate)
        assert self._update is not None
        self._update.step(
            batch,
            self.log_ent_coef,
            self.ent_coef_optimizer,
            learning_rate,
            self.gamma,
            self.tau if self._n_updates % self.target_update_interval == 0 else 0.0,
            self._entropy_goal,
            self.generator,
        )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "critic", "critic_target"]
