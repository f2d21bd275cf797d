"""On-policy agents: rollouts, advantages, and epochs of minibatches for a method that the engine trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import explained_variance
from stable_baselines3.common.vec_env import VecTransposeImage
from torch import Tensor

from polyathlon.agents.engine import Engine, Method, Network, draw_noise
from polyathlon.agents.engine.agent import EngineState, MethodAgent
from polyathlon.agents.parts.devices import bounds_of
from polyathlon.agents.parts.intrinsic import Bonus, BonusBatch, captions_of
from polyathlon.agents.parts.moments import RunningMoments
from polyathlon.agents.parts.network_words import refuse_policy_words
from polyathlon.agents.parts.optimizer_words import refuse_optimizer_words
from polyathlon.agents.parts.policy_names import refuse_policy_name
from polyathlon.agents.parts.refused_words import ON_POLICY, POLICY_WORDS
from polyathlon.agents.parts.states import AttributeState
from polyathlon.agents.parts.time_returns import discounted_sums, gae_time
from polyathlon.agents.streams.callback_locals import step_locals
from polyathlon.agents.streams.masks import own_masks
from polyathlon.agents.streams.rollout import Rollout, RolloutState, tree_join, tree_map
from polyathlon.envs.errors import UsageError, check_fraction, check_positive_int, unknown_name

from .minibatches import Minibatches
from .model import ActorCriticModel, SB3PolicyAdapter
from .policies import ActorCritic

CHUNK = 16_384  # rows of one forward pass when a whole rollout is evaluated
Notes = list[tuple[dict[str, float], int]]  # means of metrics over so many minibatches


class OnPolicy(MethodAgent):
    """An agent that acts until a rollout is full and then takes gradient steps of a method on it, in epochs of minibatches.

    Args:
        policy: a name in `policy_aliases`, or a subclass of SB3's `ActorCriticPolicy`.
        env: an id or an environment; see `Agent`.
        learning_rate: learning rate, or a schedule of the remaining progress (1 to 0), of losses whose optimiser has none.
        n_steps: rollout length, steps of each environment per update.
        batch_size: transitions in a minibatch.
        n_epochs: passes over the transitions in an update.
        gamma: discount factor.
        gae_lambda: 0 gives one-step advantages, 1 Monte Carlo returns.
        target_kl: an update stops once the published `approx_kl` exceeds 1.5 times this; None never stops it.
        normalize_observations: centre and scale flat Box observations by running moments (kept in the policy).
        normalize_rewards: divide rewards by the running standard deviation of the discounted return.
        bonus: an intrinsic reward; see `PPO`.
        method: what is learned; None is the row of the class.
        compile: whether gradient steps are compiled; "auto" does so where at least 20,000 of them follow and the method
            has no hand-written twin for the policy.
        **kwargs: those of `Agent`.

    Raises:
        UsageError: a size is not positive, or the environment's actions have a form that the agent cannot act in.
    """

    refused_words = ON_POLICY
    policy_words = POLICY_WORDS
    fixed_words = (*MethodAgent.fixed_words, "normalize_observations")
    seats: Any = None  # plays all seats of a game, see `polyathlon.agents.games.seats`
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ActorCritic}
    gathered = Minibatches._fields
    policy: Any
    _actor: Any

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
        target_kl: float | None = None,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        bonus: Bonus | None = None,
        method: Method | None = None,
        compile: bool | Literal["auto"] = "auto",
        _init_setup_model: bool = True,
        **kwargs: Any,
    ) -> None:
        if bonus is not None and not isinstance(bonus, Bonus):
            raise UsageError(f"bonus must be a Bonus (polyathlon.agents.parts.intrinsic), got {bonus!r}")
        self.take_method(method, compile)
        policy_class = self._get_policy_from_name(policy) if isinstance(policy, str) else policy
        self._policy_name = policy if isinstance(policy, str) else ""
        super().__init__(policy_class, env, learning_rate, **kwargs)
        check_positive_int(n_steps=n_steps, batch_size=batch_size, n_epochs=n_epochs)
        check_fraction(gamma=gamma, gae_lambda=gae_lambda)
        self.n_steps, self.batch_size, self.n_epochs = n_steps, batch_size, n_epochs
        self.gamma, self.gae_lambda, self.target_kl = gamma, gae_lambda, target_kl
        self.normalize_observations, self.normalize_rewards = normalize_observations, normalize_rewards
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

    # ---------------------------------------------------------------------------------------------------- set-up

    def _setup_model(self) -> None:
        shown = self.env.venv if isinstance(self.env, VecTransposeImage) else self  # before its channels were moved
        names = (self._policy_name, shown.observation_space, self.policy_kwargs, type(self).__name__)
        refuse_policy_name(*names, reads_any=True)
        refuse_optimizer_words(type(self).__name__, self.policy_kwargs)
        if issubclass(self.policy_class, ActorCriticPolicy):
            refuse_policy_words(self.policy_class if self._policy_name else None, self.policy_kwargs)
        self._setup_lr_schedule()
        self.method = self.make_method()
        words: dict[str, Any] = {**self.policy_kwargs, "policy_class": self.policy_class}
        if self.normalize_observations:
            if not issubclass(self.policy_class, ActorCritic):
                raise UsageError(
                    f"normalize_observations needs one of this package's policies, got {self.policy_class}"
                )
            words["normalize_observations"] = True
        with self.seeded_initialisation():
            made = self.method.networks(self.observation_space, self.action_space, words, torch.default_generator)
        self.networks = dict(made)
        self.policy = self._acting_policy().to(self.device)
        if isinstance(self.policy, ActorCritic):
            self.policy.generator = self._prediction_generator
        self.method = self._final_method(self.method)
        self.engine = Engine(self.method, self.networks, self.device, self.compile)
        self.refuse_fields()
        self._bounds = bounds_of(self.action_space, self.device)
        self._sizes = {"action": _action_size(self.action_space)}
        self._sizes |= {n: len(net.modules) for n, net in self.networks.items() if isinstance(net, Network)}
        self.reward_moments = RunningMoments(()).to(self.device)
        self.register_state("training", EngineState(self, self._in_policy()))
        self.register_state("reward_moments", self.reward_moments)
        self.register_state("rollout", RolloutState(self), checkpoint_only=True)
        self.register_state("carried_return", AttributeState(self, "_carried_return"), checkpoint_only=True)
        if self.bonus is not None:
            self.register_state("bonus", self.bonus, checkpoint_only=True)
            self.register_state("captions", AttributeState(self, "_captions"), checkpoint_only=True)

    def _acting_policy(self) -> Any:
        network = self.networks.get(self.method.policy)
        if network is None:
            raise unknown_name("network in Method.policy", self.method.policy, self.networks)
        model = network.modules[0] if isinstance(network, Network) and network.members is None else None
        if not isinstance(model, ActorCriticModel):
            raise UsageError(
                f"the network {self.method.policy!r} acts and must be Network(ActorCriticModel(policy)), as `ppo.networks` makes it"
            )
        self._actor = model.actor
        return model.policy

    def _acting(self, policy: Any) -> ActorCritic | SB3PolicyAdapter:
        """Return a copy of the policy as an object with `act`, `evaluate` and `values`."""
        return policy if isinstance(policy, ActorCritic) else SB3PolicyAdapter(policy)

    def _final_method(self, method: Method) -> Method:
        """Return the method for the policy that was made."""
        return method

    def _in_policy(self) -> frozenset[str]:
        """Return the names of the networks whose parameters are in the policy's state."""
        known = {id(p) for p in self.policy.parameters()}
        own = {n: net for n, net in self.networks.items() if isinstance(net, Network)}
        return frozenset(
            n for n, net in own.items() if all(id(p) in known for m in net.modules for p in m.parameters())
        )

    @property
    def smallest_run(self) -> int:
        """A whole rollout."""
        return self.n_steps * self.n_envs

    def _before_training(self) -> None:
        super()._before_training()
        if self.method.twin is None:
            steps = (self._total_timesteps - self.num_timesteps) * self.n_epochs // self.batch_size
            self.engine.plan(steps)

    def _reset_source(self) -> None:
        super()._reset_source()
        if self.rollout is not None:
            self.rollout.clear()
        self._captions = []
        self._carried_return = None

    # ------------------------------------------------------------------------------------------------ collecting

    def _to_environment(self, action: Tensor) -> Tensor:
        """Clip actions into the box."""
        return action if self._bounds is None else action.clamp(*self._bounds)

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
        if self.rollout is not None and self.rollout.begin():
            self._captions = []
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
        source.ring.read()
        return True

    @torch.no_grad()
    def _evaluate_rollout(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return the values and log-probabilities [T, N] of everything in the rollout."""
        obs, action, mask = rollout.flat()
        values, log_probs = [], []
        for start in range(0, action.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            part_mask = None if mask is None else mask[part]
            found = self._actor.outputs(tree_map(obs, lambda x, p=part: x[p]), part_mask)
            values.append(found.value)
            log_probs.append(found.action.log_prob(self._actor.coded(action[part])))
        return torch.cat(values).view_as(rollout.reward), torch.cat(log_probs).view_as(rollout.reward)

    def _scaled_reward(self, rollout: Rollout) -> Tensor:
        if not self.normalize_rewards:
            return rollout.reward
        start = torch.zeros_like(rollout.reward[0]) if self._carried_return is None else self._carried_return
        sums, self._carried_return = discounted_sums(rollout.reward, rollout.done, start, self.gamma)
        self.reward_moments.update(sums.flatten())
        return self.reward_moments.scale_only(rollout.reward)

    def _reward(self, rollout: Rollout, log_prob: Tensor) -> Tensor:
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
        acted = (*rollout.flat(), log_prob) if getattr(self.bonus, "reads_policy", False) else None
        batch = BonusBatch(rollout.done, captions, following, acted)
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
        ends = (rollout.terminated, rollout.done)
        advantage, returns = gae_time(
            self._reward(rollout, log_prob), value, following, *ends, self.gamma, self.gae_lambda
        )
        obs, action, mask = rollout.flat()
        numbers = (value.flatten(), log_prob.flatten(), advantage.flatten(), returns.flatten())
        return Minibatches(obs, self._actor.coded(action), mask, *numbers)

    # -------------------------------------------------------------------------------------------------- learning

    def train(self) -> None:
        """Take the gradient steps of a rollout, and then update the running moments of the observations."""
        assert self.rollout is not None
        self.policy.set_training_mode(True)
        data = self.prepare_minibatches(self.rollout)
        rate = self.lr_schedule(self._current_progress_remaining)
        self.logger.record("train/learning_rate", rate)
        for name, number in self.update(data).items():
            self.logger.record(name if "/" in name else f"train/{name}", number)
        self.logger.record("train/explained_variance", explained_variance(_numpy(data.old_value), _numpy(data.returns)))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, number in ({} if self.bonus is None else self.bonus.metrics()).items():
            self.logger.record(name, number)
        moments = getattr(self.policy, "moments", None)
        if moments is not None:
            assert isinstance(data.obs, Tensor)
            moments.update(data.obs)
        self.rollout.clear()

    def numbers(self) -> dict[str, float]:
        """Return learning rate, progress and the numbers "LOSS.OPTION" that the agent's own schedules give now."""
        left = self._current_progress_remaining
        return {"learning_rate": self.lr_schedule(left), "progress": 1.0 - left}

    def update(self, data: Minibatches) -> dict[str, float]:
        """Take the gradient steps of a rollout.

        Returns:
            The means of what the losses published over the minibatches (the last one for "loss").
        """
        notes = list(self._steps(data, self.numbers()))
        return {**self._means(notes), **self.engine.modes()}

    def _steps(self, data: Minibatches, numbers: Mapping[str, float]) -> Iterator[tuple[dict[str, float], int]]:
        """Take the steps; yields means of metrics, at last those of the last minibatch."""
        engine, size, count = self.engine, data.adv.shape[0], 0
        last = (self.n_epochs - 1, (size - 1) // self.batch_size * self.batch_size)
        for epoch in range(self.n_epochs):
            order = torch.randperm(size, generator=self.generator, device=data.adv.device)
            shuffled = data.rows(order)
            for start in range(0, size, self.batch_size):
                batch = shuffled.part(start, min(start + self.batch_size, size))
                if (epoch, start) == last and count:
                    yield engine.metrics(), count
                    count = 0
                before = None if self.target_kl is None else engine.state_dict()
                sizes = {**self._sizes, "batch": batch.adv.shape[0]}
                noise = draw_noise(self.method.noise, engine.needs, sizes, self.generator, self.device)
                engine.step({**batch._asdict(), **noise, **numbers})
                count += 1
                if before is not None:
                    found, count = engine.metrics(), 0
                    yield found, 1
                    if self._is_too_far(found):
                        engine.load_state_dict(before)
                        self._n_updates += epoch + 1
                        return
        if count:
            yield engine.metrics(), count
        self._n_updates += self.n_epochs

    def _is_too_far(self, metrics: Mapping[str, float]) -> bool:
        assert self.target_kl is not None
        if "approx_kl" not in metrics:
            raise UsageError("target_kl= needs a loss that publishes approx_kl, as `ppo_loss` does")
        return metrics["approx_kl"] > 1.5 * self.target_kl

    def _means(self, notes: Notes) -> dict[str, float]:
        means: dict[str, float] = {}
        for name in dict.fromkeys(name for found, _ in notes for name in found):
            own = [(found[name], count) for found, count in notes if name in found]
            means[name] = sum(value * count for value, count in own) / sum(count for _, count in own)
        main = next((f"{loss.key}_loss" for loss in self.method.losses if self.method.policy in loss.moved), "")
        if main in means:
            del means[main]
            means["loss"] = next(found[main] for found, _ in reversed(notes) if main in found)
        log_std = getattr(self.policy, "log_std", None)
        return means if log_std is None else {**means, "std": float(log_std.detach().exp().mean())}

    # ---------------------------------------------------------------------------------------------------- acting

    def log_prob(self, obs: Any, action: Any, action_masks: np.ndarray | Tensor | None = None) -> Tensor:
        """Return the log-density [B] of actions; `action_masks` [B, A] are the allowed ones. See `Agent.log_prob`."""
        if isinstance(self.policy, ActorCritic):
            return self._log_prob(obs, action, action_masks)
        shown = obs if isinstance(obs, Tensor) else self.policy.obs_to_tensor(obs)[0]
        mask = None if action_masks is None else torch.as_tensor(action_masks, device=self.device).bool()
        acted = self._actor.coded(torch.as_tensor(action, device=self.device))
        found: Tensor = self._actor.outputs(shown, mask).action.log_prob(acted)
        return found

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
        own = [
            "rollout",
            "rollout_class",
            "seats",
            "_actor",
            "_sizes",
            "_bounds",
            "_carried_return",
            "bonus",
            "_captions",
        ]
        return [*super()._excluded_save_params(), *own]


def _action_size(space: spaces.Space[Any]) -> int:
    return int(np.prod(space.shape)) if isinstance(space, spaces.Box) else 1


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
