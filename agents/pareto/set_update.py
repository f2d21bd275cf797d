"""PPO's update of a whole set of policies at once, each with its own weights of the objectives and its own barrier."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.barrier import batch_barrier, log_barrier, return_threshold
from polyathlon.agents.parts.surrogates import ppo_surrogate

from .policy_set import PolicySet

METRICS = ("policy_gradient_loss", "value_loss", "entropy_loss", "barrier", "approx_kl", "clip_fraction")


class SetSettings(NamedTuple):
    """The numbers of one update; see `CMORL`."""

    learning_rate: float
    clip_range: float
    ent_coef: float
    vf_coef: float
    max_grad_norm: float | None
    n_epochs: int
    batch_size: int
    barrier: str
    barrier_t: float
    beta: float


class Constraint(NamedTuple):
    """What a policy must keep while it maximises one objective.

    Attributes:
        held: [P, m] bool, the objectives that are held.
        threshold: [P, m] what their returns must exceed.
        floor: [P, m] slack below which the barrier goes on as its tangent.
    """

    held: Tensor
    threshold: Tensor
    floor: Tensor


class SetBatch(NamedTuple):
    """M transitions of each policy.

    Attributes:
        features: [P, M, D] normalised observations.
        action: [P, M, A] of a Gaussian, or [P, M] int64 counted from 0.
        mask: [P, M, A] bool or None.
        log_prob: [P, M] under the behaviour.
        advantage: [P, M] of the weighted objectives.
        target: [P, M, m] returns in the critics' units.
        returns: [P, M, m] returns in the environment's units.
    """

    features: Tensor
    action: Tensor
    mask: Tensor | None
    log_prob: Tensor
    advantage: Tensor
    target: Tensor
    returns: Tensor

    def shuffled(self, order: Tensor) -> SetBatch:
        """Return the transitions in the order [M] int64, the same for every policy."""
        return SetBatch(*[None if x is None else x.index_select(1, order) for x in self])  # type: ignore[arg-type]

    def part(self, start: int, stop: int) -> SetBatch:
        """Return views of the transitions from `start` to `stop`."""
        return SetBatch(*[None if x is None else x[:, start:stop] for x in self])  # type: ignore[arg-type]


def constraint_of(parents: Tensor, held: Tensor, beta: float, scale: Tensor) -> Constraint:
    """Keep the share `beta` of the parents' returns.

    Args:
        parents: [P, m] returns of the policies that extension starts from, estimated as `mean(ratio R)` is later.
        held: [P, m] bool.
        beta: share.
        scale: [P, m] typical size of the returns, which bounds the tangent where a parent's return is near zero.
    """
    floor = torch.maximum(0.1 * (1 - beta) * parents.abs(), 1e-3 * scale)
    return Constraint(held, return_threshold(parents, beta), floor)


def standardised(advantage: Tensor) -> Tensor:
    """Return advantages [P, B] with mean 0 and standard deviation 1 for each policy; a single one is left alone."""
    if advantage.shape[1] < 2:
        return advantage
    std, mean = torch.std_mean(advantage, 1, keepdim=True)
    return (advantage - mean) / (std + 1e-8)


def set_loss(
    policies: PolicySet, batch: SetBatch, constraint: Constraint | None, settings: SetSettings
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate + value error - entropy + barrier of every policy (Liu et al. 2025, arXiv 2410.02236).

    The barrier's estimate of a return is mean(ratio R), weighted towards the current policy.

    Returns:
        The sum over the policies, whose gradients do not mix, and the parts [P, 6] in the order of `METRICS`.
    """
    parameters, value, log_std = policies.outputs(batch.features)
    assert parameters is not None and value is not None
    log_prob, entropy = policies.log_prob_and_entropy(parameters, log_std, batch.action, batch.mask)
    clip = settings.clip_range
    log_ratio = log_prob - batch.log_prob
    surrogate = ppo_surrogate(
        log_prob, batch.log_prob, standardised(batch.advantage), clip_low=clip, clip_high=clip
    ).mean(1)
    value_loss = (batch.target - value).square().mean((1, 2))
    entropy_loss = -entropy.mean(1)
    barrier = torch.zeros_like(surrogate)
    if constraint is not None:
        barrier = _barrier(log_ratio.exp(), batch.returns, constraint, settings)
    loss = surrogate + settings.vf_coef * value_loss + settings.ent_coef * entropy_loss + barrier
    with torch.no_grad():
        ratio = log_ratio.exp()
        divergence = (ratio - 1 - log_ratio).mean(1)
        clipped = ((ratio - 1).abs() > clip).float().mean(1)
        parts = torch.stack([surrogate, value_loss, entropy_loss, barrier, divergence, clipped], 1)
    return loss.sum(), parts


def _barrier(ratio: Tensor, returns: Tensor, constraint: Constraint, settings: SetSettings) -> Tensor:
    if settings.barrier == "code":
        return batch_barrier(ratio, returns, settings.beta, settings.barrier_t, settings.clip_range)
    estimate = (ratio.unsqueeze(-1) * returns).mean(1)
    each = log_barrier(estimate, constraint.threshold, settings.barrier_t, constraint.floor)
    return torch.where(constraint.held, each, torch.zeros_like(each)).sum(1)


def update_set(
    policies: PolicySet,
    data: SetBatch,
    constraint: Constraint | None,
    settings: SetSettings,
    generator: torch.Generator,
) -> dict[str, float]:
    """Run the epochs of one update.

    Returns:
        The means of `METRICS` over policies and minibatches.
    """
    number = data.advantage.shape[1]
    seen: list[Tensor] = []
    for _ in range(settings.n_epochs):
        epoch = data.shuffled(torch.randperm(number, generator=generator, device=data.advantage.device))
        for start in range(0, number, settings.batch_size):
            batch = epoch.part(start, min(start + settings.batch_size, number))
            policies.optimizer.zero_grad()
            loss, parts = set_loss(policies, batch, constraint, settings)
            loss.backward()
            policies.clipped_step(settings.learning_rate, settings.max_grad_norm)
            seen.append(parts)
    return dict(zip(METRICS, torch.stack(seen).mean((0, 1)).tolist()))
