"""Learning from solved instances: which choice comes next, and which nodes are neighbours on the solution."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.agents.parts.action_distributions import masked_log_softmax
from polyathlon.agents.parts.cross_entropy import soft_cross_entropy
from polyathlon.envs.combinatorial.node_kinds import DESTINATION, ORIGIN, PADDING

from .networks import Scores
from .policies import ConstructionPolicy
from .sub_instances import SubInstance


class ImitationLoss(NamedTuple):
    """Losses of a batch, each a sum over its rows.

    Attributes:
        choice: cross-entropy of the next choice.
        edges: cross-entropy of the neighbours on the solution; 0 where it is not trained on.
        right: number of rows whose most likely action is one of the label's.
    """

    choice: Tensor
    edges: Tensor
    right: Tensor


def imitation_loss(policy: ConstructionPolicy, batch: SubInstance, with_edges: bool) -> ImitationLoss:
    """Return the losses of a batch of cuts.

    The loss of the edges takes every kept row as a place from which the route goes on, not only the origin, so that one
    forward pass is trained on as many decisions as there are rows. A tour that may be walked either way has two next
    nodes; one that may not has the following node only.

    Args:
        policy: the policy, whose trained weights are used.
        cut: B sub-instances.
        with_edges: add the loss of the edges, where the network scores them.
    """
    scores = policy.scores(batch.obs, is_training=True)
    # a label that was pruned away teaches nothing
    is_seen = (batch.target * (scores.logits > -1e8)).sum(1) > 1.0 - 1e-6
    losses = soft_cross_entropy(scores.logits, batch.target, batch.mask)
    choice = torch.where(is_seen, losses, 0.0).sum()
    best = scores.logits.detach().masked_fill(~batch.mask, -torch.inf).argmax(1, keepdim=True)
    right = (batch.target.gather(1, best) > 0).sum()
    edges = torch.zeros_like(choice)
    if with_edges and scores.edges is not None:
        edges = _edge_loss(scores, batch, is_symmetric=policy.problem.is_symmetric)
    return ImitationLoss(choice, edges, right)


def _edge_loss(scores: Scores, batch: SubInstance, is_symmetric: bool) -> Tensor:
    """Sum over the batch of the mean, over the rows that have a neighbour among the kept ones, of their cross-entropy."""
    assert scores.edges is not None
    kept = scores.edges.shape[1]
    position, kind = batch.position, batch.obs["kind"].long()
    if scores.kept is None:
        position, kind = position[:, :kept], kind[:, :kept]
    else:
        position, kind = position.gather(1, scores.kept), kind.gather(1, scores.kept)
    step = position.unsqueeze(1) - position.unsqueeze(2)  # [B, i, j]: how far behind row i row j comes
    is_next = (step.abs() == 1) if is_symmetric else step == 1
    # one never goes back to the origin, and never on from the destination, unless edges have no direction
    is_node = kind != PADDING
    hidden = ~is_node.unsqueeze(1) | torch.eye(kept, dtype=torch.bool, device=kind.device)
    if not is_symmetric:
        hidden = hidden | (kind == ORIGIN).unsqueeze(1) | (kind == DESTINATION).unsqueeze(2)
    is_next = is_next & ~hidden
    log_probs = masked_log_softmax(scores.edges, ~hidden)
    share = 0.5 if is_symmetric else 1.0
    total = -(log_probs * is_next).sum((1, 2)) * share
    return (total / is_next.any(2).sum(1).clamp(min=1)).sum()


def one_cycle(progress_remaining: float, warmup_fraction: float) -> float:
    """Return the factor of the step size: a linear rise over the share `warmup_fraction` of the run, then half a cosine down to 0.

    Smith and Topin, "Super-convergence", 2018.

    Args:
        progress_remaining: from 1 at the start to 0 at the end.
        warmup_fraction: share of the run, in [0, 1).
    """
    done = min(max(1.0 - progress_remaining, 0.0), 1.0)
    rise = min(1.0, done / warmup_fraction) if warmup_fraction > 0 else 1.0
    return rise * 0.5 * (1.0 + math.cos(math.pi * done))
