"""From the rows of a rollout, in which many policies acted side by side, to what each of them learns from."""

from __future__ import annotations

import torch
from torch import Tensor

from polyathlon.agents.parts.time_returns import discounted_sums, gae_time
from polyathlon.agents.streams.env_stream import Observation
from polyathlon.agents.streams.rollout import Rollout, tree_map

from .policy_set import PolicySet
from .set_update import SetBatch


def by_policy(value: Tensor, num_policies: int) -> Tensor:
    """Deal rows out: [T, P R, ...] to [P, T R, ...]."""
    steps, rows = value.shape[:2]
    return value.view(steps, num_policies, rows // num_policies, *value.shape[2:]).transpose(0, 1).flatten(1, 2)


def by_row(value: Tensor, steps: int) -> Tensor:
    """Undo `by_policy`: [P, T R, ...] to [T, P R, ...]."""
    policies, number = value.shape[:2]
    return value.view(policies, steps, number // steps, *value.shape[2:]).transpose(0, 1).flatten(1, 2)


def final_values(policies: PolicySet, finals: list[tuple[int, Tensor, Observation]], rows: int) -> list[Tensor]:
    """Return the values [K, m] of the final observations of cut episodes, each by the policy whose row it is."""
    found = []
    for _, chosen, obs in finals:
        spread = tree_map(obs, lambda x, chosen=chosen: x.new_zeros(rows, *x.shape[1:]).index_copy_(0, chosen, x))
        found.append(policies.values(spread)[chosen])
    return found


@torch.no_grad()
def prepare(
    policies: PolicySet,
    rollout: Rollout,
    last_obs: Observation,
    weights: Tensor,
    carried: Tensor | None,
    gamma: float,
    gae_lambda: float,
    normalize_rewards: bool,
) -> tuple[SetBatch, Tensor, Tensor]:
    """Compute values, log-probabilities, advantages and returns of a full rollout.

    Args:
        policies: P policies; row n belongs to policy n // R.
        rollout: T steps of P R rows with rewards of m objectives.
        last_obs: [P R, ...] observations after the last step.
        weights: [P, m] what each policy maximises, in the environment's units.
        carried: [P R, m] discounted sums of rewards that the rollout goes on from; None starts at zero.
        gamma: discount factor.
        gae_lambda: 0 gives one-step advantages, 1 Monte Carlo returns.
        normalize_rewards: keep the unit of the critics up to date.

    Returns:
        The transitions, their features before normalisation [P, M, D], and the new `carried`.
    """
    steps, rows = rollout.done.shape
    number = policies.num_policies
    reward = rollout.reward if rollout.reward.dim() == 3 else rollout.reward.unsqueeze(2)
    start = torch.zeros_like(reward[0]) if carried is None else carried
    if normalize_rewards:
        sums, start = discounted_sums(reward, rollout.done, start, gamma)
        policies.update_returns(by_policy(sums, number))
    obs, _, _ = rollout.flat()
    raw = by_policy(policies.features(obs).view(steps, rows, -1), number)
    features = policies.normalised(raw)
    action = by_policy(rollout.action, number)
    if policies.is_discrete:
        action = action - int(policies.action_space.start)  # type: ignore[attr-defined]
    else:
        action = action.flatten(2)
    mask = None if rollout.mask is None else by_policy(rollout.mask, number)
    parameters, value, log_std = policies.outputs(features)
    assert parameters is not None and value is not None
    log_prob, _ = policies.log_prob_and_entropy(parameters, log_std, action, mask)
    scale = policies.value_scale()
    of_rows = scale.repeat_interleave(rows // number, 0)
    value = by_row(value, steps)
    following = rollout.next_values(
        value, policies.values(last_obs), final_values(policies, rollout.truncated_final_obs, rows)
    )
    advantage, target = gae_time(
        reward / of_rows, value, following, rollout.terminated, rollout.done, gamma, gae_lambda
    )
    advantage, target = by_policy(advantage, number), by_policy(target, number)
    weighted = (advantage * (scale * weights)[:, None]).sum(2)
    return SetBatch(features, action, mask, log_prob, weighted, target, target * scale[:, None]), raw, start
