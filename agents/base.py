"""What every agent has in common: environments in, seeds, logs, checkpoints."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import utils
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import safe_mean
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from polyathlon.envs.errors import UsageError
from polyathlon.envs.tensor.rewards import num_objectives
from polyathlon.wrappers.action_kinds import action_form, refusal, reward_refusal

from .streams.env_stream import EnvStream, make_env_stream
from .streams.environments import as_vec_env, make_vec_env

CHECKPOINT_FORMAT = 1
SelfAgent = TypeVar("SelfAgent", bound="Agent")


class Agent(BaseAlgorithm):
    """Base of this package's agents: an SB3 algorithm that also takes vector environments and never touches global random state.

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
        source: rollout side of the environment; None for an agent loaded without one.
        generator: torch generator on the agent's device.
        numpy_generator: numpy generator.

    Raises:
        UsageError: the environment speaks a form that the agent cannot act in or pays in one that it cannot learn from, or
            `n_envs` is not positive.
    """

    action_forms: ClassVar[tuple[str, ...]] = ("box",)
    takes_objectives: ClassVar[bool] = False
    environments: ClassVar[tuple[str, ...] | None] = None
    default_policy: ClassVar[str | None] = None

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
        device = utils.get_device(device)
        if env is not None:
            env = make_vec_env(env, n_envs, device)
            self.refuse_wrong_form(env.observation_space, env.action_space)
            self._refuse_objectives(env)
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

    def _new_generators(self, seed: int | None) -> None:
        root = np.random.SeedSequence(seed)
        torch_seed, numpy_seed, self._initial_seed = (int(x) for x in root.generate_state(3, np.uint64) >> np.uint64(1))
        self.generator = torch.Generator(device=self.device)
        self.generator.manual_seed(torch_seed)
        self._prediction_generator = torch.Generator(device=self.device).manual_seed(self._initial_seed)
        self.numpy_generator = np.random.default_rng(numpy_seed)

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

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment for another one of equal spaces and number of environments."""
        env = self._wrap_env(env)
        self._refuse_objectives(env)
        super().set_env(env, force_reset)
        assert self.env is not None
        self.source = make_env_stream(self.env, self.device)

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "source",
            "generator",
            "numpy_generator",
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
            UsageError: there is no environment, or `total_timesteps` is not positive.
        """
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

    def training_state(self) -> dict[str, Any]:
        """Return everything beyond SB3's zip that a bit-equal resume needs; subclasses add to it."""
        return {
            "counters": {
                name: getattr(self, name)
                for name in ("num_timesteps", "_episode_num", "_n_updates", "_current_progress_remaining")
            },
            "episodes": list(self.ep_info_buffer or []),
            "generator": self.generator.get_state(),
            "numpy_generator": self.numpy_generator.bit_generator.state,
            "prediction_generator": self._prediction_generator.get_state(),
            "source": None if self.source is None or not self.source.started else self.source.get_state(),
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Continue from the dictionary that `training_state` returned."""
        for name, value in state["counters"].items():
            setattr(self, name, value)
        self.ep_info_buffer = deque(state["episodes"], maxlen=self._stats_window_size)
        self.ep_success_buffer = deque(maxlen=self._stats_window_size)
        self.generator.set_state(state["generator"].cpu())
        self.numpy_generator.bit_generator.state = state["numpy_generator"]
        self._prediction_generator.set_state(state["prediction_generator"].cpu())
        if self.source is not None and state["source"] is not None:
            self.source.set_state(state["source"])

    def checkpoint(self, path: str | Path) -> Path:
        """Write the agent with everything that a bit-equal resume needs into one file, atomically.

        A crash while writing leaves the previous file as it was.

        Args:
            path: the file to write.

        Returns:
            The path written.
        """
        path = Path(path)
        archive = io.BytesIO()
        self.save(archive)
        content = {
            "format": CHECKPOINT_FORMAT,
            "agent": type(self).__name__,
            "zip": archive.getvalue(),
            "state": self.training_state(),
        }
        partial = path.with_name(path.name + ".partial")
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        return path

    @classmethod
    def resume(cls: type[SelfAgent], path: str | Path, env: GymEnv, **kwargs: Any) -> SelfAgent:
        """Continue from a checkpoint: `learn(..., reset_num_timesteps=False)` then gives the numbers of an unbroken run.

        Args:
            path: a file written by `checkpoint`.
            env: an environment made with the same settings; its state is restored.
            **kwargs: passed to `load`.

        Raises:
            UsageError: the file is missing, corrupted, of another agent or of an unknown format.
        """
        content = read_checkpoint(path)
        if content["agent"] != cls.__name__:
            raise UsageError(
                f"{path} holds a {content['agent']}, not a {cls.__name__}; resume it with {content['agent']}.resume"
            )
        agent = cls.load(io.BytesIO(content["zip"]), env=env, **kwargs)
        agent.load_training_state(content["state"])
        return agent


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read and check a file written by `Agent.checkpoint`.

    Raises:
        UsageError: the file is missing, corrupted or of an unknown format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except FileNotFoundError as error:
        raise UsageError(f"there is no checkpoint {path}") from error
    except Exception as error:  # a damaged archive fails in many ways, all of which mean the same to the user
        raise UsageError(
            f"the checkpoint {path} is corrupted ({type(error).__name__}: {error}); delete it to resume from an older one"
        ) from error
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise UsageError(f"{path} is not a checkpoint of format {CHECKPOINT_FORMAT} written by Agent.checkpoint")
    return content
