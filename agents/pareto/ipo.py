"""C-MORL's loss of a population, and the row of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyathlon.agents.engine import Adam, Loss, Method
from polyathlon.agents.parts.barrier import batch_barrier, log_barrier
from polyathlon.agents.parts.surrogates import ppo_surrogate

from .policy_set import PolicySet
from .population import Population


def standardised(adv: Tensor) -> Tensor:
    """Return advantages [P, B] with mean 0 and standard deviation 1 for each policy; a single one is left alone."""
    if adv.shape[1] < 2:
        return adv
    std, mean = torch.std_mean(adv, 1, keepdim=True)
    return (adv - mean) / (std + 1e-8)


def cmorl_loss(
    population: Any,
    obs: Tensor,
    action: Tensor,
    action_mask: Tensor | None,
    old_logp: Tensor,
    adv: Tensor,
    returns: Tensor,
    env_returns: Tensor,
    held: Tensor | None,
    threshold: Tensor | None,
    floor: Tensor | None,
    *,
    clip_range: Any = 0.2,
    ent_coef: Any = 0.0,
    vf_coef: Any = 0.5,
    barrier: str = "paper",
    barrier_t: Any = 20.0,
    beta: Any = 0.9,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate + value error - entropy + barrier of every policy (Liu et al. 2025, arXiv 2410.02236).

    The barrier's estimate of a return is mean(ratio R), weighted towards the current policy. Fields are [P, B, ...]; `held`
    (None in the first stage), `threshold` and `floor` [P, m] are those of `Constraint`.

    Returns:
        The loss [P] of each policy, and means of its parts over the policies.
    """
    seen = population(obs, action_mask)
    logp = seen.action.log_prob(action)
    surrogate = ppo_surrogate(logp, old_logp, standardised(adv), clip_low=clip_range, clip_high=clip_range).mean(1)
    value_loss = (returns - seen.value).square().mean((1, 2))
    entropy_loss = -seen.action.entropy().mean(1)
    log_ratio = logp - old_logp
    ratio, limit = log_ratio.exp(), torch.zeros_like(surrogate)
    if held is not None and barrier == "code":
        limit = batch_barrier(ratio, env_returns, beta, barrier_t, clip_range)
    elif held is not None and threshold is not None and floor is not None:
        each = log_barrier((ratio.unsqueeze(-1) * env_returns).mean(1), threshold, barrier_t, floor)
        limit = torch.where(held, each, torch.zeros_like(each)).sum(1)
    loss = surrogate + vf_coef * value_loss + ent_coef * entropy_loss + limit
    log_ratio, ratio = log_ratio.detach(), ratio.detach()
    parts = {
        "policy_gradient_loss": surrogate,
        "value_loss": value_loss,
        "entropy_loss": entropy_loss,
        "barrier": limit,
        "approx_kl": (ratio - 1 - log_ratio).mean(1),
        "clip_fraction": ((ratio - 1).abs() > clip_range).to(ratio).mean(1),
    }
    means = torch.stack([part.detach() for part in parts.values()]).mean(1).unbind(0)
    return loss, dict(zip(parts, means))


def networks(observation_space: Any, action_space: Any, policy_kwargs: Any, generator: Any) -> Mapping[str, Any]:
    """A population: `num_policies` of `policy_class` with critics of `num_objectives`, all in `policy_kwargs`."""
    words = {"policy_class": PolicySet, **policy_kwargs}
    return {
        "population": Population(
            words.pop("policy_class")(observation_space, action_space, generator=generator, **words)
        )
    }


cmorl = Method(
    networks=networks,
    losses=(
        Loss(
            "population",
            cmorl_loss,
            Adam(max_grad_norm=0.5),
            options={
                "clip_range": 0.2,
                "ent_coef": 0.0,
                "vf_coef": 0.5,
                "barrier": "paper",
                "barrier_t": 20.0,
                "beta": 0.9,
            },
            name="policy",
        ),
    ),
    constants=("held", "threshold", "floor"),
    policy="population",
)
