"""SAC that stays near a reference policy: the divergence from it takes the place of the entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyathlon.agents.engine import Network
from polyathlon.envs.errors import UsageError
from polyathlon.registration import algorithms

REFERENCE = "reference"


def critic(
    critic: Any,
    critic_target: Any,
    actor: Any,
    reference: Any,
    log_alpha: Tensor,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    next_obs: Tensor,
    discount: Tensor,
    next_noise: Tensor,
) -> Tensor:
    """SAC's critic loss with log pi - log reference in the place of log pi: r + discount (min_i Q_i' - alpha (log pi - log reference)).

    Where the reference is a clone of demonstrations, alpha is the lambda of demonstration-regularised RL (Tiapkin et al. 2024,
    arXiv 2310.17303); a uniform one is SAC with a constant added to rewards.
    """
    next_action, next_logp = actor(next_obs).sample(next_noise)
    gap = next_logp - reference(next_obs).log_prob(next_action)
    backup = reward + discount * (critic_target(next_obs, next_action).amin(0) - log_alpha.exp() * gap)
    return 0.5 * (critic(obs, action) - backup).square().mean(1).sum()


def actor(
    actor: Any, critic: Any, reference: Any, log_alpha: Tensor, obs: Tensor, noise: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of alpha (log pi(a | s) - log reference(a | s)) - min_i Q_i(s, a), with a drawn from the actor."""
    action, logp = actor(obs).sample(noise)
    gap = logp - reference(obs).log_prob(action)
    loss = (log_alpha.exp() * gap - critic(obs, action).amin(0)).mean()
    return loss, {"logp": logp, "reference_kl": gap.mean(), "ent_coef": log_alpha.exp()}


class StandardisedActor(nn.Module):
    """An actor behind the constants that its observations are standardised by.

    Args:
        actor: takes (observation - mean) scale.
        size: components of an observation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, actor: nn.Module, size: int) -> None:
        super().__init__()
        self.actor = actor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, obs: Tensor) -> Any:
        """Return the distribution at observations [B, O]."""
        return self.actor((obs - self.mean) * self.scale)


def reference_network(observation_space: Any, action_space: Any, record: Mapping[str, Any], generator: Any) -> Network:
    """Make the network of a reference, without its weights, by what `reference_record` says of it."""
    row: Any = next(each.load() for each in algorithms() if each.name == record["agent"]).row  # type: ignore[attr-defined]
    made = row.networks(observation_space, action_space, record["policy_kwargs"], generator)
    size = math.prod(observation_space.shape or ())
    return Network(StandardisedActor(made[row.policy].modules[0], size))


def reference_record(reference: Any, observation_space: Any, action_space: Any) -> dict[str, Any]:
    """Return what the network of a reference is made of.

    Args:
        reference: a trained off-policy agent.
        observation_space: the learner's.
        action_space: the learner's.

    Raises:
        UsageError: it is no off-policy agent with a density, or has other spaces.
    """
    names = {record.load(): record.name for record in algorithms() if record.family == "off_policy"}
    policy = getattr(reference, "policy", None)
    if type(reference) not in names or not hasattr(policy, "networks"):
        raise UsageError(
            f"reference= takes a trained off-policy agent whose policy has a density, such as BC(dataset=...), got {reference!r}"
        )
    for name, own, other in (
        ("observation", observation_space, reference.observation_space),
        ("action", action_space, reference.action_space),
    ):
        if own != other:
            raise UsageError(f"the reference has another {name} space: {other} instead of {own}")
    with torch.no_grad():  # says which policies have no density
        zeros = [torch.zeros((1, math.prod(space.shape or ()))) for space in (observation_space, action_space)]
        reference.log_prob(*zeros)
    return {"agent": names[type(reference)], "policy_kwargs": dict(reference.policy_kwargs)}


@torch.no_grad()
def take_weights(network: Network, reference: Any) -> None:
    """Give a reference's network its weights and its standardising constants."""
    policy, row = reference.policy, type(reference).row
    made: Any = network.modules[0]
    made.actor.load_state_dict(policy.networks[row.policy].modules[0].state_dict())
    if policy.is_standardised:
        made.mean.copy_(policy.obs_mean)
        made.scale.copy_(policy.obs_scale)
