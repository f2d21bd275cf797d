"""Reinforcement learning with prior data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.registration import register_agent

from .ensemble_agent import EnsembleAgent
from .rlpd_policy import EnsemblePolicy
from .rlpd_update import RLPDUpdate

if TYPE_CHECKING:
    from minari import MinariDataset


@register_agent(
    "rlpd", family="off_policy", summary="soft actor-critic with a critic ensemble and half of its data from a dataset"
)
class RLPD(EnsembleAgent):
    """RLPD (Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data"), an SB3 algorithm.

    Soft actor-critic with an ensemble of critics with layer normalisation, targets from a random few of them, an actor on
    the mean of all, many critic steps for each step in the environment, and half of every minibatch from a dataset.
    All critics are one batched product a layer. The paper takes 20 gradient steps, ten critics and 5,000 random steps.

    Args:
        policy: "MlpPolicy", or a subclass of `EnsemblePolicy`.
        env: an id or an environment with a bounded Box of actions and a flat Box of observations; see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        dataset: a local Minari dataset: its id, its folder or Minari's object; None learns from own experience alone.
        offline_ratio: share of the dataset's transitions in a minibatch.
        buffer_size: number of own transitions kept.
        learning_starts: transitions taken with random actions before learning starts.
        batch_size: transitions in a gradient step.
        tau: Polyak coefficient, target = (1 - tau) target + tau critic.
        gamma: discount factor.
        train_freq: steps of every environment between updates.
        gradient_steps: steps of the critics in an update; -1 means as many as transitions were taken since the last one.
        num_min_critics: members of the ensemble, drawn afresh each step, whose smallest value is the target's.
        backup_entropy: put the next action's entropy into the targets; the paper leaves it out where rewards are sparse.
        ent_coef: the temperature; "auto" learns it, "auto_0.1" starts from 0.1.
        target_entropy: entropy that "auto" aims at; "auto" is minus half the number of action components.
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products in the critics.
        policy_kwargs: `net_arch`, `n_critics` (10), `layer_norm` (True) and so on.
        **kwargs: `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a number is impossible, or the environment's form or the dataset does not fit.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": EnsemblePolicy}
    policy: EnsemblePolicy
    _update: RLPDUpdate | None

    def __init__(
        self,
        policy: str | type[EnsemblePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        dataset: str | Path | MinariDataset | None = None,
        offline_ratio: float = 0.5,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 2,
        num_min_critics: int = 2,
        backup_entropy: bool = True,
        ent_coef: str | float = "auto",
        target_entropy: str | float = "auto",
        matmul_precision: str = "highest",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate,
            dataset=dataset,
            offline_ratio=offline_ratio,
            num_min_critics=num_min_critics,
            ent_coef=ent_coef,
            target_entropy=target_entropy,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            matmul_precision=matmul_precision,
            **kwargs,
        )
        self.backup_entropy = backup_entropy
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.actor = self.policy.actor

    def _update_step(self, rows: Tensor, learning_rate: float) -> None:
        assert self._update is not None
        self._update.step(
            rows,
            self.log_ent_coef,
            self.ent_coef_optimizer,
            learning_rate,
            self.gamma,
            self.tau,
            self._entropy_goal,
            self.backup_entropy,
            self.generator,
        )

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor"]
