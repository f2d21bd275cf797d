"""Staying near a reference policy as a reward of every action: the KL reward of RLHF, for any environment."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from polyathlon.agents.parts.intrinsic import BonusBatch
from polyathlon.envs.errors import UsageError, check_positive


class KLToReference:
    """The intrinsic reward -lam (log pi(a | s) - log reference(a | s)); `PPO(..., reference=agent, reference_coef=lam)` makes one.

    Its sum over an episode is -lam KL(pi, reference) on average, so PPO maximises the return of demonstration-regularised RL
    (Tiapkin et al. 2024, arXiv 2310.17303) where the reference is a cloned policy. With a uniform reference it is an entropy bonus, up to
    a constant.

    Args:
        reference: a trained agent whose policy has a density on the same spaces (`agent.log_prob`), such as a `BC` or another `PPO`.
        lam: weight.
        extrinsic: weight of the environment's reward.

    Raises:
        UsageError: the reference has no density, or the weight is not positive.
    """

    reads_captions = False
    reads_observations = False
    reads_policy = True

    def __init__(self, reference: Any, lam: float = 0.05, extrinsic: float = 1.0) -> None:
        check_positive(lam=lam)
        if not callable(getattr(reference, "log_prob", None)):
            raise UsageError(
                f"a reference is a trained agent with log_prob(obs, action), such as BC(dataset=...), got {reference!r}"
            )
        self.reference, self.lam, self.extrinsic = reference, float(lam), float(extrinsic)
        self._divergence = 0.0

    @torch.no_grad()
    def bonus(self, batch: BonusBatch) -> Tensor:
        """Return the rewards [T, N]."""
        assert batch.policy is not None
        obs, action, mask, log_prob = batch.policy
        words = {} if mask is None else {"action_masks": mask}
        near = self.reference.log_prob(obs, action, **words).to(log_prob.device).view_as(log_prob)
        half = getattr(self.reference, "_half_range", None)
        if half is not None and isinstance(self.reference.action_space, spaces.Box):
            # its density is that of actions scaled to [-1, 1], PPO's in the environment's units; choices have no scale
            near = near - half.log().sum()
        gap = log_prob - near
        self._divergence = float(gap.mean())
        return -self.lam * gap

    def update(self, batch: BonusBatch) -> None:
        """Learn nothing: the reference stays."""

    def metrics(self) -> dict[str, float]:
        """Return the mean log-ratio of the last rollout."""
        return {"train/reference_kl": self._divergence}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing; the reference is given again to `resume`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""
