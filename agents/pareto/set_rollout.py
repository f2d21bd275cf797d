"""From the rows of a rollout, in which many policies acted side by side, to what each of them learns from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.barrier import return_threshold
from polyathlon.agents.parts.time_returns import discounted_sums, gae_time
from polyathlon.agents.streams.env_stream import Observation
from polyathlon.agents.streams.rollout import Rollout, tree_map

from .policy_set import PolicySet


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
    """M transitions of each policy; the fields that a loss may read.

    Attributes:
        obs: [P, M, D] normalised observations.
        action: [P, M, A] of a Gaussian, or [P, M] int64 counted from 0.
        action_mask: [P, M, A] bool or None.
        old_logp: [P, M] under the behaviour.
        adv: [P, M] of the weighted objectives.
        returns: [P, M, m] returns in the critics' units.
        env_returns: [P, M, m] returns in the environment's units.
    """

    obs: Tensor
    action: Tensor
    action_mask: Tensor | None
    old_logp: Tensor
    adv: Tensor
    returns: Tensor
    env_returns: Tensor

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


def by_policy(value: Tensor, num_policies: int) -> Tensor:
    """Deal rows out: [T, P R, ...] to [P, T R, ...]."""
    steps, rows = value.shape[:2]
    return value.view(steps, num_policies, rows // num_policies, *value.shape[2:]).transpose(0, 1).flatten(1, 2)


def by_row(value: Tensor, steps: int) -> Tensor:
    """Undo `by_policy`: [P, T R, ...] to [T, P R, ...]."""
    policies, number = value.shape[:2]
    return value.view(policies, steps, number // steps, *value.shape[2:]).transpose(0, 1).flatten(1, 2)


def final_values(
    policies: PolicySet, finals: list[tuple[int | Tensor, Tensor, Observation]], rows: int
) -> list[Tensor]:
    """Return the values [K, m] of the final observations of cut episodes, each by the policy whose row it is."""
    found = []
    for step, chosen, obs in finals:
        if isinstance(step, Tensor):  # a row may end several times: every policy looks at all, and its own are taken
            number, count = policies.num_policies, len(chosen)
            spread = tree_map(obs, lambda x, number=number: x.repeat(number, *[1] * (x.dim() - 1)))
            values = policies.values(spread).view(number, count, -1)
            found.append(values[chosen // (rows // number), torch.arange(count, device=chosen.device)])
            continue
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
        action = action.reshape(*action.shape[:2], -1)
    mask = None if rollout.mask is None else by_policy(rollout.mask, number)
    parameters, value, log_std = policies.outputs(features)
    assert parameters is not None and value is not None
    log_prob = policies.distribution_of(parameters, log_std, mask).log_prob(action)
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
