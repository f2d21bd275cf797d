"""BQ-NCO: a policy that solves what remains of a combinatorial problem, learnt from solved instances."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar, Unpack

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.finite_losses import refuse_lost_losses
from polyathlon.agents.parts.keywords import AgentWords
from polyathlon.envs.combinatorial.construction import ConstructionTask
from polyathlon.envs.combinatorial.labels import make_labels
from polyathlon.envs.combinatorial.solvers import SOLVERS
from polyathlon.envs.errors import (
    POLICY_POSITIONS,
    UsageError,
    check_finite,
    check_fraction,
    check_non_negative,
    check_positive,
    check_positive_int,
    refuse_unknown_arguments,
    refuse_without_effect,
    unknown_name,
)
from polyathlon.envs.random import make_keys
from polyathlon.registration import register_agent

from . import reinforce
from .decoding import Solution, solve_instances
from .distributed import rank_and_size, sum_gradients
from .expert_data import ROUTE_ORDERS, LabelledInstances, LabelsState, as_choices
from .imitation import ImitationLoss, imitation_loss, one_cycle
from .policies import ConstructionAttentionPolicy, ConstructionPolicy, ReZeroPolicy
from .problems.kit import fitting_kits, kit_of, problem_kits
from .sub_instances import SAMPLINGS, SubInstance, sample_sub_instances, share
from .table_rows import Observation
from .tasks import find_task, problem_in, read_instances

SelfBQNCO = TypeVar("SelfBQNCO", bound="BQNCO")
SOURCES = ("solutions", "rewards")
# what is read from one source of signal alone
READ_BY = {
    "rewards": ("num_starts", "ent_coef"),
    "solutions": (
        "labels",
        "num_labels",
        "solver",
        "solver_options",
        "route_order",
        "sampling",
        "augment",
        "edge_coef",
    ),
}
SCHEDULES = ("one_cycle", "constant")


@register_agent(
    "bqnco", family="construction", summary="combinatorial tasks, learnt from solved instances or from rewards (BQ-NCO)"
)
class BQNCO(Agent):
    """Bisimulation-quotiented neural combinatorial optimisation (Drakulic et al. 2023), a Stable-Baselines3 algorithm.

    A state is what remains to be solved. The policy imitates solutions of small instances: each step cuts random
    sub-instances out of them and learns their next choice, with no rollout. A timestep is one such decision. With
    `learn_from="rewards"` the same networks learn from the costs of their own solutions (REINFORCE with several starts
    and their mean as baseline, Kwon et al. 2020), also on `mdp="direct"`; a timestep is then one of the environment.

    Trained under `torch.distributed` (torchrun), each process takes its share of every batch, and gradients are summed:
    the weights are those of one process.

    Args:
        policy: "AttentionPolicy" (scale-free, quick), "ReZeroPolicy" (the paper's network), or a subclass of
            `ConstructionPolicy`.
        env: a combinatorial task: its id or environment, made with `mdp="bq"` to imitate.
        learning_rate: learning rate of AdamW (that of Muon is ten times as large), or a schedule of the remaining progress.
        batch_size: decisions in an update; from rewards, instances in an update.
        labels: what to imitate: (instances, labels) of `polyathlon.envs.combinatorial.labels.make_labels`; None
            draws `num_labels` instances of the environment's own and solves them.
        num_labels: number of instances to solve.
        solver: name of the solver; None for the usual one of the problem.
        solver_options: options of the solver, such as `seconds`.
        route_order: of CVRP, "fullest_first", "as_given" or "random" (see `as_choices`).
        sampling: "infix" or "suffix", see `sample_sub_instances`; None takes suffixes of routes sorted "fullest_first", whose last
            vehicle has the most room only there, and infixes elsewhere.
        augment: show instances in the plane under random symmetries of the square.
        edge_coef: weight of the loss of the edges (see `imitation_loss`); 0 leaves it out.
        schedule: "one_cycle" (see `one_cycle`) or "constant", times `learning_rate`.
        warmup_fraction: share of the run in which the step size rises.
        ema_decay: decay of the exponential moving average of the weights, which acts.
        max_grad_norm: gradient clipping, the largest norm of the gradient; None sets none.
        learn_from: "solutions" or "rewards".
        num_starts: starts of an instance, from rewards.
        ent_coef: entropy coefficient, from rewards.
        policy_kwargs: keyword arguments of the policy.
        **kwargs: `verbose`, `seed`, `device`, `tensorboard_log`, `stats_window_size` of `Agent`.

    Raises:
        UsageError: the environment is no combinatorial task, or an argument is outside what is allowed.
    """

    action_forms = ("discrete",)
    environments = tuple(kit.environment for kit in problem_kits())
    default_policy = "AttentionPolicy"
    log_interval = 10
    checkpoint_words = (*Agent.checkpoint_words, "labels")
    reads_any_observation = True
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "AttentionPolicy": ConstructionAttentionPolicy,
        "ReZeroPolicy": ReZeroPolicy,
    }
    policy: ConstructionPolicy

    def __init__(
        self,
        policy: str | type[ConstructionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 2e-3,
        batch_size: int = 128,
        labels: tuple[Any, Any] | None = None,
        num_labels: int = 1000,
        solver: str | None = None,
        solver_options: dict[str, Any] | None = None,
        route_order: str = "fullest_first",
        sampling: str | None = None,
        augment: bool = True,
        edge_coef: float = 0.5,
        schedule: str = "one_cycle",
        warmup_fraction: float = 0.05,
        ema_decay: float = 0.995,
        max_grad_norm: float | None = 1.0,
        learn_from: str = "solutions",
        num_starts: int = 8,
        ent_coef: float = 0.0,
        _init_setup_model: bool = True,
        **kwargs: Unpack[AgentWords],
    ) -> None:
        policy_class = self._get_policy_from_name(policy) if isinstance(policy, str) else policy
        if kwargs.get("n_envs") not in (None, 1):
            raise UsageError(f"n_envs={kwargs['n_envs']} has no effect: an update takes batch_size instances; set that")
        super().__init__(policy_class, env, learning_rate, **kwargs)
        check_positive_int(batch_size=batch_size, num_labels=num_labels, num_starts=num_starts)
        check_fraction(warmup_fraction=warmup_fraction, ema_decay=ema_decay)
        for name, number in (("warmup_fraction", warmup_fraction), ("ema_decay", ema_decay)):
            if number == 1:
                raise UsageError(f"{name} must lie in [0, 1), got {number!r}")
        check_finite(edge_coef=edge_coef, ent_coef=ent_coef)
        check_non_negative(edge_coef=edge_coef, ent_coef=ent_coef)
        if max_grad_norm is not None:
            check_positive(max_grad_norm=max_grad_norm)
        for name, given, allowed in (
            ("sampling", "infix" if sampling is None else sampling, SAMPLINGS),
            ("schedule", schedule, SCHEDULES),
            ("learn_from", learn_from, SOURCES),
            ("route_order", route_order, ROUTE_ORDERS),
        ):
            if given not in allowed:
                raise unknown_name(name, str(given), allowed)
        if learn_from == "rewards" and num_starts < 2:
            raise UsageError("the baseline is the mean over the starts of an instance: num_starts must be at least 2")
        if learn_from == "rewards" and labels is not None:
            raise UsageError('learn_from="rewards" imitates nothing: leave labels out')
        self._refuse_without_effect(learn_from, locals())
        self.batch_size, self.num_labels, self.num_starts = batch_size, num_labels, num_starts
        self.solver, self.solver_options, self.route_order = solver, dict(solver_options or {}), route_order
        self.sampling, self.augment, self.edge_coef = sampling, augment, edge_coef
        self.schedule, self.warmup_fraction, self.ema_decay, self.max_grad_norm = (
            schedule,
            warmup_fraction,
            ema_decay,
            max_grad_norm,
        )
        self.learn_from, self.ent_coef = learn_from, ent_coef
        self.problem: str | None = None
        self._solved: LabelledInstances | None = None
        if labels is not None:
            self.set_labels(*labels)
        if _init_setup_model:
            self._setup_model()

    def take_changes(self, changes: dict[str, Any]) -> None:
        """See `SavedStates.take_changes`."""
        labels = changes.pop("labels", None)
        super().take_changes(changes)
        if labels is not None:
            self.set_labels(*labels)

    def _refuse_without_effect(self, learn_from: str, given: dict[str, Any]) -> None:
        for source, names in READ_BY.items():
            if source != learn_from:
                unread = {name: given[name] for name in names}
                refuse_without_effect(BQNCO, unread, f'with learn_from="{learn_from}"')
        if given["schedule"] == "constant":
            refuse_without_effect(BQNCO, {"warmup_fraction": given["warmup_fraction"]}, 'with schedule="constant"')
        if self.env is not None and learn_from == "solutions" and not kit_of(self.task).has_route_order:
            refuse_without_effect(BQNCO, {"route_order": given["route_order"]}, "where a solution has no routes")

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise unknown_name("policy", policy_name, self.policy_aliases)
        return self.policy_aliases[policy_name]

    @classmethod
    def refuse_wrong_form(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Refuse an environment that has the spaces of no combinatorial task.

        Raises:
            UsageError: it has not; the message names the tasks that there are and says how to add one.
        """
        fitting_kits(observation_space, action_space, cls.__name__)

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        refuse_unknown_arguments(self.policy_class, self.policy_kwargs, POLICY_POSITIONS, "policy_kwargs")
        options = {"problem": problem_in(self.env, self.problem), **self.policy_kwargs}
        with self.seeded_initialisation():
            policy = self.policy_class(self.observation_space, self.action_space, self.lr_schedule, **options)
        assert isinstance(policy, ConstructionPolicy)
        self.policy = policy.to(self.device)
        self.policy.generator = self._prediction_generator
        self.register_state("policy.optimizer", self.policy.optimizer)
        self.register_state("labels", LabelsState(self), checkpoint_only=True)
        self.problem = self.policy.problem.key

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment for another one of the same problem, equal spaces and number of environments.

        Raises:
            UsageError: it is one of another problem.
        """
        env = self._wrap_env(env)
        problem_in(env, self.problem)
        super().set_env(env, force_reset)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_solved"]

    @property
    def task(self) -> ConstructionTask:
        """The task behind the environment, on the agent's device.

        Raises:
            UsageError: the agent has no environment, or one that hides its task.
        """
        if self.env is None:
            raise UsageError(
                f"this {type(self).__name__} has no environment: pass env= when loading it, or call set_env"
            )
        return find_task(self.env, self.device)

    def _any_task(self) -> ConstructionTask:
        """Return the environment's task; of an agent loaded without one, a task of the same problem."""
        if self.env is not None:
            return self.task
        shown = self.observation_space.spaces  # type: ignore[attr-defined]
        return self.policy.problem.make_task("direct" if "visited" in shown else "bq", self.device)

    # ---- what is imitated

    def set_labels(self, instances: Any, labels: Any) -> None:
        """Set what is imitated.

        Args:
            instances: instances as `task.generate` makes them.
            labels: their solutions, with the attribute `solution`, or an array [M, L] in the form of `info["solution"]`.

        Raises:
            UsageError: a solution is not feasible.
        """
        solution = getattr(labels, "solution", labels)
        self._solved = as_choices(self.task, instances, solution, self.route_order).to(self.device)

    def _labels(self) -> LabelledInstances:
        """Return what is imitated; solves instances of the environment's own when nothing was given."""
        if self._solved is None:
            if type(self.task).__name__.lower() not in SOLVERS:
                raise UsageError(f'no solver knows {self.problem}: pass labels=, or learn_from="rewards"')
            seed = self._initial_seed % 2**40
            instances, labels = make_labels(self.task, self.num_labels, seed, self.solver, **self.solver_options)
            self.set_labels(instances, labels)
        assert self._solved is not None
        return self._solved

    # ---- learning

    def _step_size(self) -> float:
        factor = 1.0
        if self.schedule == "one_cycle":
            factor = one_cycle(self._current_progress_remaining, self.warmup_fraction)
        return factor * self.lr_schedule(self._current_progress_remaining)

    def _update(self) -> None:
        """Take one step of the optimiser with the gradient that is there."""
        parameters = [p for p in self.policy.network.parameters() if p.grad is not None]
        sum_gradients(parameters)
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        lr = self._step_size()
        self.policy.optimizer.set_lr(lr)
        self.policy.optimizer.step()
        self.policy.optimizer.zero_grad()
        self._n_updates += 1
        self.policy.update_average(min(self.ema_decay, 1.0 - 1.0 / self._n_updates))
        self.logger.record("train/learning_rate", lr)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def next_sub_instances(self) -> SubInstance:
        """Draw the next batch of sub-instances, the same on every process."""
        labels = self._labels()
        which = torch.randint(len(labels), (self.batch_size,), generator=self.generator, device=self.device)
        return sample_sub_instances(self.task, labels, which, self.generator, self._sampling(), self.augment)

    def _sampling(self) -> str:
        if self.sampling is not None:
            return self.sampling
        is_sorted = kit_of(self.task).has_route_order and self.route_order == "fullest_first"
        return "suffix" if is_sorted else "infix"

    def _imitation_gradient(self) -> tuple[ImitationLoss, int]:
        """Compute the gradient of this process's share of the next batch; return the losses and the number of rows."""
        cut = share(self.next_sub_instances(), *rank_and_size())
        loss = imitation_loss(self.policy, cut, with_edges=self.edge_coef > 0)
        ((loss.choice + self.edge_coef * loss.edges) / self.batch_size).backward()
        return loss, max(1, len(cut.target))

    def _imitate(self) -> int:
        """Update the policy on one batch of decisions and return their number."""
        loss, count = self._imitation_gradient()
        self._update()
        sums = torch.stack([loss.choice.detach(), loss.edges.detach(), loss.right.to(loss.choice.dtype)]).tolist()
        refuse_lost_losses(dict(zip(("loss", "edge_loss"), sums)), f"at update {self._n_updates}")
        for name, total in zip(("loss", "edge_loss", "accuracy"), sums):
            self.logger.record_mean(f"train/{name}", total / count)
        return self.batch_size

    def _explore(self) -> int:
        """Update the policy on solutions of its own, and return the number of steps of the environment."""
        rank, size = rank_and_size()
        if self.batch_size % size:
            raise UsageError(f"batch_size must be a multiple of the number of processes {size}, got {self.batch_size}")
        task = self.task
        seeds = torch.randint(2**62, (self.batch_size,), generator=self.generator, device=self.device)
        part = self.batch_size // size
        instance = task.generate(make_keys(seeds, torch.zeros_like(seeds))[rank * part : (rank + 1) * part])
        rollouts = reinforce.roll_out(task, self.policy, instance, self.num_starts, self.generator)
        loss, entropy = reinforce.backward(task, self.policy, rollouts, self.num_starts, self.ent_coef)
        refuse_lost_losses({"loss": loss}, f"at update {self._n_updates + 1}")
        if size > 1:
            for parameter in self.policy.network.parameters():
                if parameter.grad is not None:
                    parameter.grad /= size
        self._update()
        self.logger.record_mean("train/loss", loss)
        self.logger.record_mean("train/entropy", entropy)
        lengths = torch.stack(rollouts.counts).sum(0)
        found = torch.cat([rollouts.cost, lengths.to(rollouts.cost.dtype), rollouts.cost.mean()[None]]).tolist()
        self.logger.record_mean("train/cost", found.pop())
        assert self.ep_info_buffer is not None
        ends = zip(found[: len(lengths)], found[len(lengths) :])
        self.ep_info_buffer.extend({"r": -cost, "l": int(length), "t": 0.0} for cost, length in ends)
        return len(rollouts.actions) * len(rollouts.cost) * size

    def _before_training(self) -> None:
        if self.learn_from == "solutions":
            if self.task.mdp != "bq":
                raise UsageError('imitation needs an environment made with mdp="bq"; learn_from="rewards" takes both')
            self._labels()

    def _start_training(self) -> None:
        self.policy.set_training_mode(True)

    def _finish_training(self) -> None:
        self.policy.set_training_mode(False)

    def collect(self, callback: BaseCallback) -> bool:
        """Make a batch of decisions and learn from it at once: here a step is one that was learnt."""
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self.train()
        return True

    def train(self) -> None:
        """Update the policy on the next batch, and count its decisions."""
        self.num_timesteps += self._imitate() if self.learn_from == "solutions" else self._explore()

    def _after_rollout(self, callback: BaseCallback, total: int, log_interval: int | None) -> bool:
        iteration = self._iterations
        if self._is_log_due(log_interval, 0):
            self.dump_logs()
        callback.update_locals(locals())
        return callback.on_step()

    # ---- acting

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions as SB3's agents do; `action_masks` as in sb3-contrib, read off the observation when left out."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def solve(self, instances: Any, beam: int = 1, augment: int = 1, neighbours: int | None = None) -> Solution:
        """Solve instances of any size.

        Args:
            instances: what `reset(options={"instance": ...})` takes, one instance or a batch of equal size (leading axis B),
                or instances as tensors, as `task.generate` makes them.
            beam: 1 takes the most likely choice each time; more keep that many partial solutions side by side.
            augment: 8 solves eight forms of each instance and keeps the best (see `solve_instances`).
            neighbours: show the policy that many rows only, the nearest ones; for large instances.

        Returns:
            `solution` [B, L] int64, as `info["solution"]` has it, and `cost` [B] float64 in units of the instances.

        Raises:
            UsageError: an instance is malformed or a number impossible.
        """
        task, batch = read_instances(self._any_task(), instances)
        self.policy.set_training_mode(False)

        def log_probs(obs: Observation, mask: Tensor) -> Tensor:
            return self.policy.log_probs(obs, mask, neighbours)

        return solve_instances(task, log_probs, batch, beam, augment)

    # ---- files

    @classmethod
    def pretrained(cls: type[SelfBQNCO], problem: str, **kwargs: Any) -> SelfBQNCO:
        """Make one of the small trained agents that come with the package (`scripts/train_bq` makes them).

        Args:
            problem: "tsp", "atsp", "cvrp", "op" or "knapsack".
            **kwargs: arguments of the agent, such as `device`.

        Raises:
            UsageError: there is no such agent.
        """
        from .pretrained import DATA, read

        agent = read(cls, problem, DATA, **kwargs)
        assert isinstance(agent, cls)
        return agent
