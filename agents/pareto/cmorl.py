"""C-MORL: a Pareto front of policies by initialisation and constrained extension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from polyathlon.agents.engine import Adam, Engine, Method
from polyathlon.agents.engine.agent import MethodAgent
from polyathlon.agents.parts.keywords import AgentWords
from polyathlon.agents.parts.states import AttributeState
from polyathlon.agents.streams.rollout import Rollout, RolloutState
from polyathlon.envs.errors import (
    UsageError,
    check_finite,
    check_fraction,
    check_int,
    check_non_negative,
    check_positive,
    check_positive_int,
    unknown_name,
)
from polyathlon.envs.tensor.rewards import num_objectives
from polyathlon.registration import register_agent

from .ipo import cmorl
from .pareto_agent import ParetoAgent
from .pareto_archive import ParetoArchive
from .policy_set import PolicySet
from .population import Population, PopulationState, restarted
from .set_rollout import Constraint, SetBatch, constraint_of, prepare

BARRIERS = ("paper", "code")


@register_agent(
    "cmorl", family="pareto", summary="a Pareto front of policies for several objectives, by constrained extension"
)
class CMORL(MethodAgent, ParetoAgent):
    """Constrained multi-objective reinforcement learning, C-MORL-IPO (Liu et al. 2025, arXiv 2410.02236).

    First, policies are trained by PPO for fixed weights of the objectives. Then, again and again, the least crowded
    policies of the Pareto front are extended: a copy for each objective maximises it, while a log barrier keeps the
    other returns above the share `beta` of what the policy had. All policies of a stage are one batch of networks, which
    act in all rows of the environment at once. An environment that pays one number has one objective. `cmorl` (ipo.py)
    is the row; `method=replace_loss(cmorl, policy=my_loss)` changes it.

    Args:
        policy: "MlpPolicy".
        env: an id or an environment that pays for m objectives; see `Agent`. The rows are dealt evenly to the policies.
        learning_rate: learning rate of Adam, or a schedule of the remaining progress (1 to 0).
        num_initial_policies: policies of the first stage.
        num_extension_policies: policies extended in a round, each for every objective; 0 leaves the second stage out.
        initial_share: share of the steps that the first stage gets.
        iterations_per_round: iterations between two evaluations, after which policies enter the front and, in the second
            stage, new ones are chosen (authors: 20 of 8,192 steps each).
        n_steps: steps of each row in an iteration.
        batch_size: transitions of each policy in a minibatch.
        n_epochs: passes over the transitions in an update.
        gamma: discount factor.
        gae_lambda: 0 gives one-step advantages, 1 Monte Carlo returns.
        clip_range: clip ratio eps, the probability ratio is clipped to [1 - eps, 1 + eps]; a number or a schedule.
        ent_coef: entropy coefficient.
        vf_coef: value coefficient.
        max_grad_norm: bound of the norm of each policy's gradient; None sets none.
        beta: share of the other returns that an extension must keep.
        barrier_t: sharpness of the barrier; larger is closer to a hard constraint.
        barrier: "paper", or "code" for the published code's form, which holds every objective at the batch's own mean.
        initial_weights: (P, m) weights of the first stage; None spreads them over the simplex.
        reference_point: m returns that a policy must reach to count, from which the hypervolume is measured; None measures
            from the worst returns seen, which move: give one to compare runs.
        archive_size: most policies kept.
        evaluation_episodes: deterministic episodes of each row that a policy is judged by; their steps count.
        eval_gamma: discount of the returns by which policies are judged.
        normalize_observations: centre and scale observations by each policy's running moments.
        normalize_rewards: train the critics in units of each policy's typical returns.
        method: what is learned; None is `cmorl`. Words that are given in the constructor change it, their defaults do not.
        compile: whether gradient steps are compiled; "auto" does so where at least 20,000 of them follow.
        policy_kwargs: `net_arch`, `activation_fn`, `log_std_init`.
        **kwargs: `n_envs`, `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`. `n_envs` must be
            a multiple of the number of policies of both stages; None takes the least one that gives four rows to each
            policy of the first stage.

    Attributes:
        archive: the front.
        population: the policies in training.
        stage: "initial" or "extension".

    Raises:
        UsageError: a number is out of range, or the rows cannot be dealt evenly.
    """

    row = cmorl
    gathered = SetBatch._fields
    action_forms = ("box", "discrete")

    def __init__(
        self,
        policy: str | type[PolicySet],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        num_initial_policies: int = 6,
        num_extension_policies: int = 5,
        initial_share: float = 2 / 3,
        iterations_per_round: int = 10,
        n_steps: int = 512,
        batch_size: int = 128,
        n_epochs: int = 10,
        gamma: float = 0.995,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float | None = 0.5,
        beta: float = 0.9,
        barrier_t: float = 20.0,
        barrier: str = "paper",
        initial_weights: Sequence[Sequence[float]] | NDArray[Any] | None = None,
        reference_point: Sequence[float] | NDArray[Any] | None = None,
        archive_size: int = 200,
        evaluation_episodes: int = 1,
        eval_gamma: float = 1.0,
        normalize_observations: bool = True,
        normalize_rewards: bool = True,
        method: Method | None = None,
        compile: bool | Literal["auto"] = "auto",
        _init_setup_model: bool = True,
        **kwargs: Unpack[AgentWords],
    ) -> None:
        self.take_method(method, compile)
        policy_class = self._get_policy_from_name(policy) if isinstance(policy, str) else policy
        super().__init__(policy_class, env, learning_rate, **kwargs)
        self.num_initial_policies, self.num_extension_policies = num_initial_policies, num_extension_policies
        self.initial_share, self.iterations_per_round = initial_share, iterations_per_round
        self.n_steps, self.batch_size, self.n_epochs = n_steps, batch_size, n_epochs
        self.gamma, self.gae_lambda, self.clip_range = gamma, gae_lambda, clip_range
        self.ent_coef, self.vf_coef, self.max_grad_norm = ent_coef, vf_coef, max_grad_norm
        self.beta, self.barrier_t, self.barrier = beta, barrier_t, barrier
        self.initial_weights, self.reference_point = initial_weights, reference_point
        self.archive_size = archive_size
        self.evaluation_episodes, self.eval_gamma = evaluation_episodes, eval_gamma
        self.normalize_observations, self.normalize_rewards = normalize_observations, normalize_rewards
        self._check_numbers()
        self.num_objectives = 1 if self.env is None else (num_objectives(self.env) or 1)
        self._are_rows_given = kwargs.get("n_envs") is not None
        self.stage = "initial"
        self._round_iterations = self._extensions = 0
        self._is_due = False
        self._weights: Tensor | None = None
        self._constraint: Constraint | None = None
        self.rollout: Rollout | None = None
        self._carried_return: Tensor | None = None
        if _init_setup_model:
            self._setup_model()

    def _check_numbers(self) -> None:
        names = "num_initial_policies iterations_per_round n_steps batch_size n_epochs archive_size evaluation_episodes"
        check_positive_int(**{name: getattr(self, name) for name in names.split()})
        check_int(0, num_extension_policies=self.num_extension_policies)
        fractions = ("gamma", "gae_lambda", "initial_share", "beta", "eval_gamma")
        check_fraction(**{name: getattr(self, name) for name in fractions})
        check_non_negative(**({} if callable(self.clip_range) else {"clip_range": self.clip_range}))
        check_finite(ent_coef=self.ent_coef, vf_coef=self.vf_coef)
        if self.max_grad_norm is not None:
            check_positive(max_grad_norm=self.max_grad_norm)
        check_positive(barrier_t=self.barrier_t)
        if self.barrier not in BARRIERS:
            raise unknown_name("barrier", str(self.barrier), BARRIERS)

    # ---------------------------------------------------------------------------------------------------- set-up

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self._clip_schedule = FloatSchedule(self.clip_range)
        if self._weights is None:
            self._weights = self.first_weights(self.initial_weights, self.num_initial_policies)
        self._weights = self._weights.to(self.device)
        if self._constraint is not None:
            self._constraint = Constraint(*(part.to(self.device) for part in self._constraint))
        reference = None if self.reference_point is None else self.vector("reference_point", self.reference_point)
        self.archive = ParetoArchive(self.num_objectives, self.archive_size, reference)
        self.method, self.policy = self.make_method(), self._new_set(1)
        words = {"policy_class": self.policy_class, **self._set_words(self.num_initial_policies)}
        made = self.method.networks(self.observation_space, self.action_space, words, self._initial_generator())
        if set(made) != {"population"} or not isinstance(made["population"], Population):
            raise UsageError(
                "the method of a CMORL has one network, 'population', a Population as `cmorl.networks` makes it"
            )
        self.networks, self.population = dict(made), made["population"].policies
        self.population.generator = self._prediction_generator
        self.engine = Engine(self.method, self.networks, self.device, self.compile)
        self.refuse_fields()
        self.register_state("population", self.population)
        self.register_state("training", PopulationState(self, frozenset({"population"})))
        self.register_state("archive", self.archive)
        self.register_state("rollout", RolloutState(self), checkpoint_only=True)
        self.register_state("carried_return", AttributeState(self, "_carried_return"), checkpoint_only=True)
        self._shown = None
        if self.env is not None:
            self._use_rows(self.env)

    def numbers_of_policies(self) -> tuple[int, ...]:
        """Return how many policies act at once in each stage."""
        extended = self.num_extension_policies * self.num_objectives
        return (self.num_initial_policies, extended) if extended else (self.num_initial_policies,)

    def _reset_source(self) -> None:
        super()._reset_source()
        if self.rollout is not None:
            self.rollout.clear()
        self._carried_return = None

    # -------------------------------------------------------------------------------------------------- learning

    def train(self) -> None:
        """Update all policies on the rollout, and then their running moments of the observations."""
        assert self.rollout is not None and self.source is not None and self._weights is not None
        progress = self._current_progress_remaining
        data, features, self._carried_return = prepare(
            self.population,
            self.rollout,
            self.source.obs,
            self._weights,
            self._carried_return,
            self.gamma,
            self.gae_lambda,
            self.normalize_rewards,
        )
        if self.stage == "extension" and self._constraint is None and self.num_objectives > 1:
            # the policies are still copies of their parents here, so these are the parents' own returns
            parents = data.returns.mean(1)
            held = self._weights == 0
            self._constraint = constraint_of(parents, held, self.beta, self.population.value_scale())
        numbers = {"learning_rate": self.lr_schedule(progress), "progress": 1.0 - progress, **self._numbers(progress)}
        numbers |= dict.fromkeys(Constraint._fields) if self._constraint is None else self._constraint._asdict()
        number = data.adv.shape[1]
        for _ in range(self.n_epochs):
            epoch = data.shuffled(torch.randperm(number, generator=self.generator, device=self.device))
            for start in range(0, number, self.batch_size):
                batch = epoch.part(start, min(start + self.batch_size, number))
                self.engine.step({**batch._asdict(), **numbers})
        self._n_updates += self.n_epochs
        report = self.engine.metrics()
        report["loss"] = report.pop("policy_loss", math.nan)
        for name, value in {**report, **self.engine.modes()}.items():
            self.logger.record(f"train/{name}", value)
        self.logger.record("train/learning_rate", numbers["learning_rate"])
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if self.normalize_observations:
            self.population.update_observations(features)
        self.rollout.clear()

    def _before_training(self) -> None:
        super()._before_training()
        transitions = self.n_steps * self.n_envs
        minibatches = -(-transitions // self.population.num_policies // self.batch_size)
        self.engine.plan((self._total_timesteps - self.num_timesteps) // transitions * self.n_epochs * minibatches)

    def method_words(self, method: Method) -> dict[str, dict[str, object]]:
        """See `MethodAgent.method_words`."""
        options = {"barrier": self.barrier, "clip_range": self._clip_schedule(1.0)}
        options |= {name: float(getattr(self, name)) for name in ("ent_coef", "vf_coef", "beta", "barrier_t")}
        moved = [loss.key for loss in method.losses if loss.moved and isinstance(loss.optimiser, Adam)]
        return {
            **{name: {name: value} for name, value in options.items()},
            "max_grad_norm": {f"{key}.max_grad_norm": self.max_grad_norm for key in moved},
        }

    def _numbers(self, progress: float) -> dict[str, Any]:
        """Return the clip ratio that the agent's own schedule gives now, for each loss that takes it."""
        is_taken = self._given_method is None or "clip_range" in self._given_words
        owners = [loss.key for loss in self.method.losses if isinstance(loss.options.get("clip_range"), float)]
        return {f"{key}.clip_range": self._clip_schedule(progress) for key in owners if is_taken}

    def _is_round_over(self) -> bool:
        is_initial = self.stage == "initial" and self.num_extension_policies > 0
        limit = self._total_timesteps * (self.initial_share if is_initial else 1.0)
        return self._round_iterations >= self.iterations_per_round or self.num_timesteps >= limit

    def _start_round(self) -> None:
        """Go on with the first stage, or choose the policies to extend, each once for every objective."""
        self._round_iterations = 0
        has_begun = self.stage == "extension" or self.num_timesteps >= self._total_timesteps * self.initial_share
        if not has_begun or self.num_extension_policies == 0:
            return
        self.stage = "extension"
        parents = self.archive.select(self.num_extension_policies)
        self.population.take(self.archive.policy(parents.repeat_interleave(self.num_objectives)))
        self._weights = torch.eye(self.num_objectives, device=self.device).repeat(self.num_extension_policies, 1)
        self._constraint = None
        self.engine = restarted(self.engine)

    @property
    def smallest_run(self) -> int:
        """A rollout of each stage; the episodes by which the front is judged come on top."""
        return self.n_steps * self.n_envs * (2 if self.num_extension_policies else 1)

    def _has_finished(self, total: int) -> bool:
        is_last_stage = self._extensions > 0 or self.num_extension_policies == 0
        return self.num_timesteps >= total and is_last_stage and not self._is_due

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _iterate(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        if not self._is_due and not super()._iterate(callback, total, log_interval):
            return False
        return not self._is_due or self._judge(callback)

    def _after_rollout(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        self._round_iterations += 1
        self._extensions += self.stage == "extension"
        super()._after_rollout(callback, total, log_interval)
        self._is_due = self._is_round_over()
        return True

    def _judge(self, callback: BaseCallback) -> bool:
        """Let the archive take the policies in, and start the next round; return False when the callback asked to stop."""
        returns = self.evaluate_population(callback)
        if returns is None:
            return False
        self.archive.add(self.population.rows(), returns)
        self._is_due = False
        self.record_front()
        self._start_round()
        return True

    def _finish_training(self) -> None:
        self.policy_for()

    def _nearest(self, preference: Tensor) -> int:
        assert self._weights is not None
        return int((self._weights - preference.to(self._weights)).norm(dim=1).argmin())

    # --------------------------------------------------------------------------------------------------- storage

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "rollout", "_bounds", "_carried_return"]
