"""PPO's update: epochs of minibatches over one rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polyathlon.agents.parts.flat_adam import FlatAdam
from polyathlon.agents.parts.surrogates import ppo_surrogate
from polyathlon.agents.streams.env_stream import Observation
from polyathlon.agents.streams.rollout import tree_map

METRICS = ("policy_gradient_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")


class PPOSettings(NamedTuple):
    """The numbers of one update; see `PPO`."""

    learning_rate: float
    clip_range: float
    clip_range_vf: float | None = None
    normalize_advantage: bool = True
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float | None = 0.5
    target_kl: float | None = None
    n_epochs: int = 10
    batch_size: int = 64


class Minibatches(NamedTuple):
    """The transitions of a rollout, M in all, and what is learnt from them.

    Attributes:
        obs: [M, ...] tensor or dict of them.
        action: [M, ...].
        mask: [M, A] bool or None.
        value: [M] values under the behaviour.
        log_prob: [M] log-probabilities under the behaviour.
        advantage: [M].
        returns: [M] targets of the values.
    """

    obs: Observation
    action: Tensor
    mask: Tensor | None
    value: Tensor
    log_prob: Tensor
    advantage: Tensor
    returns: Tensor

    def rows(self, index: Tensor) -> Minibatches:
        """Return the transitions number `index` [B]."""
        picked: list[Any] = [None if x is None else tree_map(x, lambda y: y.index_select(0, index)) for x in self]
        return Minibatches(*picked)


class MinibatchLoss(NamedTuple):
    """The loss of a minibatch, and its parts in the order of `METRICS`."""

    total: Tensor
    metrics: Tensor


def normalised(advantage: Tensor) -> Tensor:
    """Return advantages [B] with mean 0 and standard deviation 1; a single one is left alone."""
    if advantage.numel() < 2:
        return advantage
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def ppo_loss(actor: Any, batch: Minibatches, settings: PPOSettings) -> MinibatchLoss:
    """Clipped surrogate + vf_coef * squared value error - ent_coef * entropy (Schulman et al. 2017, equation 9).

    Args:
        actor: an object with `evaluate(obs, action, mask) -> values [B], log_probs [B], entropies [B]`.
        batch: B transitions.
        settings: the coefficients.
    """
    value, log_prob, entropy = actor.evaluate(batch.obs, batch.action, batch.mask)
    return clipped_loss(value, log_prob, entropy, batch, settings)


def clipped_loss(
    value: Tensor, log_prob: Tensor, entropy: Tensor, batch: Minibatches, settings: PPOSettings
) -> MinibatchLoss:
    """The loss of `ppo_loss`, given values [B], log-probabilities [B] and entropies [B] under the current parameters."""
    advantage = normalised(batch.advantage) if settings.normalize_advantage else batch.advantage
    clip = settings.clip_range
    policy_loss = ppo_surrogate(
        log_prob[:, None], batch.log_prob[:, None], advantage, clip_low=clip, clip_high=clip
    ).mean()
    if settings.clip_range_vf is not None:
        bound = settings.clip_range_vf
        value = batch.value + (value - batch.value).clamp(-bound, bound)
    value_loss = (batch.returns - value).square().mean()
    entropy_loss = -entropy.mean()
    total = policy_loss + settings.ent_coef * entropy_loss + settings.vf_coef * value_loss
    with torch.no_grad():
        log_ratio = log_prob - batch.log_prob
        ratio = log_ratio.exp()
        divergence = (ratio - 1 - log_ratio).mean()
        clipped = ((ratio - 1).abs() > clip).float().mean()
        metrics = torch.stack([policy_loss, value_loss, entropy_loss, total, divergence, clipped])
    return MinibatchLoss(total, metrics)


def take_step(policy: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, settings: PPOSettings) -> None:
    """Back-propagate, clip the gradient and step the optimiser."""
    optimizer.zero_grad()
    loss.backward()
    if isinstance(optimizer, FlatAdam):
        optimizer.clipped_step(settings.learning_rate, settings.max_grad_norm)
        return
    if settings.max_grad_norm is not None:
        nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
    optimizer.step()


def update(
    policy: Any,
    actor: Any,
    data: Minibatches,
    settings: PPOSettings,
    generator: torch.Generator,
    loss_of: Callable[[Any, Minibatches, PPOSettings], MinibatchLoss] = ppo_loss,
) -> dict[str, Any]:
    """Run the epochs of one update.

    Args:
        policy: the module with its `optimizer`.
        actor: what evaluates actions, see `ppo_loss`.
        data: the rollout.
        settings: the numbers.
        generator: source of the shuffles.
        loss_of: gives the loss of a minibatch.

    Returns:
        The means of `METRICS` over the minibatches (the last one for "loss"), "std" of a Gaussian, and "epochs" done.
    """
    number = data.advantage.shape[0]
    seen: list[Tensor] = []
    epochs, is_over = 0, False
    while epochs < settings.n_epochs and not is_over:
        order = torch.randperm(number, generator=generator, device=data.advantage.device)
        for index in order.split(settings.batch_size):
            loss = loss_of(actor, data.rows(index), settings)
            seen.append(loss.metrics)
            if settings.target_kl is not None and float(loss.metrics[4]) > 1.5 * settings.target_kl:
                is_over = True
                break
            take_step(policy, policy.optimizer, loss.total, settings)
        epochs += 1
    return summary(policy, torch.stack(seen), epochs)


def summary(policy: Any, metrics: Tensor, epochs: int) -> dict[str, Any]:
    """Average the metrics [K, 6] of K minibatches under SB3's names."""
    means = metrics.mean(0).tolist()
    report: dict[str, Any] = dict(zip(METRICS, means))
    report["loss"] = float(metrics[-1, 3])
    if hasattr(policy, "log_std"):
        report["std"] = float(policy.log_std.detach().exp().mean())
    report["epochs"] = epochs
    return report
