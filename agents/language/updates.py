"""One update of a language model on a batch of episodes, put together from the parts that a recipe names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.advantages import group_advantage, masked_whiten
from polyathlon.agents.parts.aggregation import agg_loss
from polyathlon.agents.parts.divergences import kl_token
from polyathlon.agents.parts.response_filters import episode_overlong_penalty
from polyathlon.agents.parts.surrogates import ppo_surrogate
from polyathlon.agents.parts.token_returns import gae
from polyathlon.envs.errors import UsageError

from .episodes import Batch
from .reading import Reading
from .recipes import Recipe


class Targets(NamedTuple):
    """What an update aims at: advantages [N, T], returns and old values [N, T], reference log-probabilities or None."""

    advantage: Tensor
    returns: Tensor
    value: Tensor
    reference: Tensor | None


def shaped_rewards(batch: Batch, recipe: Recipe, longest: int) -> Tensor:
    """Return the rewards of whole episodes [N], with the mean cost of their utterances' lengths where the recipe has one."""
    if not recipe.overlong_buffer:
        return batch.total
    buffer = min(recipe.overlong_buffer, longest)
    return batch.total + episode_overlong_penalty(batch.turn, longest, buffer)


def token_advantages(batch: Batch, recipe: Recipe, reward: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return advantages and returns of all tokens, [N, T] each.

    Args:
        batch: the episodes.
        recipe: names the advantage.
        reward: [N] shaped rewards of whole episodes.
        value: [N, T] old values, for "gae".

    Raises:
        UsageError: the recipe names an unknown advantage.
    """
    if recipe.advantage == "none":
        advantage, returns = batch.mask.clone(), batch.mask
    elif recipe.advantage == "group":
        each = group_advantage(reward, batch.group, recipe.center, recipe.scale)
        advantage, returns = each[:, None] * batch.mask, reward[:, None] * batch.mask
    elif recipe.advantage == "gae":
        shaped = batch.reward.clone()
        last = batch.mask.shape[1] - 1 - batch.mask.flip(1).argmax(1)
        shaped[torch.arange(len(last)), last] += reward - batch.total
        advantage, returns = gae(shaped, value, batch.mask, recipe.gamma, recipe.gae_lambda)
    else:
        raise UsageError(f"advantage must be 'group', 'gae' or 'none', got {recipe.advantage!r}")
    return (masked_whiten(advantage, batch.mask) if recipe.whiten else advantage), returns


def checked_gap(reading: Reading, batch: Batch, largest: float) -> float:
    """Return the largest difference between the log-probabilities of sampling and of training.

    Raises:
        UsageError: it is more than `largest`, or not a number.
    """
    gap = float(((reading.logp.detach() - batch.old_logp).abs() * batch.mask).max())
    if not gap <= largest:
        raise UsageError(
            f"sampling and training disagree on log-probabilities by {gap:.3g}, more than max_logp_gap={largest}: "
            "use float32 weights or attn='eager', or raise max_logp_gap"
        )
    return gap


def recipe_loss(
    reading: Reading, batch: Batch, targets: Targets, recipe: Recipe, longest: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a minibatch and its metrics.

    Args:
        reading: what the current parameters say, with gradient.
        batch: the episodes of the minibatch.
        targets: their advantages.
        recipe: names surrogate, aggregation and regulariser.
        longest: the longest response, the constant of "seq-mean-token-sum-norm".
    """
    mask = batch.mask
    if recipe.advantage == "none":
        each = -reading.logp
    else:
        each = ppo_surrogate(
            reading.logp, batch.old_logp, targets.advantage, recipe.clip_low, recipe.clip_high, recipe.dual_clip
        )
    loss = agg_loss(each, mask, recipe.aggregation, float(longest))
    metrics = {"policy_loss": loss.detach()}
    if targets.reference is not None:
        divergence = agg_loss(
            kl_token(reading.logp, targets.reference, recipe.kl_kind), mask, recipe.aggregation, float(longest)
        )
        loss = loss + recipe.kl_coef * divergence
        metrics["reference_kl"] = divergence.detach()
    if recipe.advantage == "gae":
        bound = recipe.clip_range_vf
        near = targets.value + (reading.value - targets.value).clamp(-bound, bound)
        error = torch.maximum((reading.value - targets.returns).square(), (near - targets.returns).square())
        value_loss = 0.5 * (error * mask).sum() / mask.sum().clamp(min=1)
        loss = loss + recipe.vf_coef * value_loss
        metrics["value_loss"] = value_loss.detach()
    with torch.no_grad():
        count = mask.sum().clamp(min=1)
        log_ratio = (reading.logp - batch.old_logp) * mask
        metrics["entropy"] = (reading.entropy * mask).sum() / count
        if recipe.advantage != "none":
            metrics["approx_kl"] = (((log_ratio.exp() - 1) - log_ratio) * mask).sum() / count
            outside = (log_ratio > torch.log1p(torch.tensor(recipe.clip_high))) | (
                log_ratio < torch.log1p(torch.tensor(-min(recipe.clip_low, 1 - 1e-9)))
            )
            metrics["clip_fraction"] = (outside * mask).sum() / count
    return loss, metrics
