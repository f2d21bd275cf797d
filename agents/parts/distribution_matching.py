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
from .pairwise_ppo import LARGEST_LOG_RATIO
from .sequences import seq_logps

FLOOR = -50.0  # log P of an answer that the target excludes: its weight is 2e-22


class MatchTarget:
    """The pseudo-reward -f'(pi / p) of each answer, less its moving average (Go et al. 2023, f-DPG, arXiv 2302.08215).

    grad D_f(pi, p) = E_pi[f'(pi / p) grad log pi], so policy gradient with this advantage minimises the divergence between the policy and
    p = P / Z, where P(y) = reference(y) exp(reward / beta) ("tilted", the optimum of RLHF) or reference(y) [reward >= 1] ("filtered").
    Z of a problem is the mean of P / q over all its answers so far, q the model that wrote them: the policy, or the side model "proposal".
    That one is replaced by the policy, at the times that its row says, where the last answers find the policy nearer to p:
    E_q[P / (q Z) (log q - log pi)], the difference of KL(p, pi) and KL(p, q), is negative.

    Args:
        divergence: "js" (the authors' default), "reverse_kl" (REINFORCE with the divergence in the reward), "forward_kl", "tv", "chi2",
            "reverse_chi2".
        target: "tilted" or "filtered"; `moment_targets.MatchMoments` has a third one.
        beta: of "tilted".
        window: answers whose pseudo-rewards the baseline averages; it does not include the batch at hand. It is not weighed.
        proposal_window: answers that say whether the policy is nearer to the target than the proposal.
    """

    def __init__(
        self,
        *,
        divergence: FKind = "js",
        target: Literal["tilted", "filtered"] = "tilted",
        beta: Annotated[float, Bounds(1e-9)] = 0.1,
        window: PositiveCount = 1024,
        proposal_window: PositiveCount = 256,
    ) -> None:
        self.divergence, self.target, self.beta = divergence, target, float(beta)
        self.partition: dict[str, list[float]] = {}  # problem -> log of the sum of P / pi, number of answers
        self.baseline: deque[float] = deque(maxlen=window)
        self.nearer: deque[float] = deque(maxlen=proposal_window)  # P / (q Z) (log q - log pi)

    def __call__(
        self,
        task: Sequence[Any],
        reward: Tensor,
        old_logp: Tensor,
        reference_logp: Tensor,
        mask: Tensor,
        proposal_logp: Tensor | None = None,
    ) -> Tensor:
        """Return the advantage of each answer, [N].

        Raises:
            UsageError: an answer has no reward.
        """
        found = self._scored(task, reward, old_logp, reference_logp, mask, proposal_logp)[0]
        return found - (sum(self.baseline) / len(self.baseline) if self.baseline else 0.0)

    def after(
        self,
        task: Sequence[Any],
        reward: Tensor,
        old_logp: Tensor,
        reference_logp: Tensor,
        mask: Tensor,
        proposal_logp: Tensor | None = None,
    ) -> None:
        """Remember the answers of a batch."""
        found, partition, gaps = self._scored(task, reward, old_logp, reference_logp, mask, proposal_logp)
        self.partition |= partition
        self.baseline.extend(found.tolist())
        self.nearer.extend(gaps.tolist() if proposal_logp is not None else ())

    @property
    def holds(self) -> tuple[str, ...]:
        """Roles that are not to follow the policy now: "proposal", while it is as near to the target as the policy."""
        return () if math.fsum(self.nearer) < 0 else ("proposal",)

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
        self,
        task: Sequence[Any],
        reward: Tensor,
        old_logp: Tensor,
        reference_logp: Tensor,
        mask: Tensor,
        proposal_logp: Tensor | None,
    ) -> tuple[Tensor, dict[str, list[float]], Tensor]:
        """Return -f'(pi / p) of each answer [N], what is known of each problem's Z with these answers in it, and `nearer` of each."""
        policy = seq_logps(old_logp, mask)
        ahead = (policy if proposal_logp is None else seq_logps(proposal_logp, mask)) - policy  # log (q / pi)
        weight = self.log_target(reward, reference_logp, mask) - policy - ahead  # log (P / q)
        names = list(map(str, task))
        partition: dict[str, list[float]] = {}
        for name, own in zip(names, weight.tolist(), strict=True):
            total, number = partition.get(name, self.partition.get(name, [-math.inf, 0]))
            partition[name] = [_log_add(total, own), number + 1]
        log_z = weight.new_tensor([partition[name][0] - math.log(partition[name][1]) for name in names])
        # log t = log pi - (log P - log Z)
        return -f_prime(log_z - weight - ahead, self.divergence), partition, (weight - log_z).exp() * ahead

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered."""
        return {
            "partition": {name: list(kept) for name, kept in self.partition.items()},
            "baseline": list(self.baseline),
            "nearer": list(self.nearer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from there."""
        self.partition = {name: list(kept) for name, kept in state["partition"].items()}
        self.baseline = deque(state["baseline"], maxlen=self.baseline.maxlen)
        self.nearer = deque(state.get("nearer", ()), maxlen=self.nearer.maxlen)


def importance_weighted(logp: Tensor, proposal_logp: Tensor, mask: Tensor, adv: Tensor) -> Tensor:
    """Policy gradient on answers that another model wrote: -(pi / q) A, whose gradient is -w A grad log pi with w = pi / q held fixed.

    Args:
        logp: [N, T] under the current parameters.
        proposal_logp: [N, T] under the model q that wrote the answers at temperature 1.
        mask: [N, T] 1 on the tokens that were written.
        adv: [N] advantages.

    Returns:
        A scalar, the mean over answers; log w is held within 20, so that a long answer cannot overflow.
    """
    log_w = seq_logps(logp - proposal_logp.detach(), mask).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    return -(log_w.exp() * adv.detach()).mean()


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
