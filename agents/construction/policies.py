"""Policies that choose the next node of a solution from a table of nodes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from polyathlon.agents.engine.distributions import Categorical
from polyathlon.agents.parts.action_distributions import masked_log_softmax, sample_categorical
from polyathlon.agents.parts.muon import MuonAdamW
from polyathlon.agents.parts.products import has_bfloat16
from polyathlon.envs.errors import UsageError

from .networks import LocalAttention, ReZeroAttention, Scores, check_heads
from .problems.kit import LEAST_NEIGHBOURS, problem_of
from .table_rows import Observation, select_rows, spread_logits

PRECISIONS = ("auto", "float32", "bfloat16")


class ConstructionPolicy(BasePolicy):
    """A network over a table of nodes, and the moving average of its weights, which acts.

    Args:
        observation_space: space of a combinatorial task.
        action_space: its actions.
        lr_schedule: step size as a function of the remaining progress.
        problem: the task class, as `find_kit` takes it; None recognises the problem by the spaces.
        precision: of the products with weights: "float32", "bfloat16" or "auto" (bfloat16 where the processor has it).
        optimizer_kwargs: keyword arguments of `MuonAdamW`.

    Attributes:
        problem: the kit of the problem.
        network: what is trained.
        averaged: moving average of its weights.
        generator: source of the random actions of `predict`; None draws from torch's global generator.
    """

    network: nn.Module
    averaged: nn.Module

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        problem: str | None = None,
        precision: str = "auto",
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        super().__init__(observation_space, action_space, optimizer_kwargs=optimizer_kwargs)
        self.problem = problem_of(observation_space, action_space, problem)
        self.precision = precision
        self.generator: torch.Generator | None = None
        self.network = self._make_network()
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        matrices = self._hidden_matrices()
        known = {id(p) for p in matrices}
        others = [p for p in self.network.parameters() if id(p) not in known]
        self.optimizer: MuonAdamW = MuonAdamW(matrices, others, lr_schedule(1), **(optimizer_kwargs or {}))

    def _hidden_matrices(self) -> list[nn.Parameter]:
        """Return the weights between the embedding and the head, which Muon trains."""
        inner = [self.network.blocks, *(getattr(self.network, name, None) for name in ("query", "key"))]
        layers = [layer for part in inner if isinstance(part, nn.Module) for layer in part.modules()]
        weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear)]
        return [weight for weight in weights if isinstance(weight, nn.Parameter)]

    def _make_network(self) -> nn.Module:
        raise NotImplementedError

    def _own_parameters(self) -> dict[str, Any]:
        """Return the keyword arguments of the constructor that are the subclass's own."""
        raise NotImplementedError

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "problem": self.problem.key,
            "precision": self.precision,
            "optimizer_kwargs": self.optimizer_kwargs,
            **self._own_parameters(),
        }

    @property
    def uses_bfloat16(self) -> bool:
        """Return whether products with weights run in bfloat16 where this policy lives."""
        if self.precision == "auto":
            return has_bfloat16(self.device)
        return self.precision == "bfloat16"

    def scores(self, obs: Observation, is_training: bool = False) -> Scores:
        """Score the actions with the averaged weights, or while training with the trained ones."""
        network = self.network if is_training else self.averaged
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.uses_bfloat16):
            found: Scores = network(obs)
        return found

    def logits(self, obs: Observation, neighbours: int | None = None) -> Tensor:
        """Return the logits [B, A] of the actions, before the mask.

        Args:
            obs: tensors [B, ...].
            neighbours: show the network only the `nearest_rows`; the actions of the other rows get -1e9.
        """
        num_rows = obs["nodes"].shape[1]
        if neighbours is None or neighbours >= num_rows:
            return self.scores(obs).logits
        index = self.problem.neighbours(obs, check_neighbours(neighbours, obs))
        return spread_logits(self.scores(select_rows(obs, index)).logits, index, num_rows)

    def log_probs(self, obs: Observation, mask: Tensor | None = None, neighbours: int | None = None) -> Tensor:
        """Return the log-probabilities [B, A] of the actions.

        Args:
            obs: tensors [B, ...].
            mask: [B, A] bool, the allowed actions; None reads them off the observation.
            neighbours: see `logits`.
        """
        mask = self.problem.allowed(obs) if mask is None else mask
        return masked_log_softmax(self.logits(obs, neighbours), mask)

    def distribution(self, obs: Observation, action_masks: Tensor | None = None) -> Categorical:
        """Return the distribution of the next action: of the averaged weights, which act; while training of the trained ones.

        Args:
            obs: tensors [B, ...].
            action_masks: [B, A] bool, the allowed actions; None reads them off the observation.
        """
        mask = self.problem.allowed(obs) if action_masks is None else action_masks
        return Categorical(self.scores(obs, self.training).logits.float()).masked(mask)

    def forward(self, obs: Observation, deterministic: bool = False) -> Tensor:
        """Choose actions [B]; see `_predict`."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, dict)
        return self._choose(observation, None, deterministic)

    def _choose(self, obs: Observation, mask: Tensor | None, deterministic: bool) -> Tensor:
        log_probs = self.log_probs(obs, mask)
        return log_probs.argmax(1) if deterministic else sample_categorical(log_probs, self.generator)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Choose actions for numpy observations, as SB3 does; `action_masks` as in sb3-contrib.

        Args:
            observation: one observation, or a batch of them.
            state: unused, returned as given.
            episode_start: unused.
            deterministic: take the most likely action.
            action_masks: [A] or [B, A] bool, the allowed actions; None reads them off the observation.

        Returns:
            The action or actions, and `state`.
        """
        if action_masks is None:
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        obs, is_batch = self.obs_to_tensor(observation)
        assert isinstance(obs, dict) and isinstance(self.action_space, spaces.Discrete)
        mask = torch.as_tensor(np.asarray(action_masks), device=self.device).bool()
        with torch.no_grad():
            action = self._choose(obs, mask.reshape(-1, int(self.action_space.n)), deterministic).cpu().numpy()
        return (action if is_batch else action[0]), state

    @torch.no_grad()
    def update_average(self, keep: float) -> None:
        """Move the averaged weights towards the trained ones: averaged <- keep averaged + (1 - keep) trained."""
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1.0 - keep)


class ConstructionAttentionPolicy(ConstructionPolicy):
    """Attention in a view that does not depend on place, size and direction of an instance; see `LocalAttention`.

    Args:
        observation_space: space of a combinatorial task with `mdp="bq"`.
        action_space: its actions.
        lr_schedule: step size as a function of the remaining progress.
        width: width of a row's features.
        num_layers: number of blocks.
        num_heads: number of attention heads.
        neighbours: rows that the network sees; None for all; "auto" takes those of the problem (20 for TSP, all elsewhere).
        num_sectors: directions in which the rows left out are summed up.
        **kwargs: `problem`, `precision`, `optimizer_kwargs`.

    Raises:
        UsageError: the spaces are those of another task or formulation, or a size is impossible.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        width: int = 96,
        num_layers: int = 4,
        num_heads: int = 4,
        neighbours: int | str | None = "auto",
        num_sectors: int = 8,
        **kwargs: Any,
    ) -> None:
        check_heads(width, num_heads)
        if isinstance(observation_space, spaces.Dict) and "visited" in observation_space.spaces:
            raise UsageError(
                'AttentionPolicy reads what remains to be solved, of an environment made with mdp="bq"; '
                'for mdp="direct" use "ReZeroPolicy"'
            )
        is_number = isinstance(neighbours, int) and not isinstance(neighbours, bool) and neighbours >= LEAST_NEIGHBOURS
        if neighbours not in (None, "auto") and not is_number:
            raise UsageError(f'neighbours must be None, "auto" or at least {LEAST_NEIGHBOURS}, got {neighbours!r}')
        self.width, self.num_layers, self.num_heads = width, num_layers, num_heads
        self.neighbours, self.num_sectors = neighbours, num_sectors
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _make_network(self) -> nn.Module:
        neighbours = self.neighbours
        if isinstance(neighbours, str):
            neighbours = self.problem.default_neighbours
        return LocalAttention(self.problem, self.width, self.num_layers, self.num_heads, neighbours, self.num_sectors)

    def _own_parameters(self) -> dict[str, Any]:
        names = ("width", "num_layers", "num_heads", "neighbours", "num_sectors")
        return {name: getattr(self, name) for name in names}


class ReZeroPolicy(ConstructionPolicy):
    """The network of Drakulic et al. 2023, for either formulation of a task; see `ReZeroAttention`.

    Args:
        observation_space: space of a combinatorial task.
        action_space: its actions.
        lr_schedule: step size as a function of the remaining progress.
        width: width of a row's features; the paper has 192.
        num_layers: number of blocks; 9.
        num_heads: number of heads; 12.
        hidden: width of the perceptrons; 512.
        **kwargs: `problem`, `precision`, `optimizer_kwargs`.

    Raises:
        UsageError: the spaces are those of another task, or a size is impossible.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        width: int = 192,
        num_layers: int = 9,
        num_heads: int = 12,
        hidden: int = 512,
        **kwargs: Any,
    ) -> None:
        check_heads(width, num_heads)
        self.width, self.num_layers, self.num_heads, self.hidden = width, num_layers, num_heads, hidden
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _make_network(self) -> nn.Module:
        return ReZeroAttention(self.problem, self.width, self.num_layers, self.num_heads, self.hidden)

    def _own_parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("width", "num_layers", "num_heads", "hidden")}


def check_neighbours(neighbours: int, obs: Observation) -> int:
    """Refuse pruning that leaves no choice, or a table that it cannot prune.

    Raises:
        UsageError: fewer than 3 rows would be kept, or the table is one of `mdp="direct"`.
    """
    if isinstance(neighbours, bool) or not isinstance(neighbours, int) or neighbours < LEAST_NEIGHBOURS:
        raise UsageError(f"neighbours must be at least {LEAST_NEIGHBOURS}, got {neighbours!r}")
    if "visited" in obs:
        raise UsageError('neighbours prunes what remains to be solved, of an environment made with mdp="bq"')
    return neighbours
