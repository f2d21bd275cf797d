"""One update of EXPO, in memory that is allocated once; all but the imitation has its derivatives written out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from polyathlon.agents.parts.candidates import best_candidate, with_edits
from polyathlon.agents.parts.ensembles import random_subset
from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.replay import Transitions, split_rows
from polyathlon.agents.parts.targets import polyak_, td_target

from .action_generator import ActionGenerator, ActionSampler
from .ensemble import CriticEnsemble
from .ensemble_update import EnsembleUpdate
from .gaussian_actor import GaussianActor

if TYPE_CHECKING:
    from .expo_policy import Candidates

BASE_WEIGHT_DECAY = 1e-4
AVERAGE_WARMUP = 10
EDITED_ROWS = 1024


class EXPOUpdate(EnsembleUpdate):
    """Steps of the critics, then one each of the base policy, the edit policy and the temperature (Dong et al. 2025, algorithm 1).

    Args:
        base: the base policy, with an optimiser.
        average: [P] flat parameters of its moving average.
        edit: optimiser over the edit policy's flat parameters.
        edit_widths: hidden widths of the edit policy.
        critic: the ensemble.
        target: [P] flat parameters of the target critics.
        obs_size: O.
        action_size: A.
        batch_size: B.
        candidates: how many actions are tried for a next state.
        num_min: members whose smallest value is believed.
        dtype: type of the matrix products of critics and sampler.
    """

    metric_names: tuple[str, ...] = ("critic_loss", "base_loss", "edit_loss", "ent_coef", "edit_entropy", "q")

    def __init__(
        self,
        base: ActionGenerator,
        average: Tensor,
        edit: FlatAdam,
        edit_widths: list[int],
        critic: CriticEnsemble,
        target: Tensor,
        obs_size: int,
        action_size: int,
        batch_size: int,
        candidates: Candidates,
        num_min: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(critic, target, obs_size, action_size, batch_size, dtype)
        self.base, self.average, self.candidates, self.num_min = base, average, candidates, num_min
        self.sampler = ActionSampler(base, dtype)
        self.edit = GaussianActor(edit, obs_size + action_size, edit_widths, action_size, batch_size)

    @torch.no_grad()
    def step(
        self,
        rows: Tensor,
        log_alpha: Tensor,
        alpha_optimizer: torch.optim.Optimizer | None,
        learning_rate: float,
        gamma: float,
        tau: float,
        target_entropy: float,
        average_rate: float,
        generator: torch.Generator | None,
    ) -> None:
        """Take one update.

        Args:
            rows: [U, B, 2 O + A + 2] a minibatch for each step of the critics; the rest learns on the last one.
            log_alpha: [1] logarithm of the temperature, with `.grad` set here.
            alpha_optimizer: steps the temperature; None keeps it.
            learning_rate: step size of all networks.
            gamma: discount factor.
            tau: how far the target critics move after each step.
            target_entropy: entropy of the scaled edits that the temperature aims at.
            average_rate: how far the moving average of the base policy moves.
            generator: source of the noise and of the members.
        """
        self.refresh()
        # base and edit policies stand still while the critics move, so the candidates of all minibatches are drawn at once
        next_obs = split_rows(rows.flatten(0, 1), self.obs_size, self.action_size).next_obs
        candidates = self._candidates(next_obs, generator).view(*rows.shape[:2], -1, self.action_size)
        losses = []
        for part, tried in zip(rows, candidates):
            batch = split_rows(part, self.obs_size, self.action_size)
            next_action = self._best(batch.next_obs, tried, generator)
            q_next = self.target_values(batch.next_obs, next_action, self._members(generator)).amin(0)
            y = td_target(batch.reward, batch.done, q_next, gamma)
            losses.append(self.regress(batch.obs_action, y, learning_rate, tau))
        base_loss = self.imitate(batch, learning_rate, average_rate, generator)
        alpha = log_alpha.exp()
        edit_loss, entropy, q = self._edit_step(batch, alpha, learning_rate, generator)
        if alpha_optimizer is not None and self.candidates.edits:
            log_alpha.grad = alpha * (entropy - target_entropy)
            alpha_optimizer.step()
        self._record(torch.stack(losses).mean(), base_loss, edit_loss, alpha, entropy, q)

    def _members(self, generator: torch.Generator | None) -> Tensor:
        return random_subset(self.critic.num_critics, self.num_min, generator, self.device)

    def _candidates(self, obs: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return samples of the base policy and edits of them, [R, N + n, A], for observations [R, O]."""
        samples, edits, scale = self.candidates
        tried = self.sampler.sample(obs, self.sampler.draw_noise(obs.shape[0], samples, generator))
        if not edits:
            return tried
        seen = torch.cat([obs.unsqueeze(1).expand(-1, edits, -1), tried[:, :edits]], 2).flatten(0, 1)
        eps = torch.randn(seen.shape[0], self.action_size, generator=generator, device=self.device)
        edit = torch.cat([self.edit.sample(*part)[0] for part in zip(seen.split(EDITED_ROWS), eps.split(EDITED_ROWS))])
        return with_edits(tried, scale * edit.view(-1, edits, self.action_size))

    def _best(self, obs: Tensor, tried: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the best of candidates [B, N + n, A] by a random few of the target critics, [B, A]."""
        if tried.shape[1] == 1:
            return tried[:, 0]
        return best_candidate(tried, self.target_values(obs, tried, self._members(generator)))

    def imitate(
        self, batch: Transitions, learning_rate: float, average_rate: float, generator: torch.Generator | None
    ) -> Tensor:
        """Step the base policy towards the batch's actions, move its average, and return the loss [].

        Args:
            batch: B transitions.
            learning_rate: learning rate of Adam, with a decoupled decay of the weights (AdamW).
            average_rate: how far the average moves.
            generator: source of noise and times.
        """
        optimizer = self.base.optimizer
        assert isinstance(optimizer, FlatAdam)
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = self.base.loss(batch.obs, batch.action, generator)
            loss.backward()
        with torch.no_grad():
            optimizer.vector.mul_(1 - learning_rate * BASE_WEIGHT_DECAY)
            optimizer.clipped_step(learning_rate, None)
            polyak_(self.average, optimizer.vector.data, average_rate)
        return loss.detach()

    def _edit_step(
        self, batch: Transitions, alpha: Tensor, learning_rate: float, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Step the edit policy up the mean value and the entropy; return its loss, the edits' entropy and the value."""
        scale = self.candidates.edit_scale
        if not self.candidates.edits:
            q = self.mean_slope(batch.obs, batch.action)[0]
            return torch.zeros_like(q), torch.zeros_like(q), q
        eps = torch.randn(self.batch_size, self.action_size, generator=generator, device=self.device)
        action, logp = self.edit.sample(batch.obs_action, eps)
        edited = batch.action + scale * action
        clipped = edited.clamp(-1, 1)  # as acting and targets do; d clamp(x) / dx = 1 inside [-1, 1], 0 outside
        q, by_action = self.mean_slope(batch.obs, clipped)
        by_action = by_action * (edited == clipped)
        self.edit.step(batch.obs_action, eps, action, -scale * by_action, alpha, learning_rate)
        entropy = self.action_size * math.log(scale) - logp.mean()
        return -alpha * entropy - q, entropy, q


def average_rate(tau: float, updates: int) -> float:
    """Return how far a moving average moves after `updates` updates: fast at first, so that it forgets where it began.

    9 / (10 + n) as long as that is more than `tau`.
    """
    return max(tau, (AVERAGE_WARMUP - 1) / (AVERAGE_WARMUP + updates))
