"""One update of RLPD with the derivatives written out, in memory that is allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.ensembles import random_subset
from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.replay import split_rows
from polyathlon.agents.parts.targets import td_target

from .ensemble import CriticEnsemble
from .ensemble_update import EnsembleUpdate
from .gaussian_actor import GaussianActor


class RLPDUpdate(EnsembleUpdate):
    """Steps of the critics, then one of the actor and of the temperature (Ball et al. 2023, algorithm 1).

    Args:
        actor: optimiser over the actor's flat parameters.
        actor_widths: hidden widths of the actor.
        critic: the ensemble.
        target: [P] flat parameters of the target critics.
        obs_size: O.
        action_size: A.
        batch_size: B.
        num_min: members whose smallest value is the target's.
        dtype: type of the matrix products of the critics.
    """

    metric_names: tuple[str, ...] = ("critic_loss", "actor_loss", "ent_coef", "ent_coef_loss", "q")

    def __init__(
        self,
        actor: FlatAdam,
        actor_widths: list[int],
        critic: CriticEnsemble,
        target: Tensor,
        obs_size: int,
        action_size: int,
        batch_size: int,
        num_min: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(critic, target, obs_size, action_size, batch_size, dtype)
        self.num_min = num_min
        self.actor = GaussianActor(actor, obs_size, actor_widths, action_size, batch_size)

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
        backup_entropy: bool,
        generator: torch.Generator | None,
    ) -> None:
        """Take one update.

        Args:
            rows: [U, B, 2 O + A + 2] a minibatch for each step of the critics; the actor learns on the last one.
            log_alpha: [1] logarithm of the temperature, with `.grad` set here.
            alpha_optimizer: steps the temperature; None keeps it.
            learning_rate: step size of actor and critics.
            gamma: discount factor.
            tau: how far the target critics move after each step.
            target_entropy: entropy that the temperature aims at.
            backup_entropy: whether the targets hold the next action's entropy.
            generator: source of the noise and of the members.
        """
        self.refresh()
        alpha = log_alpha.exp()
        losses = []
        for batch in (split_rows(part, self.obs_size, self.action_size) for part in rows):
            noise = self._noise(generator)
            action, logp = self.actor.sample(batch.next_obs, noise)
            members = random_subset(self.critic.num_critics, self.num_min, generator, self.device)
            q_next = self.target_values(batch.next_obs, action, members).amin(0)
            y = td_target(batch.reward, batch.done, q_next, gamma, alpha, logp if backup_entropy else None)
            losses.append(self.regress(batch.obs_action, y, learning_rate, tau))
        noise = self._noise(generator)
        action, logp = self.actor.sample(batch.obs, noise)
        q, by_action = self.mean_slope(batch.obs, action)
        self.actor.step(batch.obs, noise, action, -by_action, alpha, learning_rate)
        gap = logp.mean() + target_entropy
        alpha_loss = -log_alpha * gap
        if alpha_optimizer is not None:
            log_alpha.grad = -gap.reshape(log_alpha.shape)
            alpha_optimizer.step()
        self._record(torch.stack(losses).mean(), alpha * logp.mean() - q, alpha, alpha_loss, q)

    def _noise(self, generator: torch.Generator | None) -> Tensor:
        return torch.randn(self.batch_size, self.action_size, generator=generator, device=self.device)
