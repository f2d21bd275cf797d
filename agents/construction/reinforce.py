"""Learning from the costs of its own solutions: REINFORCE with the mean over several starts of an instance as baseline."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.action_distributions import categorical_log_prob, masked_log_softmax, sample_categorical
from polyathlon.envs.combinatorial.construction import ConstructionTask, State

from .decoding import asks, is_tour, renumbered, shown, start, tree_rows
from .policies import ConstructionPolicy


class Rollouts(NamedTuple):
    """Solutions of B instances from S starts each, in rows b S + s.

    Attributes:
        first: the states at the start.
        actions: T actions [B S] int64 each.
        counts: T masks [B S] of the actions that the policy chose: not a first one that was prescribed, none after the end.
        cost: [B S] float64.
    """

    first: State
    actions: list[Tensor]
    counts: list[Tensor]
    cost: Tensor


def starts(
    task: ConstructionTask, instance: Any, num_starts: int, generator: torch.Generator
) -> tuple[State, Tensor | None]:
    """Begin several episodes on each instance, as POMO does (Kwon et al. 2020).

    A closed tour may start anywhere: its nodes are numbered from another one in each. Elsewhere the first action is
    prescribed, a different one in each where there are enough.

    Args:
        task: the task, of either formulation.
        instance: B instances.
        num_starts: number of starts S.
        generator: source of randomness.

    Returns:
        The states of B S episodes, and their first actions, or None where these are free.
    """
    batch, device = instance.size.shape[0], task.device
    many = tree_rows(instance, torch.arange(batch, device=device).repeat_interleave(num_starts))
    if is_tour(task):
        place = torch.arange(num_starts, device=device).repeat(batch)
        return start(task, renumbered(many, place * many.size // num_starts)), None
    state = start(task, many)
    per_row = task.actions_per_row
    allowed = state.allowed.view(batch, num_starts, -1, per_row)[:, 0, :, 0]  # straight on, one action a row
    draw = torch.rand(allowed.shape, generator=generator, device=device).masked_fill(~allowed, -1.0)
    order = draw.argsort(1, descending=True)
    place = torch.arange(num_starts, device=device) % allowed.sum(1, keepdim=True).clamp(min=1)
    return state, order.gather(1, place).flatten() * per_row


@torch.no_grad()
def roll_out(
    task: ConstructionTask, policy: ConstructionPolicy, instance: Any, num_starts: int, generator: torch.Generator
) -> Rollouts:
    """Sample one solution from each start with the trained weights."""
    first, prescribed = starts(task, instance, num_starts, generator)
    state, actions, counts = first, [], []
    done = torch.zeros_like(first.is_over)
    overs = []
    for t in range(task.most_open):
        if t == 0 and prescribed is not None:
            action, is_chosen = prescribed, torch.zeros_like(done)
        else:
            obs, allowed = shown(task, state, t)
            logits = policy.scores(obs, is_training=True).logits
            action = sample_categorical(masked_log_softmax(logits, allowed), generator)
            is_chosen = ~done
        # a finished row has all actions allowed and no effect on what counts
        after, _, is_over = task.step(state, action)
        cost = torch.where(done, state.cost, after.cost)
        state, done = after._replace(cost=cost), done | is_over
        actions.append(action)
        counts.append(is_chosen)
        overs.append(done.all())
        if asks(task, done.device, t) and bool(overs[-1]):
            break
    taken = len(actions)
    if done.device.type != "cpu":  # steps after everything was over are none
        taken = min(taken, 1 + int((~torch.stack(overs)).sum()))
    return Rollouts(first, actions[:taken], counts[:taken], state.cost)


def backward(
    task: ConstructionTask, policy: ConstructionPolicy, rollouts: Rollouts, num_starts: int, entropy_weight: float
) -> tuple[float, float]:
    """Accumulate the gradient of the policy loss, step by step, so that the memory of one step suffices.

    loss = -mean over episodes of (mean cost of the instance's starts - cost) sum_t log p(a_t | s_t)
    - entropy_weight mean over decisions of the entropy.

    Args:
        task: the task.
        policy: the policy whose trained weights get the gradient.
        rollouts: of `roll_out`.
        num_starts: number of starts S.
        entropy_weight: weight of the entropy bonus.

    Returns:
        The loss, without the entropy, and the mean entropy.
    """
    cost = rollouts.cost.view(-1, num_starts)
    advantage = (cost.mean(1, keepdim=True) - cost).flatten().float()
    decisions = float(torch.stack(rollouts.counts).sum())
    state, found = rollouts.first, []
    for t, (action, is_chosen) in enumerate(zip(rollouts.actions, rollouts.counts)):
        if is_chosen.device.type != "cpu" or bool(is_chosen.any()):
            obs, allowed = shown(task, state, t)
            logits = policy.scores(obs, is_training=True).logits
            log_probs = masked_log_softmax(logits, allowed)
            log_prob = categorical_log_prob(log_probs, action)
            spread = -(log_probs.exp() * log_probs).sum(1)
            gain = (advantage * log_prob * is_chosen).sum() / len(advantage)
            bonus = (spread * is_chosen).sum() / decisions
            (-gain - entropy_weight * bonus).backward()
            found.append(torch.stack([-gain.detach(), bonus.detach()]))
        state, _, _ = task.step(state, action)
    loss, entropy = 0.0, 0.0
    for gain_lost, bonus_won in torch.stack(found).tolist() if found else ():
        loss, entropy = loss + gain_lost, entropy + bonus_won
    return loss, entropy
