"""Part of an agent: how likely its policy finds actions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .action_distributions import coded
from .saved_states import SavedStates


class Densities(SavedStates):
    """An agent that says the density of actions, by `policy.distribution(obs, action_masks)`."""

    def log_prob(self, obs: Any, action: Any) -> Tensor:
        """Return the log-probability or -density [B] of actions at observations, with gradient into the policy.

        Actions that the observations show as forbidden have a probability of zero, as when the policy acts.

        Args:
            obs: [B, ...] observations, numpy or tensors (dicts of them).
            action: [B, ...] actions of the environment.

        Raises:
            UsageError: the policy has no density.
        """
        return self._log_prob(obs, action, None)

    def _log_prob(self, obs: Any, action: Any, action_masks: Any) -> Tensor:
        acted = coded(torch.as_tensor(action, device=self.device), self.action_space)
        found: Tensor = self._distribution(obs, action_masks).log_prob(acted)
        return found

    def _distribution(self, obs: Any, action_masks: Any) -> Any:
        """Return the policy's distribution at observations [B, ...]; see `log_prob`.

        Args:
            obs: as in `log_prob`.
            action_masks: [B, A] bool of the allowed actions; None allows what the observation shows as allowed.
        """
        policy: Any = self.policy
        if not hasattr(policy, "distribution"):
            raise UsageError(
                f"{type(policy).__name__} has no density that can be computed; compare its actions instead"
            )
        parts = list(obs.values()) if isinstance(obs, dict) else [obs]
        shown = obs if all(isinstance(part, Tensor) for part in parts) else policy.obs_to_tensor(obs)[0]
        mask = None if action_masks is None else torch.as_tensor(action_masks, device=self.device).bool()
        return policy.distribution(shown, mask)
