"""Expressive policy optimisation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.parts.replay import split_rows
from polyathlon.agents.parts.symmetric_sampling import symmetric_sample
from polyathlon.envs.errors import UsageError, check_fraction
from polyathlon.registration import register_agent

from .ensemble_agent import EnsembleAgent
from .expo_policy import ExpressivePolicy, check_candidates
from .expo_update import EXPOUpdate, average_rate

if TYPE_CHECKING:
    from minari import MinariDataset

SelfEXPO = TypeVar("SelfEXPO", bound="EXPO")


@register_agent(
    "expo", family="off_policy", summary="a diffusion or flow policy by imitation, edited and chosen by value"
)
class EXPO(EnsembleAgent):
    """EXPO (Dong et al. 2025, "EXPO: Stable Reinforcement Learning with Expressive Policies"), an SB3 algorithm.

    A diffusion (or flow) policy learns by imitation alone: of the dataset and of what was done since. A small Gaussian edit
    policy moves its samples uphill. Of some samples and their edits, the best by the critics is acted on, and stands for
    the next action in the critics' targets. So the expressive network never gets a gradient of a value.

    The defaults fit a processor. The paper takes `gradient_steps=20`, `num_samples=8`, `num_edits=8`, `base_steps=10`,
    `policy_kwargs={"net_arch": {"pi": [256] * 3, "qf": [256] * 3, "base": [256] * 3}}`, an `edit_scale` of 0.05 to 0.7, and
    `pretraining_steps` of 200,000 to 500,000 (then `learning_starts=0`) or 5,000 random steps.

    Pretraining leaves the critics as they began, and until they have learned, choosing by them can be worse than imitation. In
    the paper's hundreds of thousands of steps that does not matter; where there are a few thousand, `pretrain(n, values=True)` before
    `learn` trains the critics and the edit policy on the dataset as well. What no sample comes near, edits of `edit_scale`
    cannot reach: data of poor actions want a large one, or RLPD.

    Args:
        policy: "MlpPolicy", or a subclass of `ExpressivePolicy`.
        env: an id or an environment with a bounded Box of actions and a flat Box of observations; see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        dataset: a local Minari dataset: its id, its folder or Minari's object; None learns from own experience alone.
        offline_ratio: share of the dataset's transitions in a minibatch.
        pretraining_steps: gradient steps of the base policy on the dataset before the first step in the environment.
        base_policy: "diffusion" (DDPM) or "flow" (flow matching).
        base_steps: steps from noise to an action.
        num_samples: samples of the base policy that are tried.
        num_edits: how many of them are tried edited as well; 0 leaves the edit policy out.
        edit_scale: largest component of an edit, actions lying in [-1, 1].
        base_tau: how far the moving average of the base policy, which acts, moves after an update; more in the first ones.
        buffer_size: number of own transitions kept.
        learning_starts: transitions taken with random actions before learning starts.
        batch_size: transitions in a gradient step.
        tau: Polyak coefficient, target = (1 - tau) target + tau critic.
        gamma: discount factor.
        train_freq: steps of every environment between updates.
        gradient_steps: steps of the critics in an update; -1 means as many as transitions were taken since the last one.
        num_min_critics: members of the ensemble, drawn afresh each time, whose smallest value is believed.
        ent_coef: the temperature of the edits; "auto" learns it, "auto_0.1" starts from 0.1.
        target_entropy: entropy of the edits that "auto" aims at. "auto" is A (log(edit_scale) - 1/2): minus a half for each
            component before scaling. (The paper's -A / 2 is out of reach where `edit_scale` is below 0.3.)
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products in the critics and the sampler.
        policy_kwargs: `net_arch`, `n_critics` (10), `layer_norm` (True); see `ExpressivePolicy`.
        **kwargs: `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a number is impossible, or the environment's form or the dataset does not fit.
    """

    optimizers = ("base", "edit", "critic")
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ExpressivePolicy}
    policy: ExpressivePolicy
    _update: EXPOUpdate | None

    def __init__(
        self,
        policy: str | type[ExpressivePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        dataset: str | Path | MinariDataset | None = None,
        offline_ratio: float = 0.5,
        pretraining_steps: int = 0,
        base_policy: str = "diffusion",
        base_steps: int = 5,
        num_samples: int = 4,
        num_edits: int = 4,
        edit_scale: float = 0.1,
        base_tau: float = 0.001,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 2,
        num_min_critics: int = 2,
        ent_coef: str | float = "auto",
        target_entropy: str | float = "auto",
        matmul_precision: str = "highest",
        policy_kwargs: dict[str, Any] | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        candidates = check_candidates(num_samples, num_edits, edit_scale)
        own = {"base_policy": base_policy, "base_steps": base_steps, "candidates": tuple(candidates)}
        if set(own) & set(policy_kwargs or {}):
            raise UsageError(
                f"{sorted(own)} are set by EXPO's own arguments, not in policy_kwargs, got {policy_kwargs}"
            )
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
            policy_kwargs={**own, **(policy_kwargs or {})},
            **kwargs,
        )
        check_fraction(base_tau=base_tau)
        if pretraining_steps < 0 or (pretraining_steps and dataset is None):
            raise UsageError(f"pretraining_steps needs a dataset and must not be negative, got {pretraining_steps!r}")
        self.base_tau, self.pretraining_steps = base_tau, pretraining_steps
        self.edit_scale = candidates.edit_scale
        self._n_base_updates = 0
        if _init_setup_model:
            self._setup_model()

    def _setup_temperature(self, default_goal: float) -> None:
        size = self._low.numel()
        super()._setup_temperature(default_goal + size * math.log(self.edit_scale))

    def pretrain(self: SelfEXPO, gradient_steps: int, values: bool = False) -> SelfEXPO:
        """Learn from the dataset alone, before `learn`.

        Args:
            gradient_steps: number of gradient steps.
            values: also train the critics and the edit policy; otherwise the base policy imitates, as in the paper.

        Raises:
            UsageError: there is no dataset, or the number is not positive.
        """
        if gradient_steps <= 0:
            raise UsageError(f"gradient_steps must be positive, got {gradient_steps!r}")
        update = self._ready()
        if self.offline is None:
            raise UsageError("pretrain learns from a dataset: EXPO(..., dataset=id)")
        rate = self.lr_schedule(self._current_progress_remaining)
        for _ in range(gradient_steps):
            rows = symmetric_sample(None, self.offline, 1, self.batch_size, 1.0, self.generator)
            if values:
                self._n_updates += 1
                self._set_temperature_rate(rate)
                self._update_step(rows, rate)
                continue
            batch = split_rows(rows[0], update.obs_size, update.action_size)
            update.imitate(batch, rate, self._next_average_rate(), self.generator)
        return self

    def _start_training(self) -> None:
        left = self.pretraining_steps - self._n_base_updates
        if left > 0 and self._n_updates == 0:
            self.pretrain(left)

    def _next_average_rate(self) -> float:
        self._n_base_updates += 1
        return average_rate(self.base_tau, self._n_base_updates - 1)

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
            self._next_average_rate(),
            self.generator,
        )
