"""What agents with a critic ensemble have in common: many critic steps for each step of the actor, and a dataset beside the replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.replay_data import dataset_replay
from polyathlon.agents.parts.symmetric_sampling import symmetric_sample
from polyathlon.envs.data.dataset_source import agent_spaces, dataset_source, reopen
from polyathlon.envs.data.datasets import open_dataset
from polyathlon.envs.errors import UsageError, check_fraction, check_positive_int

from .hand_written import HandWrittenAgent
from .temperature import HasTemperature

if TYPE_CHECKING:
    from minari import MinariDataset

PRODUCTS = {"highest": torch.float32, "medium": torch.bfloat16}


class EnsembleAgent(HasTemperature, HandWrittenAgent):
    """Base of RLPD and EXPO.

    An update is `gradient_steps` steps of the critics, each on a minibatch of its own, then one step of everything else on
    the last minibatch. A share `offline_ratio` of every minibatch comes from the dataset.

    Args:
        dataset: a local Minari dataset: its id, its folder or Minari's object; None learns from own experience alone.
        offline_ratio: share of the dataset's transitions in a minibatch.
        num_min_critics: members of the ensemble, drawn afresh each time, whose smallest value is believed.
        ent_coef: the temperature; "auto" learns it, "auto_0.1" starts from 0.1.
        target_entropy: entropy that "auto" aims at; "auto" is minus half the number of action components.
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products in the critics and samplers.
        **kwargs: arguments of `OffPolicy`.

    Attributes:
        offline: the dataset's transitions; None without a dataset, or before the first `learn`.

    Raises:
        UsageError: a number is impossible, or the environment's form does not fit.
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        dataset: str | Path | MinariDataset | None,
        offline_ratio: float,
        num_min_critics: int,
        ent_coef: str | float,
        target_entropy: str | float,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)
        check_positive_int(num_min_critics=num_min_critics)
        check_fraction(offline_ratio=offline_ratio)
        self.offline_ratio, self.num_min_critics = offline_ratio, num_min_critics
        self.ent_coef, self.target_entropy = ent_coef, target_entropy
        self.dataset_source: dict[str, Any] | None = None
        self.offline: Replay | None = None
        if dataset is not None:
            self.set_dataset(dataset)

    def set_dataset(self, dataset: str | Path | MinariDataset) -> None:
        """Learn with another dataset from now on; own experience is kept.

        Args:
            dataset: id of a local Minari dataset, its folder, or Minari's object.

        Raises:
            UsageError: it is missing, damaged, or of other spaces than the agent's.
        """
        data = open_dataset(dataset)
        own = (getattr(self, "observation_space", None), getattr(self, "action_space", None))
        shown, acted = agent_spaces(data, *own)
        if own[0] is None:
            self.observation_space, self.action_space, self.n_envs = shown, acted, 1
        self.dataset_source, self.offline = dataset_source(data), None

    def _setup_model(self) -> None:
        super()._setup_model()
        self.critic, self.critic_target = self.policy.critic, self.policy.critic_target
        if self.num_min_critics > self.critic.num_critics:
            raise UsageError(
                f"num_min_critics is {self.num_min_critics}, but there are {self.critic.num_critics} critics; "
                "give more with policy_kwargs={'n_critics': ...}"
            )
        self.policy.product_dtype = PRODUCTS[self.matmul_precision]
        self.policy.num_min_critics = self.num_min_critics
        self._setup_temperature(-0.5 * float(np.prod(self.action_space.shape or ())))

    def _ready(self) -> Any:
        update = super()._ready()
        if self.offline is None and self.dataset_source is not None:
            data = reopen(self.dataset_source)
            self.offline = dataset_replay(data, self.observation_space, self.action_space, self.device)
        return update

    def _slices(self, gradient_steps: int) -> Tensor:
        """Draw a minibatch for each gradient step, [U, B, 2 O + A + 2]."""
        return symmetric_sample(
            self.replay, self.offline, gradient_steps, self.batch_size, self.offline_ratio, self.generator
        )

    def _train(self, gradient_steps: int) -> None:
        """Take `gradient_steps` steps of the critics, then one of the rest."""
        self._ready()
        rate = self.lr_schedule(self._current_progress_remaining)
        self._set_temperature_rate(rate)
        self._n_updates += gradient_steps
        self._update_step(self._slices(gradient_steps), rate)

    def _update_step(self, rows: Tensor, learning_rate: float) -> None:
        """Take an update on minibatches [U, B, 2 O + A + 2]."""
        raise NotImplementedError

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "critic", "critic_target", "offline"]
