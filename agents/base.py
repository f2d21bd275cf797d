"""What every agent has in common: environments in, seeds, logs, checkpoints."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import utils
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvWrapper

from polyathlon.agents.parts.actors import Actor, make_actor
from polyathlon.agents.parts.densities import Densities
from polyathlon.agents.parts.devices import find_device, refuse_torch_modes
from polyathlon.agents.parts.features import mask_in
from polyathlon.agents.parts.optimizer_words import check_learning_rate
from polyathlon.agents.parts.states import AttributeState, EpisodesState, GeneratorState, ReferenceState
from polyathlon.checkpoints import FILE_FORMAT
from polyathlon.envs.errors import UsageError, check_int, check_positive_int, refuse_unknown_arguments
from polyathlon.envs.tensor.rewards import num_objectives
from polyathlon.wrappers.action_kinds import action_form, refusal, reward_refusal

from .streams.callback_locals import CallbackLocals, evaluation_envs
from .streams.env_stream import EnvStream, StreamState, make_env_stream
from .streams.environments import as_vec_env, make_vec_env, refuse_box, refuse_game
from .streams.progress import with_progress

COUNTERS = ("num_timesteps", "_episode_num", "_n_updates", "_iterations", "_current_progress_remaining")


class Agent(Densities):
    """Base of this package's agents: an SB3 algorithm that also takes vector environments and never touches global random state.

    A subclass makes its policy in `_setup_model`, takes steps in `collect` and learns from them in `train`; `learn` is the loop
    around both.

    Args:
        policy: name of a policy, or a policy class.
        env: an id, a Gymnasium environment, a Gymnasium vector environment in SAME_STEP mode, or an SB3 `VecEnv`.
        learning_rate: step size, or a schedule of the remaining progress (1 to 0).
        n_envs: number of environments to make of an id or a scalar environment; None takes the environment as it is.
        policy_kwargs: keyword arguments of the policy.
        stats_window_size: number of episodes that the rollout statistics average over.
        tensorboard_log: folder of the TensorBoard events; None writes none.
        verbose: 0 silent, 1 progress tables.
        device: "auto", "cpu", "cuda" or a torch device.
        seed: seed of everything random in the agent and its environment; None draws one from the system.

    Attributes:
        action_forms: the forms of action the agent can act in (see `polyathlon.wrappers.action_kinds`).
        takes_objectives: the agent learns from vector rewards, one number for each objective.
        environments: ids of the environments that the agent is made for; None for any.
        default_policy: what `make_agent` takes when no policy is named; None chooses by the observation.
        policy_words: words that `policy_kwargs` takes, which the message names to who gives them to the agent itself.
        log_interval: what `learn` takes when no `log_interval` is given; in iterations, where the agent does not say otherwise.
        source: rollout side of the environment; None for an agent loaded without one.
        generator: torch generator on the agent's device.

    Raises:
        UsageError: the environment speaks a form that the agent cannot act in or pays in one that it cannot learn from, or
            `n_envs` is not positive.
        UnknownArgument: a keyword that no constructor of the agent names; the message says which is nearest.
    """

    action_forms: ClassVar[tuple[str, ...]] = ("box",)
    takes_objectives: ClassVar[bool] = False
    environments: ClassVar[tuple[str, ...] | None] = None
    default_policy: ClassVar[str | None] = None
    log_interval: ClassVar[int] = 1
    policy_words: ClassVar[tuple[str, ...]] = ()
    learned_with_masks = False  # and the observation does not show them

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse unknown keywords before anything is made."""
        refuse_unknown_arguments(cls, kwargs, hidden=("_init_setup_model",))
        agent = super().__new__(cls)
        agent._states = {}
        return agent

    def __init__(
        self,
        policy: Any,
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        *,
        n_envs: int | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        device: torch.device | str = "auto",
        seed: int | None = None,
    ) -> None:
        device = find_device(device)
        refuse_torch_modes(device)
        check_learning_rate(learning_rate)
        if seed is not None:
            check_int(0, seed=seed)
        if policy_kwargs is not None and not isinstance(policy_kwargs, dict):
            raise UsageError(f"policy_kwargs must be a dict of the policy's arguments, got {policy_kwargs!r}")
        if env is not None:
            env = make_vec_env(env, n_envs, device)
            refuse_game(env, type(self).__name__)
            self.refuse_wrong_form(env.observation_space, env.action_space)
            refuse_box(env.action_space, type(self).__name__)
            self._refuse_objectives(env)
        check_positive_int(stats_window_size=stats_window_size)
        check_int(0, verbose=int(verbose) if isinstance(verbose, bool) else verbose)
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
        )
        self.source: EnvStream | None = None if self.env is None else make_env_stream(self.env, self.device)
        self._new_generators(seed)
        self._iterations = 0
        self.file_format = FILE_FORMAT  # stands in the files
        self.register_state("policy", ReferenceState(self, "policy"))
        for name, thing in (
            ("counters", AttributeState(self, *COUNTERS)),
            ("episodes", EpisodesState(self)),
            ("generator", GeneratorState(self, "generator")),
            ("prediction_generator", GeneratorState(self, "_prediction_generator")),
            ("env_stream", StreamState(self)),
        ):
            self.register_state(name, thing, checkpoint_only=True)

    @classmethod
    def holder_of(cls, name: str) -> str | None:
        """Return the argument that is a dictionary and takes a word which the constructor does not take, or None."""
        return "policy_kwargs" if name in cls.policy_words else None

    @classmethod
    def refuse_wrong_form(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Refuse an environment that this agent cannot act in.

        Raises:
            UsageError: it cannot; the message says what would help.
        """
        form = action_form(observation_space, action_space)
        if form not in cls.action_forms:
            raise UsageError(refusal(cls.__name__, cls.action_forms, form))

    @classmethod
    def _refuse_objectives(cls, env: Any) -> None:
        objectives = num_objectives(env)
        if objectives is not None and not cls.takes_objectives:
            raise UsageError(reward_refusal(cls.__name__, objectives))

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        return make_vec_env(env, None, torch.device("cpu")) if isinstance(env, str) else as_vec_env(env)

    @classmethod
    def _make_rows(cls, env: Any, n_envs: int | None, device: torch.device) -> VecEnv:
        return make_vec_env(env, n_envs, device)

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`."""
        if "stats_window_size" in changes:
            check_positive_int(stats_window_size=changes["stats_window_size"])
            changes["_stats_window_size"] = changes.pop("stats_window_size")
        super().take_changes(changes)
        if changes.get("seed") is not None:
            self._new_generators(self.seed)

    def _new_generators(self, seed: int | None) -> None:
        root = np.random.SeedSequence(seed)
        torch_seed, _, self._initial_seed = (int(x) for x in root.generate_state(3, np.uint64) >> np.uint64(1))
        self.generator = torch.Generator(device=self.device)
        self.generator.manual_seed(torch_seed)
        self._prediction_generator = torch.Generator(device=self.device).manual_seed(self._initial_seed)
        policy: Any = getattr(self, "policy", None)
        if hasattr(policy, "generator"):
            policy.generator = self._prediction_generator

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the agent's own generators and its environment (row i with `seed + i`); global generators stay as they are."""
        if seed is None:
            return
        self._new_generators(seed)
        self.action_space.seed(seed)
        if self.env is not None:
            self.env.seed(seed)

    @contextlib.contextmanager
    def seeded_predictions(self, seed: int) -> Iterator[None]:
        """Make `predict(deterministic=False)` depend on `seed` alone, and put its generator back after."""
        generator = self._prediction_generator
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            yield
        finally:
            generator.set_state(before)

    @contextlib.contextmanager
    def seeded_initialisation(self) -> Iterator[None]:
        """Make torch's layer initialisation depend on the agent's seed alone, and restore torch's global generator after."""
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self._initial_seed)
            yield

    def frozen_actor(self, device: torch.device | str | None = None) -> Actor:
        """Return a frozen copy of the policy, `act(obs, mask, generator, deterministic=False)`, on a device; None: the agent's."""
        return make_actor(self, self.device if device is None else find_device(device))

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment for another one of equal spaces and number of environments."""
        env = self._wrap_env(env)
        refuse_game(env, type(self).__name__)
        self._refuse_objectives(env)
        super().set_env(env, force_reset)
        assert self.env is not None
        self.source = make_env_stream(self.env, self.device)

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "source",
            "generator",
            "_prediction_generator",
            "_last_obs",
            "ep_success_buffer",
        ]

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        """Prepare a call of `learn`, as SB3 does, but start the source rather than the SB3 form of the environment.

        Raises:
            UsageError: there is no environment, `total_timesteps` is no positive number, or a setting of torch forbids to learn.
        """
        refuse_torch_modes(self.device)
        is_number = isinstance(total_timesteps, int | float | np.number) and not isinstance(total_timesteps, bool)
        if not is_number or not np.isfinite(total_timesteps):  # 1e6 is one, as in SB3
            raise UsageError(f"total_timesteps must be a number of steps, got {total_timesteps!r}")
        if total_timesteps <= 0:
            raise UsageError(f"total_timesteps must be positive, got {total_timesteps}")
        if self.source is None:
            self._refuse_no_task(total_timesteps + (0 if reset_num_timesteps else self.num_timesteps))
        self.start_time = time.time_ns()
        if self.ep_info_buffer is None or reset_num_timesteps:
            self.ep_info_buffer = deque(maxlen=self._stats_window_size)
            self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        if reset_num_timesteps:
            self.num_timesteps, self._episode_num = 0, 0
        else:
            total_timesteps += self.num_timesteps
        self._total_timesteps = total_timesteps
        self._num_timesteps_at_start = self.num_timesteps
        if self.source is not None and (reset_num_timesteps or not self.source.started):
            self._reset_source()
        if not self._custom_logger:
            self._logger = utils.configure_logger(self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps)
        return total_timesteps, self._init_callback(callback, progress_bar)

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        """Make one callback of all; SB3 compares the classes of the environments there, which differ here by nature."""
        with warnings.catch_warnings():
            if not any(isinstance(env, VecEnvWrapper) for env in (self.env, *evaluation_envs(callback))):
                warnings.filterwarnings("ignore", "Training and eval env are not of the same type")
            made = super()._init_callback(callback)
        return with_progress(made, self) if progress_bar else made

    def _refuse_no_task(self, total_timesteps: int) -> None:
        """Refuse to train up to step `total_timesteps` without an environment; agents that need none override it.

        Raises:
            UsageError: always, here.
        """
        raise UsageError(f"this {type(self).__name__} has no environment: pass env= when loading it, or call set_env")

    def _reset_source(self) -> None:
        """Start the episodes: with the agent's seed the first time, going on from there later."""
        assert self.source is not None
        self.source.reset(None if self.source.started else self.seed)
        self.source.pop_episode_stats()

    @property
    def smallest_run(self) -> int:
        """The fewest steps that `learn` takes, whatever it is asked for."""
        return self.n_envs

    def _note_masks(self) -> None:
        """Remember that this environment masks actions, which `predict` must then be told."""
        source = self.source
        if source is not None and source.mask is not None and not self.learned_with_masks:
            self.learned_with_masks = mask_in(source.obs, source.mask.shape[-1]) is None

    def _record_episodes(self) -> int:
        """Move finished episodes into SB3's statistics buffer and return how many there were."""
        assert self.source is not None and self.ep_info_buffer is not None
        finished = self.source.pop_episode_stats()
        self.ep_info_buffer.extend({"r": r, "l": length, "t": 0.0} for r, length in finished)
        self._episode_num += len(finished)
        return len(finished)

    def dump_logs(self) -> None:
        """Write the rollout and time statistics under SB3's names."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([e["r"] for e in self.ep_info_buffer]))
            self.logger.record("rollout/ep_len_mean", safe_mean([e["l"] for e in self.ep_info_buffer]))
        self.logger.record("time/episodes", self._episode_num, exclude="tensorboard")
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    # ------------------------------------------------------------------------------------------------------ the loop

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | Literal["auto"] | None = "auto",
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for at least `total_timesteps` steps, in whole iterations, as SB3's `learn`.

        An iteration collects, trains and logs. Between `on_rollout_end` and the next `on_rollout_start` the agent's state is
        whole; `polyathlon.train` writes its checkpoints there.

        Args:
            total_timesteps: steps of this call; what a step is, the agent says.
            callback: callbacks of SB3.
            log_interval: iterations (episodes, for off-policy agents) between two records; None writes none, "auto" takes
                the agent's own.
            tb_log_name: folder of the TensorBoard events; None takes the agent's name.
            reset_num_timesteps: count from zero; False goes on with the count and the episodes.
            progress_bar: show one.

        Raises:
            UsageError: there is no environment, or `total_timesteps` or `log_interval` is not positive.
        """
        log_interval = self.log_interval if log_interval == "auto" else log_interval
        if log_interval is not None:
            check_positive_int(log_interval=log_interval)
        tb_log_name = tb_log_name or type(self).__name__
        total, callback = self._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self._before_training()
        callback.on_training_start(CallbackLocals(locals()), globals())
        self._start_training()
        while not self._has_finished(total):
            if not self._iterate(callback, total, log_interval):
                break
        if self.source is not None and self.source.ring.read():
            self._record_episodes()
        self._finish_training()
        callback.on_training_end()
        return self

    @abstractmethod
    def collect(self, callback: BaseCallback) -> bool:
        """Take the steps of an iteration and count them in `num_timesteps`.

        After each step it calls `callback.update_locals(step_locals(source, step, action, locals()))` and `callback.on_step()`.

        Returns:
            False when the callback asked to stop.
        """

    @abstractmethod
    def train(self) -> None:
        """Learn from what was collected."""

    def _before_training(self) -> None:
        """Make what learning needs, before callbacks are told that it starts."""

    def _start_training(self) -> None:
        """Do what comes before the first iteration."""

    def _finish_training(self) -> None:
        """Do what comes after the last iteration, also when a callback stopped it."""

    def _has_finished(self, total: int) -> bool:
        return self.num_timesteps >= total

    def _iterate(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        """Run one iteration; return False when the callback asked to stop."""
        callback.on_rollout_start()
        if not self.collect(callback):
            return False
        callback.on_rollout_end()
        self._iterations += 1
        return self._after_rollout(callback, total, log_interval)

    def _after_rollout(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        """Log and train, in this order; agents that know what to log only after training override it."""
        self._update_current_progress_remaining(self.num_timesteps, total)
        finished = self._record_episodes()
        if self._is_log_due(log_interval, finished):
            self._log()
        self.train()
        return True

    def _is_log_due(self, log_interval: int | None, finished: int) -> bool:
        """Return whether to log after an iteration in which `finished` episodes ended."""
        return log_interval is not None and self._iterations % log_interval == 0

    def _log(self) -> None:
        """Write one record."""
        self.logger.record("time/iterations", self._iterations, exclude="tensorboard")
        self.dump_logs()
