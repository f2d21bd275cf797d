"""What agents that learn from a dataset have in common: the data in the replay buffer, gradient steps as timesteps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor

from polyathlon.agents.parts.replay import Replay, Transitions
from polyathlon.agents.parts.replay_data import dataset_replay
from polyathlon.agents.parts.symmetric_sampling import symmetric_sample
from polyathlon.envs.data.dataset_source import agent_spaces, dataset_source, reopen
from polyathlon.envs.data.datasets import open_dataset
from polyathlon.envs.errors import UsageError, check_fraction, check_positive_int, refuse_without_effect

from .replay_agent import ReplayAgent
from .replay_files import vec_normalize_of

if TYPE_CHECKING:
    from minari import MinariDataset

LOG_EVERY = 1000  # gradient steps between two records of offline learning
ROWS_AT_ONCE = 1 << 16
ONLINE_WORDS = (  # say nothing of a dataset alone
    *("buffer_size", "learning_starts", "train_freq", "gradient_steps"),
    *("action_noise", "replay_buffer_class", "replay_buffer_kwargs"),
)
SMALLEST_STD = 1e-3  # added to the standard deviations, as in the authors' TD3+BC


class FromDataset(ReplayAgent):
    """Base of agents that learn from a dataset, from experience, or from both.

    - `dataset=` alone: a timestep of `learn` is a gradient step on the data, and no environment is needed.
    - `dataset=`, `offline_steps=n`: so for n timesteps; from then on a timestep is a step in the environment, and what the
      agent meets there joins the data in one memory.
    - `dataset=`, `offline_ratio=r`: a timestep is a step in the environment, own experience has a memory of its own, and a
      share r of every minibatch comes from the data. With `offline_steps=n` as well, n timesteps on the data alone come first.
    - neither: everything is online.

    Online, `learn` logs every `log_interval` episodes, offline every 1,000 gradient steps.

    Args:
        policy: see `ReplayAgent`.
        env: see `ReplayAgent`; None takes the spaces of the dataset.
        dataset: id of a local Minari dataset, its folder, or Minari's object.
        offline_ratio: share of the dataset's transitions in a minibatch; None keeps data and experience in one memory.
        offline_steps: number of timesteps that are gradient steps on the dataset; None means all of them, or none where
            `offline_ratio` is given.
        on_disk: keep the data in a temporary file mapped into memory, for more than memory holds.
        **kwargs: of `ReplayAgent`. With a dataset `buffer_size` is the room for transitions met online.

    Attributes:
        offline: the dataset's transitions where they have a memory of their own; None before the first `learn`.
        needs_dataset: the agent learns from its dataset alone.
        needs_demonstrations: it takes every action of the dataset for right.
        unread: arguments of `ReplayAgent` that the agent does not use; another value than the default is refused.
        is_standardised: it standardises observations by the dataset.
        mixes_by_default: its constructor has a default for `offline_ratio`, which waits for a dataset.

    Raises:
        UsageError: the dataset is missing, damaged or of other spaces, or `offline_steps` or `offline_ratio` makes no sense.
    """

    needs_dataset: ClassVar[bool] = False
    needs_demonstrations: ClassVar[bool] = False
    mixes_by_default: ClassVar[bool] = False
    unread: ClassVar[tuple[str, ...]] = ()
    is_standardised = False
    _given_words: list[str]
    offline: Replay | None = None
    _was_offline = False  # in the iteration that runs

    def __init__(
        self,
        policy: Any,
        env: GymEnv | str | None,
        *args: Any,
        dataset: str | Path | MinariDataset | None = None,
        offline_ratio: float | None = None,
        offline_steps: int | None = None,
        on_disk: bool = False,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, *args, **kwargs)
        if _init_setup_model:
            given = {name: getattr(self, name) for name in self.unread}
            refuse_without_effect(type(self), given, f"in {type(self).__name__}, which learns from its dataset alone")
        if offline_steps is not None:
            check_positive_int(offline_steps=offline_steps)
            if dataset is None and _init_setup_model:
                raise UsageError("offline_steps counts gradient steps on a dataset: give dataset= as well")
        if offline_ratio is not None:
            check_fraction(offline_ratio=offline_ratio)
            if dataset is None and not self.mixes_by_default and _init_setup_model:
                raise UsageError("offline_ratio is the share of a dataset in a minibatch: give dataset= as well")
        for name, value in (("offline_steps", offline_steps), ("offline_ratio", offline_ratio)):
            if value is not None and self.needs_dataset:
                raise UsageError(f"{type(self).__name__} learns from its dataset alone: leave {name} out")
        self.offline_ratio, self.offline_steps, self.on_disk = offline_ratio, offline_steps, on_disk
        self.dataset_source: dict[str, Any] | None = None
        if not _init_setup_model:
            return
        if dataset is None and self.needs_dataset and not self._has_other_data:
            raise UsageError(
                f"{type(self).__name__} learns from recorded actions: give dataset=, the id of a local Minari dataset "
                "(polyathlon.datasets.record makes one)"
            )
        if dataset is None and self.env is None:
            raise UsageError(f"{type(self).__name__} needs an environment or a dataset: give env= or dataset=")
        if dataset is not None:
            self.set_dataset(dataset)
        self._setup_model()

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`."""
        dataset = changes.pop("dataset", None)
        super().take_changes(changes)
        if dataset is not None:
            self.set_dataset(dataset)
        for name in ("offline_steps",) if self.mixes_by_default else ("offline_steps", "offline_ratio"):
            if changes.get(name) is not None and self.dataset_source is None:
                raise UsageError(f"{name} says how a dataset is learned from: give dataset= as well")

    def _refuse_observations(self) -> None:
        if self._is_flat or not self.is_standardised:
            return
        if "standardise" in self._given_words:
            raise UsageError(
                f"standardise=True centres and scales a flat Box, got {self.observation_space}: leave it out (pictures are divided by 255)"
            )
        self.is_standardised = False

    def set_dataset(self, dataset: str | Path | MinariDataset) -> None:
        """Learn from another dataset; what the memory held is forgotten, but for experience in a memory of its own.

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
        if self._is_mixed:
            self.offline = None
        else:
            self.replay = None

    @property
    def _has_other_data(self) -> bool:
        """Whether the agent learns from other data than a dataset."""
        return False

    @property
    def _is_mixed(self) -> bool:
        """Whether data and experience have memories of their own."""
        return self.offline_ratio is not None and self.dataset_source is not None

    @property
    def offline_end(self) -> float:
        """The timestep up to which a timestep is a gradient step on the dataset."""
        if self.dataset_source is None:
            return 0
        if self.offline_steps is not None:
            return self.offline_steps
        return 0 if self._is_mixed else float("inf")

    def _setup_sampling(self) -> None:
        super()._setup_sampling()
        if self._replay_words and self.dataset_source is not None and not self._is_mixed:
            raise UsageError(
                "HerReplayBuffer makes goals of what the agent met itself, which needs a memory of its own: give offline_ratio= "
                "with dataset="
            )

    def _new_replay(self) -> Replay:
        if self.dataset_source is None or self._is_mixed:
            return super()._new_replay()
        replay = self._read_dataset(0 if self.offline_steps is None else self.buffer_size)
        if self.is_standardised:
            self._standardise(replay)
        return replay

    def _read_dataset(self, spare: int) -> Replay:
        """Return a memory that holds the dataset, with room for `spare` transitions more."""
        assert self.dataset_source is not None
        spaces = (self.observation_space, self.action_space)
        data = reopen(self.dataset_source)
        replay = dataset_replay(data, *spaces, self.device, spare=spare, on_disk=self.on_disk, tell=self._tell)
        replay.normalize = vec_normalize_of(self.env)
        return self._sampled(replay, is_own=False)

    def _ready(self) -> Any:
        super()._ready()
        if self._is_mixed and self.offline is None:
            self.offline = self._read_dataset(0)

    def _minibatch(self) -> Transitions:
        """Sample transitions, of both memories where there are two."""
        assert self.replay is not None
        if self.offline is None:
            return self.replay.sample(self.batch_size, self.generator)
        assert self.offline_ratio is not None
        return symmetric_sample(self.replay, self.offline, self.batch_size, self.offline_ratio, self.generator)

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
        if self.dataset_source is None or self._is_mixed:
            return 0
        return int(self.dataset_source["steps"])

    def dataset_fields(self) -> dict[str, Tensor]:
        """Return what the dataset holds, as it lies in the memory: `dataset_obs`, `dataset_action`, ... [N, ...].

        Raises:
            UsageError: there is no dataset.
        """
        memory = self.offline if self._is_mixed else self.replay
        if self.dataset_source is None or memory is None:
            raise UsageError(f"this {type(self).__name__} has no dataset: give dataset=")
        rows = memory.held(int(self.dataset_source["steps"]))
        named = {"obs": rows.obs, "action": rows.action, "reward": rows.reward, "next_obs": rows.next_obs}
        return {f"dataset_{name}": tensor for name, tensor in named.items()}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "offline"]
