"""Log-probabilities of whole answers and segments, and which of them are compared."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

Reduce = Literal["sum", "mean"]


def seq_logps(logp: Tensor, mask: Tensor, *, reduce: Reduce = "sum") -> Tensor:
    """Log-probability of each answer, [N]: the sum of its tokens', or their mean.

    A segment of any task is an answer whose steps are its tokens.

    Args:
        logp: [N, T].
        mask: [N, T] 1 on the policy's tokens.
        reduce: "sum", or "mean" over the answer's own tokens; an answer without any has 0.
    """
    total = torch.where(mask > 0, logp, torch.zeros_like(logp)).sum(1)
    return total if reduce == "sum" else total / mask.sum(1).clamp(min=1)


def log_ratio(logp: Tensor, reference_logp: Tensor, mask: Tensor) -> Tensor:
    """Sum over the tokens of an answer of log p - log p_reference, [N]; the reference is constant.

    Args:
        logp: [N, T] under the current parameters.
        reference_logp: [N, T] under the reference.
        mask: [N, T] 1 on the policy's tokens.
    """
    return seq_logps(logp - reference_logp.detach(), mask)


def pairs(side: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of the chosen and of the rejected answer of each pair, [P] and [P] int64.

    In a group every chosen answer makes a pair with every rejected one. Rows of side 0 are in no pair.

    Args:
        side: [N] 1 chosen, -1 rejected, 0 neither.
        group: [N] int64.

    Raises:
        UsageError: a group has chosen answers and no rejected ones or the other way round, or there is no pair at all.
    """
    if side.device.type != "cpu":  # asked once, where looking rows up would ask five times
        won, lost = pairs(*torch.stack([side.to(group.dtype), group]).cpu())
        return won.to(side.device), lost.to(side.device)
    chosen, rejected = (side > 0).nonzero()[:, 0], (side < 0).nonzero()[:, 0]
    is_pair = group[chosen][:, None] == group[rejected][None]
    if not (len(chosen) and len(rejected) and bool(is_pair.any(1).all()) and bool(is_pair.any(0).all())):
        raise UsageError(
            "this method compares a chosen answer with a rejected one to the same prompt, but "
            + (
                f"a prompt has {'rejected' if len(rejected) > len(chosen) else 'chosen'} answers alone"
                if len(side)
                else "there is no answer"
            )
            + ": give pairs (prompt, chosen, rejected). Answers that are labelled one by one, as for KTO, are no pairs: take "
            "copg or a policy gradient with their scores, or sft on the good ones"
        )
    won, lost = is_pair.nonzero(as_tuple=True)
    return chosen[won], rejected[lost]


def refuse_single(group: Tensor, what: str) -> None:
    """Refuse groups of one answer where a method compares the answers to a prompt.

    Raises:
        UsageError: with the number of such groups.
    """
    sizes = torch.unique(group, return_counts=True)[1]
    if bool((sizes < 2).any()):
        raise UsageError(
            f"{what} compares the answers to a prompt, but {int((sizes < 2).sum())} of {len(sizes)} prompts have one alone: give "
            "at least two to each"
        )
