"""Matching a target distribution by any f-divergence, from scores of the policy's own answers (f-DPG)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .f_divergences import FKind, f_prime
from .option_types import Bounds, PositiveCount
from .sequences import seq_logps

FLOOR = -50.0  # log P of an answer that the target excludes: its weight is 2e-22


class MatchTarget:
    """The pseudo-reward -f'(pi / p) of each answer, less its moving average (Go et al. 2023, f-DPG, arXiv 2302.08215).

    grad D_f(pi, p) = E_pi[f'(pi / p) grad log pi], so policy gradient with this advantage minimises the divergence between the policy and
    p = P / Z, where P(y) = reference(y) exp(reward / beta) ("tilted", the optimum of RLHF) or reference(y) [reward >= 1] ("filtered").
    Z of a problem is the mean of P / pi over all its answers so far.

    Args:
        divergence: "js" (the authors' default), "reverse_kl" (REINFORCE with the divergence in the reward), "forward_kl", "tv", "chi2",
            "reverse_chi2".
        target: "tilted" or "filtered".
        beta: of "tilted".
        window: answers whose pseudo-rewards the baseline averages; it does not include the batch at hand.
    """

    def __init__(
        self,
        *,
        divergence: FKind = "js",
        target: Literal["tilted", "filtered"] = "tilted",
        beta: Annotated[float, Bounds(1e-9)] = 0.1,
        window: PositiveCount = 1024,
    ) -> None:
        self.divergence, self.target, self.beta = divergence, target, float(beta)
        self.partition: dict[str, list[float]] = {}  # problem -> log of the sum of P / pi, number of answers
        self.baseline: deque[float] = deque(maxlen=window)

    def __call__(
        self, task: Sequence[Any], reward: Tensor, old_logp: Tensor, reference_logp: Tensor, mask: Tensor
    ) -> Tensor:
        """Return the advantage of each answer, [N].

        Raises:
            UsageError: an answer has no reward.
        """
        found = self._scored(task, reward, old_logp, reference_logp, mask)[0]
        return found - (sum(self.baseline) / len(self.baseline) if self.baseline else 0.0)

    def after(
        self, task: Sequence[Any], reward: Tensor, old_logp: Tensor, reference_logp: Tensor, mask: Tensor
    ) -> None:
        """Remember the answers of a batch."""
        found, partition = self._scored(task, reward, old_logp, reference_logp, mask)
        self.partition |= partition
        self.baseline.extend(found.tolist())

    def log_target(self, reward: Tensor, reference_logp: Tensor, mask: Tensor) -> Tensor:
        """Return log P of each answer, [N]."""
        if not bool(reward.isfinite().all()):
            raise UsageError(
                f"fdpg scores every answer, but {int((~reward.isfinite()).sum())} of {len(reward)} have none"
            )
        reference = seq_logps(reference_logp, mask)
        if self.target == "tilted":
            return reference + reward.to(reference.dtype) / self.beta
        return torch.where(reward >= 1, reference, reference + FLOOR)

    def _scored(
        self, task: Sequence[Any], reward: Tensor, old_logp: Tensor, reference_logp: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, list[float]]]:
        """Return -f'(pi / p) of each answer [N], and what is known of each problem's Z with these answers in it."""
        weight = self.log_target(reward, reference_logp, mask) - seq_logps(old_logp, mask)  # log (P / pi)
        names = list(map(str, task))
        partition: dict[str, list[float]] = {}
        for name, own in zip(names, weight.tolist(), strict=True):
            total, number = partition.get(name, self.partition.get(name, [-math.inf, 0]))
            partition[name] = [_log_add(total, own), number + 1]
        log_z = weight.new_tensor([partition[name][0] - math.log(partition[name][1]) for name in names])
        return -f_prime(log_z - weight, self.divergence), partition  # log t = log pi - (log P - log Z)

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        return {
            "partition": {name: list(kept) for name, kept in self.partition.items()},
            "baseline": list(self.baseline),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.partition = {name: list(kept) for name, kept in state["partition"].items()}
        self.baseline = deque(state["baseline"], maxlen=self.baseline.maxlen)


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
