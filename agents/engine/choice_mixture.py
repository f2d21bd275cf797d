"""A mixture of products of choices: what a mixture of experts is where actions are MultiDiscrete or MultiBinary."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from polyathlon.envs.errors import UsageError

from .distributions import Product


class ChoiceMixture(NamedTuple):
    """K products of D independent choices, of which one acts.

    Attributes:
        log_w: [B, K] log-weights, normalised.
        logits: D tensors [B, K, n_d].
    """

    log_w: Tensor
    logits: tuple[Tensor, ...]

    @property
    def noise_kind(self) -> str:
        """Gumbel."""
        return "gumbel"

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(K + n_1 + ... + n_D,): the first K entries choose the expert."""
        return (self.log_w.shape[-1] + sum(one.shape[-1] for one in self.logits),)

    def masked(self, mask: Tensor) -> ChoiceMixture:
        """Return the mixture over what `mask` [B, n_1 + ... + n_D] bool allows, the choices side by side."""
        return ChoiceMixture(self.log_w, Product(self.logits).masked(mask.unsqueeze(-2)).logits)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log sum_k w_k prod_d p_kd(a_d), [B], of actions [B, D] int64."""
        expanded = action.unsqueeze(-2).expand(*self.log_w.shape, action.shape[-1])
        return (self.log_w + Product(self.logits).log_prob(expanded)).logsumexp(-1)

    def experts(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One action of every expert, [B, K, D], and its log-probability under it, [B, K], for noise [B, K, n_1 + ... + n_D]."""
        return Product(self.logits).sample(noise)

    def expert(self, index: Tensor) -> Product:
        """One expert of each row, [B] int64."""
        place = index[..., None, None]
        return Product(
            tuple(one.gather(-2, place.expand(*index.shape, 1, one.shape[-1])).squeeze(-2) for one in self.logits)
        )

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, D] and the mixture's log-probability for Gumbel noise [B, K + n_1 + ... + n_D]."""
        experts = self.log_w.shape[-1]
        index = (self.log_w + noise[..., :experts]).argmax(-1)
        action = self.expert(index).sample(noise[..., experts:])[0]
        return action, self.log_prob(action)

    def mode(self) -> Tensor:
        """The most likely actions [B, D] of the expert with the largest weight."""
        return self.expert(self.log_w.argmax(-1)).mode()

    def entropies(self) -> Tensor:
        """Entropy [B, K] of every expert."""
        return Product(self.logits).entropy()

    def encoded(self, action: Tensor) -> Tensor:
        """Actions [..., D] as rows of numbers [..., n_1 + ... + n_D]: each choice one-hot."""
        places = [torch.arange(one.shape[-1], device=action.device) for one in self.logits]
        parts = [action[..., d, None] == place for d, place in enumerate(places)]
        return torch.cat(parts, -1).to(self.log_w.dtype)

    def entropy(self) -> Tensor:
        """Refused: there is no closed form."""
        raise UsageError("the entropy of a mixture has no closed form; take the mean of -logp of its samples")
