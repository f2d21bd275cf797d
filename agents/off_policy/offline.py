"""What agents that learn from a dataset have in common: the data in the replay buffer, gradient steps as timesteps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.parts.replay_data import dataset_replay
from polyathlon.envs.data.dataset_source import agent_spaces, dataset_source, reopen
from polyathlon.envs.data.datasets import open_dataset
from polyathlon.envs.errors import UsageError, check_positive_int

from .hand_written import HandWrittenAgent
from .replay_agent import ReplayAgent

if TYPE_CHECKING:
    from minari import MinariDataset

LOG_EVERY = 1000  # gradient steps between two records of offline learning
ROWS_AT_ONCE = 1 << 16
SMALLEST_STD = 1e-3  # added to the standard deviations, as in the authors' TD3+BC


class FromDataset(ReplayAgent):
    """Base of agents that learn from a dataset, and on from there in an environment.

    With a dataset, a timestep of `learn` is a gradient step on it, and no environment is needed. `offline_steps` makes
    the agent go on online: from timestep `offline_steps` on, a timestep is a step in the environment again, and what it
    meets there joins the data in one memory. Without a dataset everything is online. Online, `learn` logs every
    `log_interval` episodes, offline every 1,000 gradient steps.

    Args:
        policy: see `ReplayAgent`.
        env: see `ReplayAgent`; None takes the spaces of the dataset.
        dataset: id of a local Minari dataset, its folder, or Minari's object.
        offline_steps: number of timesteps that are gradient steps on the dataset; None means all of them.
        on_disk: keep the data in a temporary file mapped into memory, for more than memory holds.
        **kwargs: of `ReplayAgent`. With a dataset `buffer_size` is the room for transitions met online.

    Attributes:
        needs_dataset: the agent learns from its dataset alone.
        needs_demonstrations: it takes every action of the dataset for right.
        is_standardised: it standardises observations by the dataset.

    Raises:
        UsageError: the dataset is missing, damaged or of other spaces, or `offline_steps` makes no sense.
    """

    needs_dataset: ClassVar[bool] = False
    needs_demonstrations: ClassVar[bool] = False
    is_standardised = False
    _was_offline = False  # in the iteration that runs

    def __init__(
        self,
        policy: Any,
        env: GymEnv | str | None,
        *args: Any,
        dataset: str | Path | MinariDataset | None = None,
        offline_steps: int | None = None,
        on_disk: bool = False,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, **kwargs)
        if offline_steps is not None:
            check_positive_int(offline_steps=offline_steps)
            if self.needs_dataset:
                raise UsageError(f"{type(self).__name__} learns from its dataset alone: leave offline_steps out")
            if dataset is None:
                raise UsageError("offline_steps counts gradient steps on a dataset: give dataset= as well")
        self.offline_steps, self.on_disk = offline_steps, on_disk
        self.dataset_source: dict[str, Any] | None = None
        if not _init_setup_model:
            return
        if dataset is None and self.needs_dataset:
            raise UsageError(
                f"{type(self).__name__} learns from recorded actions: give dataset=, the id of a local Minari dataset "
                "(polyathlon.datasets.record makes one)"
            )
        if dataset is None and self.env is None:
            raise UsageError(f"{type(self).__name__} needs an environment or a dataset: give env= or dataset=")
        if dataset is not None:
            self.set_dataset(dataset)
        self._setup_model()

    def set_dataset(self, dataset: str | Path | MinariDataset) -> None:
        """Learn from another dataset; what the memory held is forgotten.

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
        self.dataset_source = dataset_source(data)
        self.replay = None

    @property
    def offline_end(self) -> float:
        """The timestep up to which a timestep is a gradient step on the dataset."""
        if self.dataset_source is None:
            return 0
        return float("inf") if self.offline_steps is None else self.offline_steps

    def _new_replay(self) -> Replay:
        if self.dataset_source is None:
            return super()._new_replay()
        goes_online = self.offline_steps is not None
        replay = dataset_replay(
            reopen(self.dataset_source),
            self.observation_space,
            self.action_space,
            self.device,
            spare=self.buffer_size if goes_online else 0,
            on_disk=self.on_disk,
        )
        if self.is_standardised:
            self._standardise(replay)
        return replay

    def _standardise(self, replay: Replay) -> None:
        """Give the observations in the memory mean 0 and standard deviation 1, and tell the policy how."""
        size, rows = replay.obs_size, replay.rows[: replay.size]
        parts = [part[:, :size].double() for part in rows.split(ROWS_AT_ONCE)]
        mean = sum((part.sum(0) for part in parts), rows.new_zeros(size, dtype=torch.float64)) / replay.size
        var = sum(((part - mean).square().sum(0) for part in parts), torch.zeros_like(mean)) / replay.size
        scale = 1 / (var.sqrt() + SMALLEST_STD)
        start = size + replay.action_size
        for part in rows.split(ROWS_AT_ONCE):
            for columns in (part[:, :size], part[:, start : start + size]):
                columns.copy_((columns - mean) * scale)
        self.policy.standardise(mean.float(), scale.float())

    def _refuse_no_task(self, total_timesteps: int) -> None:
        if total_timesteps > self.offline_end:
            super()._refuse_no_task(total_timesteps)

    @property
    def _is_offline(self) -> bool:
        return self.num_timesteps < min(self._total_timesteps, self.offline_end)

    def collect(self, callback: BaseCallback) -> bool:
        """Take gradient steps on the dataset up to the next record, or steps in the environment."""
        self._was_offline = self._is_offline
        if not self._was_offline:
            return super().collect(callback)
        total = self._total_timesteps
        end = min(total, self.offline_end)
        until = min(end, (self.num_timesteps // LOG_EVERY + 1) * LOG_EVERY)
        while self.num_timesteps < until:
            self._update_current_progress_remaining(self.num_timesteps, total)
            self.train(1)
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        return True

    def _after_rollout(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        if not self._was_offline:
            return super()._after_rollout(callback, total, log_interval)
        if log_interval is not None and self.num_timesteps % LOG_EVERY == 0:
            self._log()
        return True

    @property
    def _recorded_transitions(self) -> int:
        return 0 if self.dataset_source is None else int(self.dataset_source["steps"])

    def dataset_fields(self) -> dict[str, Tensor]:
        """Return what the dataset holds, as it lies in the memory: `dataset_obs`, `dataset_action`, ... [N, ...].

        Raises:
            UsageError: there is no dataset.
        """
        if self.dataset_source is None or self.replay is None:
            raise UsageError(f"this {type(self).__name__} has no dataset: give dataset=")
        rows = self.replay.split(self.replay.rows[: self._recorded_transitions])
        named = {"obs": rows.obs, "action": rows.action, "reward": rows.reward, "next_obs": rows.next_obs}
        return {f"dataset_{name}": tensor for name, tensor in named.items()}


class OfflineAgent(FromDataset, HandWrittenAgent):
    """Base of agents with hand-written gradient steps that learn from a dataset."""

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "critic", "actor_target", "critic_target"]
