"""What agents have in common that hold a Pareto front of policies: choosing by preference, measures and pictures."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from torch import Tensor

from polyathlon.agents.base import Agent
from polyathlon.agents.parts.devices import bounds_of
from polyathlon.agents.parts.pareto import expected_utility, hypervolume, simplex_grid, sparsity, spread_weights
from polyathlon.agents.streams.callback_locals import step_locals
from polyathlon.agents.streams.env_stream import make_env_stream
from polyathlon.agents.streams.environments import make_vec_env
from polyathlon.agents.streams.masks import own_masks
from polyathlon.agents.streams.rollout import Rollout
from polyathlon.agents.streams.vec_envs import ScalarEnvs
from polyathlon.envs.errors import UsageError, unknown_name
from polyathlon.envs.tensor.rewards import num_objectives

from .pareto_archive import ParetoArchive
from .policy_set import PolicySet

GRID_DIVISIONS = {1: 1, 2: 100, 3: 20}
ROWS_PER_POLICY = 4
COARSE_DIVISIONS = 4  # of the grid for more than three objectives


class ParetoAgent(Agent):
    """An agent whose result is a set of policies; a subclass trains them and fills the archive.

    Attributes:
        archive: the front.
        policy: the policy that `predict` used last.
        num_objectives: number of objectives m.
    """

    takes_objectives = True
    policy_aliases: ClassVar[dict[str, type[Any]]] = {"MlpPolicy": PolicySet}
    max_evaluation_steps = 1000  # an episode without an end is judged by so many steps
    archive: ParetoArchive
    population: PolicySet
    policy: PolicySet
    num_objectives: int
    reference_point: Sequence[float] | NDArray[Any] | None
    evaluation_episodes: int
    eval_gamma: float
    normalize_observations: bool
    n_steps: int
    rollout: Rollout | None
    _are_rows_given = False
    _shown: tuple[int, int] | None = None

    def _get_policy_from_name(self, policy_name: str) -> type[Any]:
        if policy_name not in self.policy_aliases:
            raise unknown_name("policy", policy_name, self.policy_aliases)
        return self.policy_aliases[policy_name]

    def _set_words(self, number: int) -> dict[str, Any]:
        """Return what the policy class gets beside the spaces, for `number` policies."""
        return {
            "num_policies": number,
            "num_objectives": self.num_objectives,
            "normalize_observations": self.normalize_observations,
            **self.policy_kwargs,
        }

    def first_weights(self, given: Any, number: int) -> Tensor:
        """Return weights [number, m] of the objectives: as given, or spread over the simplex.

        Raises:
            UsageError: those given have another shape, or are not finite.
        """
        if given is None:
            weights = spread_weights(self.num_objectives, number)
        else:
            weights = torch.as_tensor(np.asarray(given, dtype=np.float64))
        wanted = (number, self.num_objectives)
        if tuple(weights.shape) != wanted or not bool(weights.isfinite().all()):
            raise UsageError(f"initial_weights must be finite numbers of shape {wanted}, got {tuple(weights.shape)}")
        return weights.float()

    def _initial_generator(self) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(self._initial_seed)

    def _new_set(self, number: int) -> PolicySet:
        kind: Any = self.policy_class
        words = {"generator": self._initial_generator(), **self._set_words(number)}
        made: PolicySet = kind(self.observation_space, self.action_space, **words)
        made.generator = self._prediction_generator
        return made

    def _use_rows(self, env: Any, force_reset: bool = True) -> None:
        """Copy a lone scalar environment as often as the policies need it, and refuse rows that cannot be dealt evenly."""
        found = num_objectives(env) or 1
        if found != self.num_objectives:
            raise UsageError(f"this agent was made for {self.num_objectives} objectives, the environment has {found}")
        step, is_twin = math.lcm(*self.numbers_of_policies()), False
        if env.num_envs == 1 and isinstance(env, ScalarEnvs) and not self._are_rows_given:
            wanted = step * math.ceil(ROWS_PER_POLICY * self.numbers_of_policies()[0] / step)
            check_for_correct_spaces(env, self.observation_space, self.action_space)
            # a batched twin may see in float32 what the scalar environment gives in float64: the agent keeps the latter's space
            env, is_twin = make_vec_env(env.envs[0], wanted, self.device), True
        if env.num_envs % step:
            numbers = " and to ".join(map(str, self.numbers_of_policies()))
            raise UsageError(
                f"{env.num_envs} rows cannot be dealt evenly to {numbers} policies, so many as act at once for "
                f"{self.num_objectives} objectives: make n_envs a multiple of {step}"
            )
        self.n_envs = env.num_envs
        self._bounds = bounds_of(self.action_space, self.device)
        if is_twin:
            self.env, self.source, self._last_obs = env, make_env_stream(env, self.device), None
        elif env is not self.env:
            super().set_env(env, force_reset)

    def numbers_of_policies(self) -> tuple[int, ...]:
        """Return how many policies act at once in each stage of the training; the rows are dealt evenly to them."""
        raise NotImplementedError

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Exchange the environment for another one of equal spaces and objectives, with rows for all policies."""
        self._use_rows(self._wrap_env(env), force_reset)

    @torch.no_grad()
    def collect(self, callback: BaseCallback) -> bool:
        """Let every policy act in its rows until the rollout is full.

        Returns:
            False when the callback asked to stop.
        """
        source = self.source
        assert source is not None
        self._note_masks()
        if self.rollout is not None:
            self.rollout.begin()
        while self.rollout is None or not self.rollout.is_full:
            action, taken = self._act(False)
            if self.rollout is None or self.rollout.action.shape[1] != source.num_envs:
                shape = () if num_objectives(self.env) is None else (self.num_objectives,)
                self.rollout = Rollout(self.n_steps, source.obs, action, source.mask, shape)
            self.rollout.add_action(source.obs, action, source.mask)
            step = source.step(taken)
            self.rollout.add_step(step)
            self.num_timesteps += source.num_envs
            callback.update_locals(step_locals(source, step, action, locals()))
            if not callback.on_step():
                return False
        source.ring.read()
        return True

    def _act(self, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Return the actions [N, ...] of all rows as the policies drew them, and as the environment takes them."""
        assert self.source is not None
        action = self.population.act(self.source.obs, self.source.mask, self.generator, deterministic)
        return action, action if self._bounds is None else action.clamp(*self._bounds)

    @torch.no_grad()
    def evaluate_population(self, callback: BaseCallback) -> Tensor | None:
        """Play deterministic episodes with every policy, from new starts in every row.

        Returns:
            [P, m] mean returns, discounted by `eval_gamma`; None when the callback asked to stop.
        """
        source = self.source
        assert source is not None
        source.reset(None)
        rows = source.num_envs
        total = torch.zeros(rows, self.num_objectives, dtype=torch.float64, device=self.device)
        discount = torch.ones(rows, 1, dtype=torch.float64, device=self.device)
        left = torch.full((rows, 1), self.evaluation_episodes, device=self.device)
        for _ in range(self.max_evaluation_steps * self.evaluation_episodes):
            step = source.step(self._act(True)[1])
            self.num_timesteps += rows
            total += step.reward.view(rows, -1) * discount * (left > 0)
            ended = (step.terminated | step.truncated).unsqueeze(1)
            discount = torch.where(ended, 1.0, discount * self.eval_gamma)
            left -= ended.long()
            if not callback.on_step():
                return None
            if not bool((left > 0).any()):
                break
        self._reset_source()
        return total.view(self.population.num_policies, -1, self.num_objectives).mean(1) / self.evaluation_episodes

    def vector(self, name: str, given: Any) -> Tensor:
        """Check a vector of one number for each objective and return it, [m] float64.

        Raises:
            UsageError: it is not m finite numbers.
        """
        try:
            vector = torch.as_tensor(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError):
            vector = torch.empty(0)
        if vector.shape != (self.num_objectives,) or not bool(vector.isfinite().all()):
            raise UsageError(
                f"{name} must be {self.num_objectives} finite numbers, one for each objective, got {given!r}"
            )
        return vector

    def pareto_front(self) -> NDArray[np.float64]:
        """Return the returns (A, m) of the policies on the front, in the order of the first objective; empty before `learn`."""
        order = self.archive.returns[:, 0].argsort(stable=True)
        front: NDArray[np.float64] = self.archive.returns[order].numpy()
        return front

    def metrics(self, reference_point: Sequence[float] | NDArray[Any] | None = None) -> dict[str, float]:
        """Measure the front.

        Args:
            reference_point: m returns from which the hypervolume is measured; None takes the agent's, or else the worst
                returns of all policies that were judged.

        Returns:
            "hypervolume", "expected_utility" (the mean over preferences on a grid of the best weighted return),
            "sparsity" and "num_policies".

        Raises:
            UsageError: no policy was judged yet, or the reference is malformed.
            ImportError: `moocore`, which measures the hypervolume, is not installed.
        """
        if not len(self.archive):
            raise UsageError("there is no policy on the front yet: call learn first")
        given = self.reference_point if reference_point is None else reference_point
        reference = self.archive.worst if given is None else self.vector("reference_point", given)
        return {"hypervolume": hypervolume(self.archive.returns, reference), **self._cheap_metrics()}

    def _cheap_metrics(self) -> dict[str, float]:
        grid = simplex_grid(self.num_objectives, GRID_DIVISIONS.get(self.num_objectives, COARSE_DIVISIONS))
        return {
            "expected_utility": expected_utility(self.archive.returns, grid),
            "sparsity": sparsity(self.archive.returns),
            "num_policies": float(len(self.archive)),
        }

    def record_front(self) -> None:
        """Log the measures of the front; the hypervolume where `moocore` is installed."""
        is_measurable = importlib.util.find_spec("moocore") is not None
        for name, value in (self.metrics() if is_measurable else self._cheap_metrics()).items():
            self.logger.record(f"pareto/{name}", value)

    def plot_front(self, path: str | Path, names: Sequence[str] | None = None) -> Path:
        """Draw the front: points for two and three objectives, parallel coordinates for more.

        Args:
            path: the picture to write; its ending gives the format (png, pdf, svg).
            names: names of the objectives.

        Raises:
            UsageError: there is no policy yet, or the picture cannot be written.
        """
        from .front_pictures import draw_front

        if not len(self.archive):
            raise UsageError("there is no policy on the front yet: call learn first")
        return draw_front({type(self).__name__: self.pareto_front()}, Path(path), names)

    def policy_for(self, preference: Sequence[float] | NDArray[Any] | None = None) -> PolicySet:
        """Return the policy of the front with the largest weighted return, on which `predict` acts.

        Before anything was judged, it is the policy in training whose weights are nearest to the preference.

        Args:
            preference: m weights of the objectives; None weighs all the same.

        Raises:
            UsageError: it is not m finite numbers.
        """
        equal = torch.full((self.num_objectives,), 1.0 / self.num_objectives, dtype=torch.float64)
        wanted = equal if preference is None else self.vector("preference", preference)
        if len(self.archive):
            index = self.archive.best(wanted)
            shown = (self.archive.version, index)
            rows = None if shown == self._shown else self.archive.policy(index)
        else:
            shown, index = None, self._nearest(wanted)
            rows = {name: value[index : index + 1] for name, value in self.population.rows().items()}
        if rows is not None:
            self.policy.take(rows)
        self._shown = shown
        return self.policy

    def _nearest(self, preference: Tensor) -> int:
        """Return the index of the policy in training that fits a preference [m] best."""
        raise NotImplementedError

    def log_prob(
        self,
        obs: Any,
        action: Any,
        action_masks: np.ndarray | Tensor | None = None,
        preference: Sequence[float] | NDArray[Any] | None = None,
    ) -> Tensor:
        """See `Agent.log_prob`; of the policy of the front that fits a preference best, as `predict` takes it."""
        self.policy_for(preference)
        return self._log_prob(obs, action, action_masks)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
        preference: Sequence[float] | NDArray[Any] | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions as SB3's `predict`, by the policy of the front that fits a preference best.

        Args:
            observation: one observation, or a batch of them.
            state: unused, returned as given.
            episode_start: unused.
            deterministic: take the mode.
            action_masks: [A] or [B, A] bool, the allowed actions, as in sb3-contrib; see `PPO.predict` for None.
            preference: m weights of the objectives; None weighs all the same.

        Returns:
            The action or actions, and `state`.

        Raises:
            UsageError: the agent learned with masks and cannot tell what is allowed here.
        """
        policy = self.policy_for(preference)
        if action_masks is None:
            action_masks = own_masks(self, observation)
        if action_masks is None or not isinstance(self.action_space, spaces.Discrete):
            return policy.predict(observation, state, episode_start, deterministic)
        obs, is_batch = policy.obs_to_tensor(observation)
        mask = torch.as_tensor(np.asarray(action_masks), device=self.device).bool()
        with torch.no_grad():
            action = policy.act(obs, mask.reshape(-1, int(self.action_space.n)), policy.generator, deterministic)
        actions = action.cpu().numpy()
        return (actions if is_batch else actions[0]), state
