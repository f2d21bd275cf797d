"""Action distributions as named tuples of tensors, so that they pass vmap and compilation.

Each has `log_prob(action) -> [B]`, `sample(noise) -> (action, logp)`, `mode()`, `entropy()` and `noise_shape`, the shape of
the noise of one row; noise is standard normal, for `Categorical` and `Product` Gumbel (`noise_kind`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from polyathlon.agents.parts.action_distributions import (
    FORBIDDEN_LOGIT,
    LOG_SQRT_2_PI,
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
    gaussian_log_prob,
)
from polyathlon.agents.parts.gaussian_mixture import gmm_logp
from polyathlon.agents.parts.squashed_gaussian import log_one_minus_tanh_squared, tanh_gaussian
from polyathlon.envs.errors import UsageError

# actions this close to a bound are taken as that far from it, where atanh is still finite in float32
_EDGE = 1e-6


class Distribution(Protocol):
    """What a policy returns for a batch of observations."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one row."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [B] of actions [B, ...]."""
        ...

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and log-density for noise [B, *noise_shape]."""
        ...

    def mode(self) -> Tensor:
        """The most likely action, or what stands for it."""
        ...

    def entropy(self) -> Tensor:
        """Entropy [B]."""
        ...


def unsquash(action: Tensor) -> Tensor:
    """Return atanh(action), for actions [..., A] in [-1, 1]."""
    return torch.atanh(action.clamp(-1 + _EDGE, 1 - _EDGE))


def _no_entropy(name: str) -> UsageError:
    return UsageError(f"the entropy of a {name} has no closed form; take the mean of -logp of its samples")


class SquashedGaussian(NamedTuple):
    """a = tanh(mean + exp(log_std) noise), as SAC acts.

    Attributes:
        mean: [B, A].
        log_std: [B, A].
    """

    mean: Tensor
    log_std: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(A,)."""
        return tuple(self.mean.shape[-1:])

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [B]: that of u = atanh(a) minus log(1 - tanh(u)^2)."""
        u = unsquash(action)
        return gaussian_log_prob(self.mean, self.log_std, u) - log_one_minus_tanh_squared(u).sum(-1)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and log-density for normal noise [B, A]."""
        return tanh_gaussian(self.mean, self.log_std, noise)

    def mode(self) -> Tensor:
        """tanh(mean)."""
        return torch.tanh(self.mean)

    def entropy(self) -> Tensor:
        """Refused: there is no closed form."""
        raise _no_entropy("squashed Gaussian")


class Gaussian(NamedTuple):
    """A diagonal Gaussian.

    Attributes:
        mean: [B, A].
        log_std: [A] or [B, A].
    """

    mean: Tensor
    log_std: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(A,)."""
        return tuple(self.mean.shape[-1:])

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [B]."""
        return gaussian_log_prob(self.mean, self.log_std, action)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and log-density for normal noise [B, A]."""
        action = self.mean + self.log_std.exp() * noise
        return action, (-0.5 * noise.square() - self.log_std - LOG_SQRT_2_PI).sum(-1)

    def mode(self) -> Tensor:
        """The mean."""
        return self.mean

    def entropy(self) -> Tensor:
        """Entropy [B]."""
        return gaussian_entropy(self.log_std.expand_as(self.mean))


class TanhMean(NamedTuple):
    """A deterministic policy a = tanh(mean), whose log-density is minus the squared distance.

    Attributes:
        mean: [B, A].
    """

    mean: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(A,); the noise is not used."""
        return tuple(self.mean.shape[-1:])

    def log_prob(self, action: Tensor) -> Tensor:
        """-|tanh(mean) - a|^2, [B]."""
        return -(self.mode() - action).square().sum(-1)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The action, with log-density 0."""
        return self.mode(), torch.zeros_like(self.mean[..., 0])

    def mode(self) -> Tensor:
        """tanh(mean)."""
        return torch.tanh(self.mean)

    def entropy(self) -> Tensor:
        """0, [B]."""
        return torch.zeros_like(self.mean[..., 0])


def _expert_of(log_w: Tensor, noise: Tensor) -> Tensor:
    """Choose an expert [B] by normal noise [B]: u = Phi(noise) is uniform; the first k with w_1 + ... + w_k > u."""
    u = 0.5 * (1 + torch.erf(noise / math.sqrt(2)))
    return (u.unsqueeze(-1) >= log_w.exp().cumsum(-1)).sum(-1).clamp(max=log_w.shape[-1] - 1)


def _chosen(values: Tensor, expert: Tensor) -> Tensor:
    return values.gather(-2, expert[..., None, None].expand(*expert.shape, 1, values.shape[-1])).squeeze(-2)


class Mixture(NamedTuple):
    """A mixture of K diagonal Gaussians.

    Attributes:
        log_w: [B, K] log-weights, normalised.
        mean: [B, K, A].
        log_std: [K, A] or [B, K, A].
    """

    log_w: Tensor
    mean: Tensor
    log_std: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(A + 1,): the last entry chooses the expert."""
        return (self.mean.shape[-1] + 1,)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log sum_k w_k N(a; mean_k, std_k^2), [B]."""
        return gmm_logp(self.log_w, self.mean, self.log_std, action)

    def experts(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One action of every expert, [B, K, A], and its density under that expert, [B, K], for noise [B, K, A]."""
        return Gaussian(self.mean, self.log_std).sample(noise)

    def entropies(self) -> Tensor:
        """Entropy [K] or [B, K] of every expert."""
        return gaussian_entropy(self.log_std)

    def encoded(self, action: Tensor) -> Tensor:
        """Actions [..., A] as rows of numbers: as they are."""
        return action

    def expert(self, index: Tensor) -> Gaussian:
        """One expert of each row, [B] int64."""
        return Gaussian(_chosen(self.mean, index), _chosen(self.log_std.expand_as(self.mean), index))

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and the mixture's log-density for normal noise [B, A + 1]."""
        expert = _expert_of(self.log_w, noise[..., -1])
        spread = self.log_std.expand_as(self.mean).exp()
        action = _chosen(self.mean, expert) + _chosen(spread, expert) * noise[..., :-1]
        return action, self.log_prob(action)

    def mode(self) -> Tensor:
        """The mean of the expert with the largest weight."""
        return _chosen(self.mean, self.log_w.argmax(-1))

    def entropy(self) -> Tensor:
        """Refused: there is no closed form."""
        raise _no_entropy("mixture")


class SquashedMixture(NamedTuple):
    """a = tanh(u) where u follows a mixture, as PMOE acts; attributes as of `Mixture`."""

    log_w: Tensor
    mean: Tensor
    log_std: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(A + 1,): the last entry chooses the expert."""
        return (self.mean.shape[-1] + 1,)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density [B] of the squashed mixture."""
        u = unsquash(action)
        return gmm_logp(self.log_w, self.mean, self.log_std, u) - log_one_minus_tanh_squared(u).sum(-1)

    def experts(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """One action of every expert, [B, K, A], and its density under that expert, [B, K], for noise [B, K, A]."""
        return tanh_gaussian(self.mean, self.log_std, noise)

    def expert(self, index: Tensor) -> SquashedGaussian:
        """One expert of each row, [B] int64."""
        return SquashedGaussian(_chosen(self.mean, index), _chosen(self.log_std.expand_as(self.mean), index))

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and the mixture's log-density for normal noise [B, A + 1]."""
        u, logp = Mixture(self.log_w, self.mean, self.log_std).sample(noise)
        return torch.tanh(u), logp - log_one_minus_tanh_squared(u).sum(-1)

    def mode(self) -> Tensor:
        """Tanh of the mean of the expert with the largest weight."""
        return torch.tanh(_chosen(self.mean, self.log_w.argmax(-1)))

    def entropy(self) -> Tensor:
        """Refused: there is no closed form."""
        raise _no_entropy("squashed mixture")


class Categorical(NamedTuple):
    """One of n actions; a token language model is one over its vocabulary.

    Attributes:
        logits: [..., n], of any scale.
    """

    logits: Tensor

    @property
    def noise_kind(self) -> str:
        """Gumbel."""
        return "gumbel"

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(n,)."""
        return tuple(self.logits.shape[-1:])

    def masked(self, mask: Tensor) -> Categorical:
        """Return the distribution over the actions that `mask` [..., n] bool allows."""
        return Categorical(self.logits.masked_fill(~mask, FORBIDDEN_LOGIT))

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability [...] of actions [...] int64."""
        return categorical_log_prob(self.logits.log_softmax(-1), action)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and log-probability for Gumbel noise [..., n]: argmax(logits + noise)."""
        action = (self.logits + noise).argmax(-1)
        return action, self.log_prob(action)

    def mode(self) -> Tensor:
        """The most likely action."""
        return self.logits.argmax(-1)

    def entropy(self) -> Tensor:
        """Entropy [...]."""
        return categorical_entropy(self.logits.log_softmax(-1))


class Product(NamedTuple):
    """Independent choices side by side: MultiDiscrete, and MultiBinary with two logits each.

    Attributes:
        logits: D tensors [B, n_d].
    """

    logits: tuple[Tensor, ...]

    @property
    def noise_kind(self) -> str:
        """Gumbel."""
        return "gumbel"

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(n_1 + ... + n_D,)."""
        return (sum(one.shape[-1] for one in self.logits),)

    def masked(self, mask: Tensor) -> Product:
        """Return the distribution over what `mask` [B, n_1 + ... + n_D] bool allows, the choices side by side."""
        pieces = mask.split([one.shape[-1] for one in self.logits], -1)
        return Product(tuple(d.masked(m).logits for d, m in zip(self._parts(), pieces)))

    def _parts(self) -> list[Categorical]:
        return [Categorical(one) for one in self.logits]

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability [B] of actions [B, D] int64."""
        return torch.stack([d.log_prob(action[..., i]) for i, d in enumerate(self._parts())]).sum(0)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, D] and log-probability for Gumbel noise [B, n_1 + ... + n_D]."""
        pieces = noise.split([one.shape[-1] for one in self.logits], -1)
        action = torch.stack([d.sample(n)[0] for d, n in zip(self._parts(), pieces)], -1)
        return action, self.log_prob(action)

    def mode(self) -> Tensor:
        """The most likely actions [B, D]."""
        return torch.stack([d.mode() for d in self._parts()], -1)

    def entropy(self) -> Tensor:
        """Entropy [B]."""
        return torch.stack([d.entropy() for d in self._parts()]).sum(0)


class Diffusion(NamedTuple):
    """A diffusion or flow policy: samples, but has no density.

    Attributes:
        generate: noise [B, *noise_shape] -> actions [B, A]; what it reads of the observation is in it.
        like: [B, T + 1, A] or [B, A], a tensor of the noise's shape.
    """

    generate: Callable[[Tensor], Tensor]
    like: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one row."""
        return tuple(self.like.shape[1:])

    def log_prob(self, action: Tensor) -> Tensor:
        """Refused."""
        raise UsageError("a diffusion or flow policy has no density that can be computed; compare its samples instead")

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions for noise; the log-density is NaN."""
        action = self.generate(noise)
        return action, action.new_full(action.shape[:-1], math.nan)

    def mode(self) -> Tensor:
        """What it makes of no noise."""
        return self.generate(torch.zeros_like(self.like))

    def entropy(self) -> Tensor:
        """Refused."""
        raise _no_entropy("diffusion or flow policy")
