"""What agents that learn from a replay buffer have in common: the memory and steps in the environment."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import Tensor

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.action_distributions import choices_of
from polyathlon.agents.parts.hindsight import HerReplayBuffer
from polyathlon.agents.parts.observations import as_seen, is_flat, new_replay, over_parts
from polyathlon.agents.parts.optimizer_words import refuse_optimizer_words
from polyathlon.agents.parts.policy_names import refuse_policy_name
from polyathlon.agents.parts.refused_words import OFF_POLICY, POLICY_WORDS
from polyathlon.agents.parts.replay import Replay
from polyathlon.agents.streams.callback_locals import step_locals
from polyathlon.agents.streams.environments import refuse_box
from polyathlon.envs.errors import UsageError, check_fraction, check_int, check_positive_int, is_integer, unknown_name

from .replay_files import ReplayFiles, vec_normalize_of
from .samplers import Samplers
from .sb3_words import read_train_freq


class ReplayAgent(ReplayFiles, Samplers, Agent):
    """Base of agents with continuous actions that learn from a replay buffer; words and defaults are SB3's.

    Transitions lie in one tensor on the device, actions in [-1, 1]. A subclass makes its policy in `_setup_model`, takes
    gradient steps in `_train` and says what to log in `_report`.

    Args:
        policy: "MlpPolicy", or a subclass of the class that it names.
        env: an id or an environment with a bounded Box of actions; the observation is a Box, or a Dict of arrays. See `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        buffer_size: number of transitions kept.
        learning_starts: transitions taken with random actions before learning starts.
        batch_size: transitions in a gradient step.
        tau: Polyak coefficient, target = (1 - tau) target + tau critic.
        gamma: discount factor.
        train_freq: steps of every environment between updates.
        gradient_steps: gradient steps in an update; -1 means as many as transitions were taken since the last one.
        matmul_precision: "highest" for float32 products; "medium" for bfloat16 products where the processor has them.
        action_noise: noise on the actions scaled to [-1, 1], SB3's `NormalActionNoise`, `OrnsteinUhlenbeckActionNoise`, or
            `VectorizedActionNoise` of them; drawn from the agent's generator, begun anew with every episode.
        replay_buffer_class: `HerReplayBuffer` (ours or SB3's) for goals in hindsight; None draws single transitions.
        replay_buffer_kwargs: its words.
        n_steps: steps of a return: rewards of so many steps are summed when a minibatch is sampled; see `NStepReturns`.
        **kwargs: `policy_kwargs`, `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a number is impossible, or the environment's form does not fit.
    """

    action_forms: ClassVar[tuple[str, ...]] = ("box",)
    refused_words = OFF_POLICY
    policy_words = POLICY_WORDS
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}
    log_interval = 4
    policy: Any

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int = 1,
        gradient_steps: int = 1,
        matmul_precision: str = "highest",
        *,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: Any = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        n_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        if isinstance(policy, str) and policy not in self.policy_aliases:
            raise unknown_name("policy", policy, self.policy_aliases)
        # the class rather than its name: SB3 would answer a Dict observation with advice that does not hold here
        policy_class = self.policy_aliases[policy] if isinstance(policy, str) else policy
        refuse_optimizer_words(type(self).__name__, kwargs.get("policy_kwargs"))
        self._policy_name = policy if isinstance(policy, str) else ""
        super().__init__(policy_class, env, learning_rate, **kwargs)
        train_freq = read_train_freq(train_freq)
        check_positive_int(buffer_size=buffer_size, batch_size=batch_size, n_steps=n_steps)
        if gradient_steps == 0 or not is_integer(gradient_steps, -1):
            raise UsageError(
                f"gradient_steps must be a positive integer, or -1 for one each transition, got {gradient_steps!r}"
            )
        check_int(0, learning_starts=learning_starts)
        check_fraction(gamma=gamma, tau=tau)
        if matmul_precision not in ("highest", "medium"):
            raise UsageError(f"matmul_precision must be 'highest' or 'medium', got {matmul_precision!r}")
        self.buffer_size, self.learning_starts, self.batch_size = buffer_size, learning_starts, batch_size
        self.tau, self.gamma, self.train_freq, self.gradient_steps = tau, gamma, train_freq, gradient_steps
        self.matmul_precision = matmul_precision
        self.replay: Replay | None = None
        self.action_noise: Any = action_noise
        self.replay_buffer_class, self.replay_buffer_kwargs = replay_buffer_class, replay_buffer_kwargs
        self.n_steps = n_steps
        self._noise_words: dict[str, Any] = {}
        self._replay_words: dict[str, Any] = {}

    def _setup_spaces(self) -> None:
        """Do what comes before the policy is made: check the spaces, and register the memory.

        Raises:
            UsageError: the networks cannot take the spaces.
        """
        self._refuse_spaces()
        self._is_flat = is_flat(self.observation_space)
        self._refuse_observations()
        self._setup_lr_schedule()
        self.register_state("replay", ReplayState(self), checkpoint_only=True)
        space = self.action_space
        if isinstance(space, spaces.Box):
            self._low = torch.as_tensor(space.low, device=self.device).reshape(-1)
            self._half_range = 0.5 * (torch.as_tensor(space.high, device=self.device).reshape(-1) - self._low)
        else:  # choices, which are not scaled
            self._low = self._half_range = torch.zeros(len(choices_of(space)), device=self.device)
        self._setup_noise()
        self._setup_sampling()

    def _refuse_spaces(self) -> None:
        """Refuse what the networks cannot take.

        Raises:
            UsageError: the observation is no Box and no Dict, or not one that the policy reads, or the actions are unbounded.
        """
        name, action_space = type(self).__name__, self.action_space
        if not isinstance(self.observation_space, spaces.Box | spaces.Dict):
            raise UsageError(
                f"{name} sees a Box or a Dict of arrays, got {self.observation_space}; wrap the environment: "
                "polyathlon.wrappers.VectorObservation(env)"
            )
        shown = self.env.venv if isinstance(self.env, VecTransposeImage) else self  # before its channels were moved
        refuse_policy_name(self._policy_name, shown.observation_space, self.policy_kwargs, name)
        self.refuse_wrong_form(self.observation_space, action_space)
        refuse_box(action_space, name)  # once more, for the spaces of a dataset

    def _refuse_observations(self) -> None:
        """Refuse observations that the agent's own words or losses cannot take."""

    def _to_environment(self, action: Tensor) -> Tensor:
        """Scale actions [n, A] from [-1, 1] to the bounds of the environment, in its shape."""
        scaled = self._low + (action + 1) * self._half_range
        return scaled.reshape(-1, *self.action_space.shape)  # type: ignore[misc]

    def _explore(self, obs: Tensor) -> Tensor:
        """Return the actions [n, A] in [-1, 1] to try at observations [n, O]."""
        action: Tensor = self.policy.sample(obs, self.generator)
        return action

    def _choose(self) -> Tensor:
        """Sample actions [n, A] in [-1, 1]: evenly before learning starts, then from the policy."""
        assert self.source is not None
        number, size = self.source.num_envs, self._low.numel()
        if self.num_timesteps < self.learning_starts:
            action = 2 * torch.rand(number, size, generator=self.generator, device=self.device) - 1
        else:
            action = self._explore(self._seen(self.source.obs))
        if self.action_noise is None:
            return action
        return (action + self.action_noise.draw(number, self.generator)).clamp_(-1, 1)

    def _seen(self, obs: Any) -> Any:
        """Return observations as the memory keeps and the networks take them."""
        return as_seen(obs, self._is_flat)

    def collect(self, callback: BaseCallback) -> bool:
        """Take `train_freq` steps of every row.

        Returns:
            False when the callback asked to stop.
        """
        source, replay = self.source, self.replay
        assert source is not None and replay is not None
        for _ in range(self.train_freq):
            with torch.no_grad():
                obs = over_parts(self._seen(source.obs if source.raw_obs is None else source.raw_obs), torch.clone)
                action = self._choose()
                taken = self._to_environment(action)
                step = source.step(taken)
                next_obs = step.next_obs if step.raw_next_obs is None else step.raw_next_obs
                reward = step.reward if step.raw_reward is None else step.raw_reward
                ended = step.terminated | step.truncated
                replay.add(obs, action, self._seen(next_obs), reward, step.terminated, ended)
                if isinstance(replay.sampler, HerReplayBuffer) and replay.sampler.copy_info_dict:
                    replay.sampler.note(replay, source.info_rows(step))
                if self.action_noise is not None:
                    self.action_noise.reset(ended)
            self.num_timesteps += source.num_envs
            callback.update_locals(step_locals(source, step, taken, locals()))
            if not callback.on_step():
                return False
        return True

    def _ready(self) -> Any:
        """Make the memory, at first use."""
        if self.replay is None:
            self.replay = self._new_replay()

    def _new_replay(self) -> Replay:
        normalize = vec_normalize_of(self.env)
        # VecNormalize shows pictures as real numbers: what is a flat Box then is kept as one
        raw = self.observation_space if normalize is None or self._is_flat else normalize.venv.observation_space
        replay = new_replay(self._room(self.buffer_size), raw, self._low.numel(), self.device, tell=self._tell)
        replay.normalize = normalize
        return self._sampled(replay)

    @property
    def _tell(self) -> Any:
        """What says how much memory is going to be taken."""
        return print if self.verbose >= 1 else None

    def _reset_source(self) -> None:
        if self.replay is not None:
            self.replay.cut()
        if self.action_noise is not None:
            self.action_noise.restart()
        super()._reset_source()

    @property
    def _recorded_transitions(self) -> int:
        """How many transitions the memory took from a dataset, before any other."""
        return 0

    def _before_training(self) -> None:
        self._ready()

    def _is_log_due(self, log_interval: int | None, finished: int) -> bool:
        before = self._episode_num - finished
        return log_interval is not None and self._episode_num // log_interval > before // log_interval

    def train(self, gradient_steps: int | None = None) -> None:
        """Take gradient steps.

        Args:
            gradient_steps: how many; None takes as many as are due after an iteration, none before `learning_starts`.
        """
        if gradient_steps is None:
            assert self.source is not None
            taken = self.train_freq * self.source.num_envs
            gradient_steps = taken if self.gradient_steps < 0 else self.gradient_steps
            if self.num_timesteps <= self.learning_starts:
                return
        self._train(gradient_steps)

    def _train(self, gradient_steps: int) -> None:
        """Take gradient steps on samples of the replay buffer."""
        raise NotImplementedError

    def _report(self) -> dict[str, float]:
        """Return means since the last record, by name; without "/" in it a name stands under "train/"."""
        raise NotImplementedError

    def _log(self) -> None:
        if numbers := self._report():
            for name, number in numbers.items():
                self.logger.record(name if "/" in name else f"train/{name}", number)
            self.logger.record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
            self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.dump_logs()

    def _excluded_save_params(self) -> list[str]:
        own = ["replay", "_low", "_half_range", "action_noise", "replay_buffer_class", "replay_buffer_kwargs"]
        return [*super()._excluded_save_params(), *own]


class ReplayState:
    """The replay memory as a state of the agent; it is made anew before it is loaded.

    Args:
        agent: has the memory.
    """

    def __init__(self, agent: ReplayAgent) -> None:
        self.agent = agent

    def state_dict(self) -> dict[str, Any]:
        """Return the transitions that are not in a dataset."""
        replay = self.agent.replay
        return {"replay": None if replay is None else replay.get_state(self.agent._recorded_transitions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Fill the memory."""
        if state["replay"] is not None:
            self.agent._ready()
            assert self.agent.replay is not None
            self.agent.replay.set_state(state["replay"])
