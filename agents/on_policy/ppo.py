"""Proximal policy optimisation."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule, explained_variance
from torch import Tensor

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.intrinsic import Bonus, BonusBatch, captions_of
from polyathlon.agents.parts.moments import RunningMoments
from polyathlon.agents.parts.states import AttributeState
from polyathlon.agents.parts.time_returns import discounted_sums, gae_time
from polyathlon.agents.streams.callback_locals import step_locals
from polyathlon.agents.streams.masks import own_masks
from polyathlon.agents.streams.rollout import Rollout, RolloutState, tree_join, tree_map
from polyathlon.envs.errors import UsageError, check_fraction, check_positive_int, unknown_name
from polyathlon.registration import register_agent

from .attention import AttentionActorCritic
from .policies import ActorCritic, SB3PolicyAdapter
from .ppo_fast import FastPPOUpdate, can_update
from .ppo_update import Minibatches, PPOSettings, update

CHUNK = 16_384  # rows of one forward pass when a whole rollout is evaluated


@register_agent("ppo", family="on_policy", summary="proximal policy optimisation, continuous or (masked) discrete")
class PPO(Agent):
    """Proximal policy optimisation with a clipped surrogate (Schulman et al. 2017), a Stable-Baselines3 algorithm.

    The constructor's words and defaults are those of SB3's PPO. It differs in speed, in taking action masks
    (`info["action_mask"]`), observations of any space and tensor environments, and in touching no global random state.

    Args:
        policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", "AttentionPolicy", or a subclass of SB3's `ActorCriticPolicy`.
        env: an id or an environment; see `Agent`.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        n_steps: rollout length, steps of each environment per update; n_steps * n_envs transitions.
        batch_size: transitions in a minibatch.
        n_epochs: passes over the transitions in an update.
        gamma: discount factor.
        gae_lambda: 0 gives one-step advantages, 1 Monte Carlo returns.
        clip_range: clip ratio eps, the probability ratio is clipped to [1 - eps, 1 + eps]; a number or a schedule.
        clip_range_vf: value clipping, a value is clipped to its old one plus or minus this; a number or a schedule; None does not clip.
        normalize_advantage: centre and scale the advantages of each minibatch.
        ent_coef: entropy coefficient.
        vf_coef: value coefficient.
        max_grad_norm: gradient clipping, the largest norm of the gradient; None sets none.
        target_kl: an update stops once the divergence exceeds 1.5 times this; None never stops it.
        normalize_observations: centre and scale flat Box observations by running moments (kept in the policy).
        normalize_rewards: divide rewards by the running standard deviation of the discounted return.
        fast_update: hand-written backward pass for two MLPs of equal widths; equal to back-propagation up to rounding.
        bonus: an intrinsic reward (see `polyathlon.agents.parts.intrinsic`); None takes the environment's alone. It is saved in
            checkpoints, not by `save`: give it again to `resume`.
        policy_kwargs: keyword arguments of the policy.
        **kwargs: `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: a size is not positive, or the environment's actions have a form that PPO cannot act in.
    """

    action_forms: ClassVar[tuple[str, ...]] = ("box", "discrete", "tokens")
    seats: Any = None  # plays all seats of a game, see `polyathlon.agents.games.seats`
    reads_any_observation = True  # adapt() leaves Dict and token observations as they are
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": ActorCritic,
        "CnnPolicy": ActorCritic,
        "MultiInputPolicy": ActorCritic,
        "AttentionPolicy": AttentionActorCritic,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        target_kl: float | None = None,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        fast_update: bool = True,
        bonus: Bonus | None = None,
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        if bonus is not None and not isinstance(bonus, Bonus):
            raise UsageError(f"bonus must be a Bonus (polyathlon.agents.parts.intrinsic), got {bonus!r}")
        policy_class = self._get_policy_from_name(policy) if isinstance(policy, str) else policy
        super().__init__(policy_class, env, learning_rate, **kwargs)
        check_positive_int(n_steps=n_steps, batch_size=batch_size, n_epochs=n_epochs)
        check_fraction(gamma=gamma, gae_lambda=gae_lambda)
        is_single = env is not None and n_steps * self.n_envs == 1
        if normalize_advantage and (batch_size == 1 or is_single):
            raise UsageError("advantages of a single transition cannot be normalised: raise batch_size and n_steps")
        self.n_steps, self.batch_size, self.n_epochs = n_steps, batch_size, n_epochs
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.clip_range, self.clip_range_vf = clip_range, clip_range_vf
        self.normalize_advantage = normalize_advantage
        self.ent_coef, self.vf_coef, self.max_grad_norm, self.target_kl = ent_coef, vf_coef, max_grad_norm, target_kl
        self.normalize_observations, self.normalize_rewards = normalize_observations, normalize_rewards
        self.fast_update = fast_update
        self._fast: FastPPOUpdate | None = None
        self.bonus = bonus
        self._captions: list[Tensor] = []
        self.rollout: Rollout | None = None
        self._carried_return: Tensor | None = None
        if _init_setup_model:
            self._setup_model()

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise unknown_name("policy", policy_name, self.policy_aliases)
        return self.policy_aliases[policy_name]

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        options = dict(self.policy_kwargs)
        if self.normalize_observations:
            if not issubclass(self.policy_class, ActorCritic):
                raise UsageError(
                    f"normalize_observations needs one of this package's policies, got {self.policy_class}"
                )
            options["normalize_observations"] = True
        with self.seeded_initialisation():
            self.policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **options)
        self.policy = self.policy.to(self.device)
        if isinstance(self.policy, ActorCritic):
            self.policy.flatten_parameters()
            self.policy.generator = self._prediction_generator
        self.reward_moments = RunningMoments(()).to(self.device)
        self._clip_schedule = FloatSchedule(self.clip_range)
        self._clip_vf_schedule = None if self.clip_range_vf is None else FloatSchedule(self.clip_range_vf)
        self.register_state("policy.optimizer", self.policy.optimizer)
        self.register_state("reward_moments", self.reward_moments)
        self.register_state("rollout", RolloutState(self), checkpoint_only=True)
        self.register_state("carried_return", AttributeState(self, "_carried_return"), checkpoint_only=True)
        if self.bonus is not None:
            self.register_state("bonus", self.bonus, checkpoint_only=True)
            self.register_state("captions", AttributeState(self, "_captions"), checkpoint_only=True)

    @property
    def _actor(self) -> ActorCritic | SB3PolicyAdapter:
        """The policy, as an object with `act`, `evaluate` and `values`."""
        return self._acting(self.policy)

    def _acting(self, policy: Any) -> ActorCritic | SB3PolicyAdapter:
        return policy if isinstance(policy, ActorCritic) else SB3PolicyAdapter(policy)

    @property
    def smallest_run(self) -> int:
        """A whole rollout."""
        return self.n_steps * self.n_envs

    def _reset_source(self) -> None:
        super()._reset_source()
        if self.rollout is not None:
            self.rollout.clear()
        self._captions = []
        self._carried_return = None

    def _to_environment(self, action: Tensor) -> Tensor:
        """Clip actions into the box."""
        if not isinstance(self.action_space, spaces.Box):
            return action
        low, high = (torch.as_tensor(x, device=self.device) for x in (self.action_space.low, self.action_space.high))
        return action.clamp(low, high)

    def collect(self, callback: BaseCallback) -> bool:
        """Act until the rollout is full.

        Returns:
            False when the callback asked to stop.
        """
        if self.seats is not None:
            return bool(self.seats.collect(self, callback))
        source, actor = self.source, self._actor
        assert source is not None
        self.policy.set_training_mode(False)
        self._note_masks()
        with torch.no_grad():
            while self.rollout is None or not self.rollout.is_full:
                action = actor.act(source.obs, source.mask, self.generator)
                if self.rollout is None or self.rollout.reward.shape[1] != source.num_envs:
                    self.rollout = Rollout(self.n_steps, source.obs, action, source.mask)
                self.rollout.add_action(source.obs, action, source.mask)
                step = source.step(self._to_environment(action))
                self.rollout.add_step(step)
                if self.bonus is not None and self.bonus.reads_captions:
                    self._captions.append(torch.from_numpy(captions_of(step.infos, source.num_envs)))
                self.num_timesteps += source.num_envs
                callback.update_locals(step_locals(source, step, action, locals()))
                if not callback.on_step():
                    return False
        return True

    @torch.no_grad()
    def _evaluate_rollout(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return the values and log-probabilities [T, N] of everything in the rollout."""
        obs, action, mask = rollout.flat()
        values, log_probs = [], []
        for start in range(0, action.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            part_mask = None if mask is None else mask[part]
            value, log_prob, _ = self._actor.evaluate(tree_map(obs, lambda x, p=part: x[p]), action[part], part_mask)
            values.append(value)
            log_probs.append(log_prob)
        return torch.cat(values).view_as(rollout.reward), torch.cat(log_probs).view_as(rollout.reward)

    def _scaled_reward(self, rollout: Rollout) -> Tensor:
        if not self.normalize_rewards:
            return rollout.reward
        start = torch.zeros_like(rollout.reward[0]) if self._carried_return is None else self._carried_return
        sums, self._carried_return = discounted_sums(rollout.reward, rollout.done, start, self.gamma)
        self.reward_moments.update(sums.flatten())
        return self.reward_moments.scale_only(rollout.reward)

    def _reward(self, rollout: Rollout) -> Tensor:
        """Return the environment's rewards [T, N], scaled, with the bonus of this moment; the rollout keeps its own."""
        reward = self._scaled_reward(rollout)
        if self.bonus is None:
            return reward
        assert self.source is not None
        following = None
        if self.bonus.reads_observations:
            following = tree_join(rollout.obs, self.source.obs)
        captions = torch.stack(self._captions).numpy() if self.bonus.reads_captions else None
        self._captions = []
        batch = BonusBatch(rollout.done, captions, following)
        reward = self.bonus.extrinsic * reward + self.bonus.bonus(batch)
        with torch.enable_grad():
            self.bonus.update(batch)
        return reward

    @torch.no_grad()
    def prepare_minibatches(self, rollout: Rollout) -> Minibatches:
        """Compute values, log-probabilities, advantages and returns of a full rollout."""
        if self.seats is not None:
            return Minibatches(**self.seats.fields(self, rollout))
        assert self.source is not None
        value, log_prob = self._evaluate_rollout(rollout)
        last = self._actor.values(self.source.obs)
        finals = [self._actor.values(obs) for _, _, obs in rollout.truncated_final_obs]
        following = rollout.next_values(value, last, finals)
        advantage, returns = gae_time(
            self._reward(rollout),
            value,
            following,
            rollout.terminated,
            rollout.done,
            self.gamma,
            self.gae_lambda,
        )
        obs, action, mask = rollout.flat()
        return Minibatches(
            obs, action, mask, value.flatten(), log_prob.flatten(), advantage.flatten(), returns.flatten()
        )

    def train(self) -> None:
        """Update the policy on the rollout, and then the running moments of the observations."""
        assert self.rollout is not None
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        data = self.prepare_minibatches(self.rollout)
        progress = self._current_progress_remaining
        clip_vf = None if self._clip_vf_schedule is None else self._clip_vf_schedule(progress)
        settings = PPOSettings(
            learning_rate=self.lr_schedule(progress),
            clip_range=self._clip_schedule(progress),
            clip_range_vf=clip_vf,
            normalize_advantage=self.normalize_advantage,
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            max_grad_norm=self.max_grad_norm,
            target_kl=self.target_kl,
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
        )
        report = self._update(data, settings)
        self._n_updates += report.pop("epochs")
        for name, number in report.items():
            self.logger.record(name if "/" in name else f"train/{name}", number)
        self.logger.record("train/explained_variance", explained_variance(_numpy(data.value), _numpy(data.returns)))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", settings.clip_range)
        if clip_vf is not None:
            self.logger.record("train/clip_range_vf", clip_vf)
        for name, number in ({} if self.bonus is None else self.bonus.metrics()).items():
            self.logger.record(name, number)
        moments = getattr(self.policy, "moments", None)
        if moments is not None:
            assert isinstance(data.obs, Tensor)
            moments.update(data.obs)
        self.rollout.clear()

    def _update(self, data: Minibatches, settings: PPOSettings) -> dict[str, Any]:
        """Run the epochs: with the derivatives written out where the policy allows it, else by back-propagation."""
        if not (self.fast_update and isinstance(self.policy, ActorCritic) and can_update(self.policy, data)):
            return update(self.policy, self._actor, data, settings, self.generator)
        number = data.advantage.shape[0]
        fast = self._fast
        if (
            fast is None
            or fast.policy is not self.policy
            or (fast.number, fast.batch_size) != (number, self.batch_size)
        ):
            fast = self._fast = FastPPOUpdate(self.policy, number, self.batch_size)
        return fast.run(data, settings, self.generator)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions, as SB3's `predict`; `action_masks` [A] or [B, A] bool as in sb3-contrib.

        Without `action_masks` the policy allows what the observation itself shows as allowed, else what the agent's own
        environment allows where it shows this observation now, else everything.

        Raises:
            UsageError: the agent learned with masks and cannot tell what is allowed here, or its policy takes none.
        """
        if action_masks is None:
            action_masks = own_masks(self, observation)
        if action_masks is None:
            return self.policy.predict(observation, state, episode_start, deterministic)
        if not isinstance(self.policy, ActorCritic):
            raise UsageError(f"{type(self.policy).__name__} takes no action_masks; use one of this package's policies")
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "rollout",
            "rollout_class",
            "seats",
            "_fast",
            "_carried_return",
            "bonus",
            "_captions",
        ]


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
