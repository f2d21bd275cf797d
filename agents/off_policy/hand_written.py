"""Agents whose gradient steps have their derivatives written out, and what these have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from polyathlon.agents.parts.products import hidden_dtype
from polyathlon.agents.parts.replay import Transitions
from polyathlon.envs.errors import check_positive_int

from .replay_agent import ReplayAgent
from .sac_policy import SquashedGaussianPolicy
from .sac_update import SACUpdate
from .temperature import HasTemperature


class HandWrittenAgent(ReplayAgent):
    """Base of agents with hand-written gradient steps.

    A subclass names its policy, whose `make_update` returns the memory of a gradient step, names its networks that have an
    optimiser in `optimizers`, and takes one gradient step in `_gradient_step`. Arguments are those of `ReplayAgent`.
    """

    optimizers: ClassVar[tuple[str, ...]] = ("actor", "critic")  # those networks of the policy that have one
    _update: Any = None

    def _setup_model(self) -> None:
        self._setup_spaces()
        with self.seeded_initialisation():
            self.policy = self.policy_class(
                self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
            ).to(self.device)
        self.policy.product_dtype = hidden_dtype(self.matmul_precision, self.device)
        self.policy.flatten_parameters()
        self.policy.generator = self._prediction_generator
        for name in self.optimizers:
            optimizer = getattr(self.policy, name).optimizer
            self.register_state(f"policy.{name}.optimizer", optimizer)
        self.register_state("metrics", MetricsState(self), checkpoint_only=True)

    def _ready(self) -> Any:
        """Return the gradient step with its memory, made at first use."""
        super()._ready()
        if self._update is None or self._update.batch_size != self.batch_size:
            self._update = self._make_update()
        return self._update

    def _make_update(self) -> Any:
        return self.policy.make_update(self.batch_size)

    def _gradient_step(self, batch: Transitions, learning_rate: float) -> None:
        """Take one gradient step on a minibatch; `_n_updates` counts it already."""
        raise NotImplementedError

    def _train(self, gradient_steps: int) -> None:
        """Take gradient steps on samples of the replay buffer."""
        self._ready()
        assert self.replay is not None
        rate = self.lr_schedule(self._current_progress_remaining)
        before = torch.get_float32_matmul_precision()
        # where layers are kept in bfloat16, the thin products that are left are faster in float32
        wanted = "highest" if self.policy.product_dtype is torch.bfloat16 else self.matmul_precision
        if wanted != before:
            torch.set_float32_matmul_precision(wanted)
        try:
            for _ in range(gradient_steps):
                self._n_updates += 1
                self._gradient_step(self.replay.sample(self.batch_size, self.generator), rate)
        finally:
            if wanted != before:
                torch.set_float32_matmul_precision(before)

    def _report(self) -> dict[str, float]:
        update = self._update
        return {} if update is None or not update.count else update.report()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_update"]


class MetricsState:
    """The metrics that wait for the next record, as a state of the agent.

    Args:
        agent: has the gradient step that counts them.
    """

    def __init__(self, agent: HandWrittenAgent) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and the number of steps in them."""
        update = self.agent._update
        return {"sums": None} if update is None else {"sums": update.metrics.clone(), "count": update.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on adding to them."""
        if state["sums"] is not None:
            update = self.agent._ready()
            update.metrics.copy_(state["sums"])
            update.count = state["count"]


class HandWrittenSAC(HasTemperature, HandWrittenAgent):
    """Soft actor-critic with its derivatives written out: the base of PMOE. Arguments are those of `SAC`."""

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
